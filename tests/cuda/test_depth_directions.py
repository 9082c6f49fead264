# SPDX-License-Identifier: Apache-2.0
"""`depth.score` over random directions on a device: values against CPU and oracle, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embedcore import depth
from embedcore.depth._score import _random_directions
from oracle import depths as oracle
from support.kinds import dtype_of

METRICS = ("halfspace", "projection", "irw", "ai_irw")
WEIGHABLE = tuple(metric for metric in METRICS if metric != "projection")
OPTIONS = {"n_directions": 40, "seed": 3}

Array = np.ndarray[Any, Any]


def rows(count: int, columns: int, seed: int, dtype: Any = np.float32) -> Array:
    values = np.random.default_rng(seed).standard_normal((count, columns)) + 0.3
    return values.astype(dtype)


def agree(got: Array, expected: Array, metric: str, corpus_rows: int) -> None:
    """As tests/depth/conftest.py derives it: rows next to one another may change places."""
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    limit = 1e-4 if metric == "projection" else 1.01 / corpus_rows + 1e-7
    np.testing.assert_allclose(got, expected, rtol=0, atol=limit)


def score(kind: Any, x: Array, corpus: Array | None = None, **options: Any) -> Array:
    there = None if corpus is None else kind.to_device(corpus)
    if options.get("weights") is not None:
        options["weights"] = kind.to_device(options["weights"])
    host: Array = kind.to_host(depth.score(kind.to_device(x), there, **(OPTIONS | options)))
    return host


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_depths_are_those_of_the_cpu(kind: Any, metric: str, dtype: str) -> None:
    x, corpus = rows(5, 24, 0, dtype_of(dtype)), rows(90, 24, 1, dtype_of(dtype))
    for given, among in ((x, corpus), (corpus, None)):
        got = score(kind, given, among, metric=metric)
        agree(got, depth.score(given, among, metric=metric, **OPTIONS), metric, 90)


@pytest.mark.parametrize("metric", METRICS)
def test_depths_are_those_of_the_oracle(kind: Any, metric: str) -> None:
    x, corpus = rows(6, 9, 0, np.float64), rows(70, 9, 1, np.float64)
    along = _random_directions(x, OPTIONS["n_directions"], OPTIONS["seed"])
    got = score(kind, x, corpus, metric=metric)
    agree(got, oracle.score(x, corpus, metric=metric, u=along), metric, 70)
    if metric != "ai_irw":  # which leaves rows out of the depth alone
        got = score(kind, corpus, metric=metric)
        agree(got, oracle.score(corpus, None, metric=metric, u=along), metric, 70)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", WEIGHABLE)
def test_weighted_depths_are_those_of_the_cpu(kind: Any, metric: str, dtype: Any) -> None:
    x, corpus = rows(17, 12, 2), rows(150, 12, 3)
    weights = (1e20 * np.random.default_rng(4).integers(0, 4, 150)).astype(dtype)
    for given, among in ((x, corpus), (corpus, None)):
        got = score(kind, given, among, metric=metric, weights=weights)
        expected = depth.score(given, among, metric=metric, weights=weights, **OPTIONS)
        agree(got, expected, metric, 75)  # weights are up to twice their mean


@pytest.mark.parametrize("metric", METRICS)
def test_groups_are_those_of_the_cpu(kind: Any, metric: str) -> None:
    x, corpus = rows(7, 5, 2), rows(160, 5, 3)
    labels = np.random.default_rng(4).integers(0, 4, 160)
    for given, among in ((x, corpus), (corpus, None)):
        got = score(kind, given, among, metric=metric, groups=labels)
        expected = depth.score(given, among, metric=metric, groups=labels, **OPTIONS)
        agree(got, expected, metric, np.bincount(labels).min())
        offsets = np.array([0, 30, 160])
        got = score(kind, given, among, metric=metric, offsets=offsets)
        expected = depth.score(given, among, metric=metric, offsets=offsets, **OPTIONS)
        agree(got, expected, metric, 30)


@pytest.mark.parametrize("metric", METRICS)
def test_equal_rows_tie(kind: Any, metric: str) -> None:
    corpus = np.repeat(rows(20, 6, 5), 3, axis=0)
    for among in (None, corpus):
        got = score(kind, corpus, among, metric=metric)
        expected = depth.score(corpus, among, metric=metric, **OPTIONS)
        agree(got, expected, metric, 60)
        np.testing.assert_array_equal(got[::3], got[1::3])


def test_shrunk_whitening_is_that_of_the_cpu(kind: Any) -> None:
    x, corpus = rows(8, 30, 2), rows(20, 30, 3)
    for shrinkage in ("auto", 0.4):
        options = {"metric": "ai_irw", "shrinkage": shrinkage}
        got = score(kind, x, corpus, **options)
        agree(got, depth.score(x, corpus, **options, **OPTIONS), "ai_irw", 20)
    assert np.isnan(score(kind, x, corpus, metric="ai_irw", shrinkage=0.0)).all()


def test_directions_are_those_of_the_seed(kind: Any) -> None:
    x = rows(30, 4, 6)
    for seed in (7, 8):
        got = score(kind, x, metric="irw", seed=seed, n_directions=3)
        agree(got, depth.score(x, metric="irw", seed=seed, n_directions=3), "irw", 90)
    got = score(kind, x, metric="irw", seed=np.random.default_rng(9), n_directions=3)
    expected = depth.score(x, metric="irw", seed=np.random.default_rng(9), n_directions=3)
    agree(got, expected, "irw", 90)


def test_calls_repeat_bit_by_bit(kind: Any) -> None:
    x, weights = rows(140, 5, 9), np.random.default_rng(1).random(140)
    for metric in METRICS:
        first = score(kind, x, metric=metric)
        np.testing.assert_array_equal(score(kind, x, metric=metric), first)
    first = score(kind, x, metric="irw", weights=weights)
    np.testing.assert_array_equal(score(kind, x, metric="irw", weights=weights), first)


def test_bad_rows_have_no_depth_and_harm_no_other(kind: Any) -> None:
    x, corpus = rows(6, 4, 7), rows(20, 4, 8)
    x[3, 2], x[4, 3] = np.nan, np.inf
    for metric in METRICS:
        got = score(kind, x, corpus, metric=metric)
        np.testing.assert_array_equal(np.isnan(got), [False, False, False, True, True, False])
        good = x[[0, 1, 2, 5]]
        agree(got[[0, 1, 2, 5]], depth.score(good, corpus, metric=metric, **OPTIONS), metric, 20)
        assert np.isnan(score(kind, corpus, x, metric=metric)).all()
        with pytest.raises(ValueError, match=r"^depth\.score: 'x' must be finite; row 3 holds"):
            score(kind, x, corpus, metric=metric, check=True)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"metric": "irw", "n_directions": 0}, ValueError, "'n_directions' must be from 1 to"),
        ({"metric": "irw", "seed": -1}, ValueError, "'seed' must be"),
        ({"metric": "ai_irw", "shrinkage": 2}, ValueError, r"'shrinkage' must lie in \[0, 1\]"),
        (
            {"metric": "projection", "weights": np.ones(9, np.float32)},
            ValueError,
            r"'weights' are not supported by metric 'projection'\.",
        ),
        (
            {"metric": "ai_irw", "groups": np.arange(9) // 2},
            ValueError,
            r"'x' must have at least 3 rows in each group for a covariance; got 1",
        ),
        (
            {"metric": "halfspace", "groups": np.arange(9) // 8},
            ValueError,
            "'x' must have another row .*; row 8 is alone in group 1",
        ),
        ({"metric": "irw", "precision": "int8"}, ValueError, "'precision' must be 'float32'"),
    ],
)
def test_arguments_that_do_not_fit(
    kind: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=rf"^depth\.score: {words}"):
        score(kind, rows(9, 4, 0), **options)
