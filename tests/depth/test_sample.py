# SPDX-License-Identifier: Apache-2.0
"""`depth.estimate`: errors against exact depths, coverage of its intervals, options and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedcore import datasets, depth
from support.kinds import to_torch

GLOSSES = Path(__file__).parents[2] / "examples" / "data" / "glosses.npz"

Rows = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def vectors() -> Rows:
    """Real embeddings in random order."""
    rows = datasets.load_glosses(GLOSSES).vectors
    return rows[np.random.default_rng(0).permutation(len(rows))]


def rms(errors: Rows) -> float:
    return float(np.sqrt(np.mean(np.square(errors, dtype=np.float64))))


def plain_sample_errors(x: Rows, corpus: Rows, exact: Rows, metric: str, count: int) -> Rows:
    errors = []
    for seed in range(4):
        rows = np.random.default_rng(seed).choice(len(corpus), count, replace=False)
        errors.append(depth.score(x, corpus[rows], metric=metric) - exact)
    return np.array(errors)


def with_near_duplicates(x: Rows, corpus: Rows) -> Rows:
    """5 % of the corpus become near duplicates of rows of x, 10 of each."""
    changed = corpus.copy()
    count = len(corpus) // 20
    noise = np.random.default_rng(1).standard_normal((count, x.shape[1])).astype(np.float32)
    changed[:count] = x[np.arange(count) // 10 % len(x)] + 1e-3 * noise
    return changed


@pytest.mark.parametrize("metric", ["arc", "chord"])
def test_the_control_beats_a_plain_sample(metric: str, vectors: Rows) -> None:
    x, corpus = vectors[:300], vectors[300:]
    exact = depth.score(x, corpus, metric=metric)
    errors = np.array(
        [
            depth.estimate(x, corpus, metric=metric, n_samples=500, seed=s).depth - exact
            for s in range(4)
        ]
    )
    plain = plain_sample_errors(x, corpus, exact, metric, 500)
    assert rms(plain) > 20 * rms(errors)
    assert rms(errors) < 2e-4


@pytest.mark.parametrize("metric", ["arc", "chord"])
def test_intervals_cover_with_near_duplicates_and_heavy_tails(metric: str, vectors: Rows) -> None:
    rng = np.random.default_rng(2)
    heavy = rng.standard_t(2.0, (4300, 40)).astype(np.float32) + np.float32(0.2)
    x = vectors[:300]
    for rows, corpus in (
        (x, vectors[300:]),
        (x, with_near_duplicates(x, vectors[300:])),
        (heavy[:300], heavy[300:]),
    ):
        exact = depth.score(rows, corpus, metric=metric)
        for seed in range(4):
            got = depth.estimate(rows, corpus, metric=metric, n_samples=300, seed=seed)
            assert np.mean((got.low <= exact) & (exact <= got.high)) >= 0.95
            assert (got.low <= got.depth).all() and (got.depth <= got.high).all()


def test_intervals_narrow_as_the_sample_grows(vectors: Rows) -> None:
    x, corpus = vectors[:50], vectors[50:]
    widths = []
    for count in (100, 400, 1600):
        got = depth.estimate(x, corpus, n_samples=count)
        assert got.n_samples == count
        widths.append(float(np.mean(got.high - got.low)))
    assert widths[0] > 3 * widths[1] > 9 * widths[2]


@pytest.mark.parametrize("metric", ["arc", "chord"])
def test_rows_are_left_out_of_their_own_depth(metric: str, vectors: Rows) -> None:
    x = vectors[:1500]
    exact = depth.score(x, metric=metric)
    got = depth.estimate(x, metric=metric, n_samples=700, seed=1)
    assert rms(got.depth - exact) < 1e-4
    assert np.mean((got.low <= exact) & (exact <= got.high)) >= 0.95
    # Rows of the sample meet themselves there; they must be no worse than the others.
    sampled = np.random.default_rng(1).choice(1500, 700, replace=False, shuffle=False)
    assert rms((got.depth - exact)[sampled]) < 1e-4


def test_what_is_exact_has_an_interval_of_no_width(vectors: Rows) -> None:
    x, corpus = vectors[:40], vectors[40:400]
    for metric, count in (("cosine", 20), ("arc", 360), ("chord", 10_000)):
        got = depth.estimate(x, corpus, metric=metric, n_samples=count)
        exact = depth.score(x, corpus, metric=metric)
        for values in (got.depth, got.low, got.high):
            assert np.array_equal(values, exact)
        assert got.n_samples == 360
    alone = depth.estimate(x, n_samples=39)
    assert np.array_equal(alone.depth, depth.score(x, metric="arc"))


def test_seeds_kinds_and_dtypes(vectors: Rows) -> None:
    x, corpus = vectors[:20], vectors[20:500]
    first = depth.estimate(x, corpus, n_samples=50, seed=4)
    again = depth.estimate(x, corpus, n_samples=50, seed=4, threads=1)
    other = depth.estimate(x, corpus, n_samples=50, seed=5)
    assert np.array_equal(first.depth, again.depth)
    assert not np.array_equal(first.depth, other.depth)
    assert first.depth.dtype == np.float32
    tensor = depth.estimate(to_torch(x), to_torch(corpus), n_samples=50, seed=4)
    assert np.array_equal(tensor.depth.numpy(), first.depth)
    wide = depth.estimate(1e200 * x.astype(np.float64), 1e-3 * corpus, n_samples=50, seed=4)
    assert wide.depth.dtype == np.float64
    np.testing.assert_allclose(wide.depth, first.depth, atol=1e-6)


@pytest.mark.parametrize("metric", ["arc", "chord"])
def test_corpora_of_few_directions(metric: str) -> None:
    x = np.random.default_rng(0).standard_normal((6, 3))
    for corpus in (np.tile(x[:1], (100, 1)), np.tile(x[:2], (50, 1)), -np.tile(x[:1], (100, 1))):
        got = depth.estimate(x, corpus, metric=metric, n_samples=30)
        exact = depth.score(x, corpus, metric=metric)
        assert np.isfinite(got.depth).all()
        assert ((got.low <= exact + 1e-6) & (exact - 1e-6 <= got.high)).all()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"metric": "l2"}, ValueError, "'metric' must be one of 'arc', 'chord', 'cosine'"),
        ({"n_samples": 19}, ValueError, "'n_samples' must be at least 20; got 19"),
        ({"n_samples": 2.5}, TypeError, "'n_samples' must be an integer"),
        ({"seed": -1}, ValueError, "'seed' must be at least 0"),
        ({"threads": 0}, ValueError, "'threads' must be from 1"),
        ({"x": np.zeros((3, 4))}, ValueError, "'x' .*row 0 is zero"),
        ({"x": np.full((3, 4), np.nan)}, ValueError, "'x' must be finite.*row 0"),
        ({"corpus": np.zeros((100, 4))}, ValueError, "'corpus' .*row 0 is zero"),
        (
            {"corpus": np.ones((100, 5))},
            ValueError,
            "'corpus' must have the same number of columns",
        ),
        ({"x": [[1.0, 2, 3, 4]]}, TypeError, "'x' must be an array"),
        ({"x": np.ones((1, 4)), "corpus": None}, ValueError, "'x' must have another row"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], words: str) -> None:
    given: dict[str, Any] = {"x": np.ones((3, 4)), "corpus": np.ones((100, 4)), **change}
    with pytest.raises(error, match=f"depth.estimate: {words}"):
        depth.estimate(given.pop("x"), given.pop("corpus"), **given)
