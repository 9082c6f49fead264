# SPDX-License-Identifier: Apache-2.0
"""`depth.Corpus` of rows on a device: parts against the whole and the CPU, files, errors."""

from __future__ import annotations

import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedcore import depth
from oracle.depths import DIRECTIONAL, METRICS

CUTS = [0, 20, 21, 60, 90]
# Of both sides, as tests/depth/test_corpus.py and tests/cuda/test_depth.py have them; ranks: of one
# row that changes places.
TOLERANCES = {"spatial": 2e-5} | dict.fromkeys(DIRECTIONAL, 1.01 / 90) | {"projection": 1e-4}

Array = np.ndarray[Any, Any]


def made(metric: str, **options: Any) -> depth.Corpus:
    if metric in DIRECTIONAL:
        options |= {"n_directions": 20, "seed": 3}
    return depth.Corpus(metric, **options)


def data(dtype: Any = np.float32) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(1)
    corpus = (rng.standard_normal((90, 9)) + 0.4).astype(dtype)
    x = (rng.standard_normal((12, 9)) + 0.4).astype(dtype)
    weights = rng.random(90).astype(np.float32)
    weights[11] = 0.0
    return x, corpus, weights


def agree(got: Array, expected: Array, metric: str) -> None:
    assert got.dtype == expected.dtype
    limit = TOLERANCES.get(metric, 5e-6)
    np.testing.assert_allclose(got, expected, rtol=0, atol=limit)


@pytest.mark.parametrize(
    ("metric", "weighted"),
    [(m, w) for m in METRICS for w in (False, True) if (m, w) != ("projection", True)],
)
def test_a_corpus_in_parts_is_the_corpus(kind: Any, metric: str, weighted: bool) -> None:
    x, corpus, weights = data()
    # Those of the first part are 1, and are not given.
    weights[: CUTS[1]] = 1.0
    expected = made(metric).fit(corpus, weights=weights if weighted else None).score(x)
    updated, merged = made(metric), made(metric)
    for a, b in pairwise(CUTS):
        given = kind.to_device(weights[a:b]) if weighted and a > 0 else None
        updated.update(kind.to_device(corpus[a:b]), weights=given)
        merged.merge(made(metric).fit(kind.to_device(corpus[a:b]), weights=given))
    there = kind.to_device(x)
    first = kind.to_host(updated.score(there))
    agree(first, expected, metric)
    np.testing.assert_array_equal(kind.to_host(updated.score(there)), first)
    agree(kind.to_host(merged.score(there)), expected, metric)
    assert len(updated) == len(merged) == 90
    again = pickle.loads(pickle.dumps(updated))
    np.testing.assert_array_equal(kind.to_host(again.score(there)), first)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_sums_and_rows_of_other_dtypes(kind: Any, dtype: Any) -> None:
    x, corpus, _ = data(dtype)
    for metric in ("cosine", "arc", "mahalanobis", "irw"):
        built = made(metric).fit(kind.to_device(corpus))
        out = kind.to_device(np.zeros(12, np.float64 if dtype is np.float64 else np.float32))
        assert built.score(kind.to_device(x), out=out) is out
        agree(kind.to_host(out), made(metric).fit(corpus).score(x), metric)


def test_weights_of_sums_have_units(kind: Any) -> None:
    x, corpus, weights = data()
    large = weights.astype(np.float64) * 1e60
    expected = depth.score(x, np.concatenate([corpus, corpus]), weights=np.append(large, large / 4))
    built = made("cosine").fit(kind.to_device(corpus), weights=kind.to_device(large))
    built.update(kind.to_device(corpus), weights=kind.to_device(large / 4))
    agree(kind.to_host(built.score(kind.to_device(x))), expected, "cosine")


def test_an_update_is_seen_by_the_next_score(kind: Any) -> None:
    x, corpus, _ = data()
    there = kind.to_device(x)
    for metric in ("cosine", "l2", "mahalanobis", "halfspace"):
        built = made(metric).fit(kind.to_device(corpus[:60]))
        agree(kind.to_host(built.score(there)), made(metric).fit(corpus[:60]).score(x), metric)
        built.update(kind.to_device(corpus[60:]))
        agree(kind.to_host(built.score(there)), made(metric).fit(corpus).score(x), metric)


