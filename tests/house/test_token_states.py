# SPDX-License-Identifier: Apache-2.0
"""The hidden states of whole classes: what the file promises, and how a damaged one is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedcore import datasets

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "data"
PATH = FOLDER / "token_states.npz"

pytestmark = pytest.mark.skipif(not PATH.exists(), reason="the file lives in the source tree")


@pytest.fixture(scope="module")
def states() -> datasets.TokenStates:
    return datasets.load_token_states(PATH)


def test_sizes(states: datasets.TokenStates) -> None:
    assert PATH.stat().st_size <= 5_000_000
    assert states.hidden.shape == (900, 24, 384)
    assert states.hidden.dtype == np.float32
    assert states.class_names == sorted(states.class_names)
    assert np.bincount(states.labels).tolist() == [90] * 10
    assert np.all(np.diff(states.labels) >= 0)
    assert states.rows.tolist() == list(range(900))


def test_texts_and_tokens_say_the_same(states: datasets.TokenStates) -> None:
    assert len({text.lower() for text in states.texts}) == 900
    assert states.lengths.tolist() == [len(tokens) for tokens in states.tokens]
    for text, tokens in zip(states.texts, states.tokens, strict=True):
        assert tokens[0] == "[CLS]" and tokens[-1] == "[SEP]"
        joined = re.sub(r"\W", "", "".join(t.replace("##", "") for t in tokens[1:-1]))
        assert joined == re.sub(r"\W", "", text.lower())


def test_padding_is_zero_and_tokens_are_not(states: datasets.TokenStates) -> None:
    filled = np.arange(states.hidden.shape[1]) < states.lengths[:, None]
    norms = np.linalg.norm(states.hidden, axis=2)
    np.testing.assert_array_equal(norms > 0, filled)


def test_classes_are_those_of_the_glosses(states: datasets.TokenStates) -> None:
    other = datasets.load_token_states(FOLDER / "glosses.npz")
    common = [(i, states.texts.index(t)) for i, t in enumerate(other.texts) if t in states.texts]
    assert len(common) >= 60
    for i, j in common:
        assert other.class_names[other.labels[i]] == states.class_names[states.labels[j]]
        assert other.tokens[i] == states.tokens[j]


def test_states_tell_classes_apart(states: datasets.TokenStates) -> None:
    # Rows are placed by the nearest mean of the others; by chance a tenth would be right.
    means = states.hidden.sum(axis=1) / states.lengths[:, None]
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    known = means[::2].reshape(10, 45, -1).mean(axis=1)
    found = (means[1::2] @ known.T).argmax(axis=1)
    assert np.mean(found == states.labels[1::2]) > 0.6


def test_no_glosses_in_it() -> None:
    with pytest.raises(OSError, match=r"^datasets.load_glosses: .*: it has no field 'lemmas'\.$"):
        datasets.load_glosses(PATH)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"token_codes": np.zeros((3, 384), np.int8)}, "'token_codes' must have shape (11777, d)"),
        ({"token_codes": np.zeros((11777, 2))}, "'token_codes' must have shape (11777, d)"),
        ({"token_scales": np.ones(11777)}, "'token_scales' must hold 11777 finite numbers"),
        ({"token_scales": np.ones(2, np.float32)}, "'token_scales' must hold 11777 finite numbers"),
        (
            {"token_scales": np.full(11777, np.nan, np.float32)},
            "'token_scales' must hold 11777 finite numbers, none negative",
        ),
        ({"token_scales": None}, "it has no field 'token_scales'"),
        ({"labels": np.full(900, 10)}, "'labels' must hold 900 integers in [0, 10)"),
    ],
)
def test_inconsistent_fields_are_refused(
    change: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    with np.load(PATH, allow_pickle=False) as archive:
        fields = {k: v for k, v in {**archive, **change}.items() if v is not None}
    np.savez(tmp_path / "bad.npz", **fields)
    with pytest.raises(OSError, match=f"^datasets.load_token_states: .*{re.escape(problem)}"):
        datasets.load_token_states(tmp_path / "bad.npz")
