# SPDX-License-Identifier: Apache-2.0
"""The worked example of a LAMA head: data, poolings that agree where they must, the figure."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from embedcore import datasets  # noqa: E402
from support.examples import load_example  # noqa: E402

EPOCHS = 4


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_example("lama_head")


@pytest.fixture(scope="module")
def states(example: ModuleType) -> datasets.TokenStates:
    return datasets.load_token_states(example.PATH)


@pytest.fixture(scope="module")
def data(example: ModuleType, states: datasets.TokenStates) -> Any:
    parts = (states.hidden, states.lengths, states.labels)
    return example.Data(*(torch.from_numpy(part) for part in parts))


@pytest.fixture(scope="module")
def trained(example: ModuleType, data: Any) -> Any:
    known, _ = example.split(len(data.labels), 0)
    return example.train(example.POOLINGS["LowRankAttention"], data.at(known), 0, EPOCHS)


def test_rows_asked_about_are_unknown(example: ModuleType) -> None:
    known, asked = example.split(900, 3)
    assert (len(known), len(asked)) == (600, 300)
    assert sorted([*known.tolist(), *asked.tolist()]) == list(range(900))
    assert example.split(900, 4)[1].tolist() != asked.tolist()


def test_mean_reads_the_valid_tokens_alone(example: ModuleType, data: Any) -> None:
    found = example.Mean(384)(data)
    expected = data.tokens.sum(dim=1) / data.lengths[:, None]  # padding is zero
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_folded_attention_is_that_of_torch(example: ModuleType, data: Any) -> None:
    torch.manual_seed(0)
    plain = example.Multihead(384)
    torch.manual_seed(0)
    folded = example.Folded(384)
    torch.testing.assert_close(folded(data), plain(data), rtol=1e-4, atol=1e-4)
    assert [p.numel() for p in folded.parameters() if p.requires_grad] != []
    sizes = [sum(p.numel() for p in module.parameters()) for module in (plain, folded)]
    assert sizes == [591_744, 591_744]


def test_a_head_learns_the_classes(example: ModuleType, data: Any, trained: Any) -> None:
    _, asked = example.split(len(data.labels), 0)
    assert sum(p.numel() for p in trained[0].parameters()) == 6528
    assert example.accuracy(trained, data.at(asked)) > 0.6  # by chance 0.1


def test_what_heads_attend_to_is_printed_and_drawn(
    example: ModuleType,
    states: datasets.TokenStates,
    data: Any,
    trained: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, asked = example.split(len(data.labels), 0)
    rows = example.examples_of(trained, data, asked)
    assert len(rows) == example.SHOWN == len(set(states.labels[rows].tolist()))
    weights = example.weights_of(trained, data.at(torch.tensor(rows)))
    assert weights.shape == (example.SHOWN, example.HEADS, states.hidden.shape[1])
    np.testing.assert_allclose(weights.sum(axis=2), 1, rtol=1e-5)
    example.show(weights, states, rows)
    assert states.texts[rows[0]] in capsys.readouterr().out
    pytest.importorskip("matplotlib")
    example.draw(weights, states, rows, str(tmp_path / "heads.png"))
    assert (tmp_path / "heads.png").read_bytes().startswith(b"\x89PNG")