@pytest.mark.parametrize("metric", ["mahalanobis", "ai_irw"])
def test_a_covariance_is_found_once(kind: Any, metric: str) -> None:
    x, corpus, weights = data()
    rows, own = kind.to_device(corpus), kind.to_device(weights)
    built = made(metric).fit(rows, weights=own)
    expected = kind.to_host(built.score(kind.to_device(x)))
    # What has been found does not look at the rows again, which ai_irw ranks by all the same.
    more = np.concatenate([x, x])
    if metric == "mahalanobis" and kind.emulated:
        rows.memory[:] = 0.0
    got = kind.to_host(built.score(kind.to_device(more)))
    np.testing.assert_array_equal(got, np.tile(expected, 2))
    agree(expected, made(metric).fit(corpus, weights=weights).score(x), metric)


@pytest.mark.parametrize("metric", ["cosine", "arc", "mahalanobis", "ai_irw"])
def test_a_saved_corpus_loads_on_the_cpu(kind: Any, metric: str, tmp_path: Path) -> None:
    x, corpus, weights = data()
    built = made(metric).fit(kind.to_device(corpus[:50]))
    built.update(kind.to_device(corpus[50:]), weights=kind.to_device(weights[50:]))
    built.save(tmp_path / "corpus")
    loaded = depth.Corpus.load(tmp_path / "corpus")
    assert len(loaded) == 90
    agree(kind.to_host(built.score(kind.to_device(x))), loaded.score(x), metric)


def test_bad_rows_make_all_depths_nan(kind: Any) -> None:
    x, corpus, _ = data()
    corpus[5, 2] = np.nan
    for metric in METRICS:
        built = made(metric).fit(kind.to_device(corpus))
        assert np.isnan(kind.to_host(built.score(kind.to_device(x)))).all()


def test_what_a_corpus_on_a_device_refuses(kind: Any) -> None:
    x, corpus, weights = data()
    there = kind.to_device(corpus)
    built, on_cpu = made("arc").fit(there), made("arc").fit(corpus)
    with pytest.raises(TypeError, match=r"^depth\.Corpus\.score: 'x' must be on the GPU, as the"):
        built.score(x)
    with pytest.raises(TypeError, match=r"^depth\.Corpus\.score: 'x' must be on the CPU"):
        on_cpu.score(there)
    with pytest.raises(TypeError, match=r"merge: rows must be on the GPU, .* got rows on the CPU"):
        built.merge(on_cpu)
    with pytest.raises(TypeError, match=r"update: rows must be on the CPU, .* got rows on the GPU"):
        on_cpu.update(there)
    with pytest.raises(NotImplementedError, match=r"score: 'left_out' must be False, and"):
        built.score(there, left_out=True)
    with pytest.raises(NotImplementedError, match=r"fit: 'precision' must be 'float32' or"):
        made("arc", precision="int8").fit(there)
    with pytest.raises(TypeError, match=r"update: rows on a GPU must have the dtype of the corpus"):
        built.update(kind.to_device(corpus.astype(np.float16)))
    with pytest.raises(ValueError, match=r"update: 'x' must have the same number of columns as"):
        built.update(kind.to_device(corpus[:, :4].copy()))
    with pytest.raises(ValueError, match=r"score: 'x' must have the same number of columns as"):
        built.score(kind.to_device(corpus[:, :4].copy()))
    with pytest.raises(ValueError, match=r"update: 'x' must be a 2-D array; got shape \(9,\)"):
        built.update(kind.to_device(corpus[0]))
    with pytest.raises(ValueError, match=r"fit: 'x' must have at least one row; got shape"):
        made("arc").fit(kind.to_device(corpus[:0]))
    with pytest.raises(ValueError, match=r"fit: 'weights' must be None for metric 'projection'"):
        made("projection").fit(there, weights=kind.to_device(weights))
    with pytest.raises(ValueError, match=r"fit: 'weights' must have one number for each row"):
        made("arc").fit(there, weights=kind.to_device(weights[:3]))
    with pytest.raises(TypeError, match=r"fit: 'weights' must be on the CPU, as 'x' is"):
        made("arc").fit(corpus, weights=kind.to_device(weights))
    with pytest.raises(ValueError, match=r"^depth\.Corpus\.score: 'corpus' must have at least 2"):
        made("mahalanobis").fit(kind.to_device(corpus[:1])).score(there)
    assert len(built) == 90
