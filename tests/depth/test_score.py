# SPDX-License-Identifier: Apache-2.0
"""`depth.score` against the oracle: every metric, dtype, corpus, weights and groups."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from embedcore import depth
from embedcore.depth._metrics import DIRECTIONAL, METRICS
from support.kinds import dtype_of

Array = np.ndarray[Any, Any]

ROWS, CORPUS_ROWS, COLUMNS = 41, 53, 6
LABELS = np.random.default_rng(5).permutation(np.repeat([0, 1, 2], [11, 17, 25]))
OWN_LABELS = np.random.default_rng(5).permutation(np.repeat([0, 1, 2], [12, 13, 16]))
OFFSETS = np.array([0, 13, 24, CORPUS_ROWS])
SPANS = np.repeat([0, 1, 2], np.diff(OFFSETS))


@cache
def rows(dtype_name: str) -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((ROWS, COLUMNS)) * rng.uniform(0.2, 3, (ROWS, 1)) + 0.4
    corpus = rng.standard_normal((CORPUS_ROWS, COLUMNS)) - 0.2
    return x.astype(dtype_of(dtype_name)), corpus.astype(dtype_of(dtype_name))


def weights_of(count: int) -> Array:
    weights = np.random.default_rng(2).uniform(0.1, 2, count)
    weights[[1, 4]] = 0
    return weights


def cases(metric: str, count: int) -> list[dict[str, Any]]:
    weights = [None] if metric == "projection" else [None, weights_of(count)]
    labels = OWN_LABELS if count == ROWS else LABELS
    return [{"weights": w, "groups": g} for w in weights for g in (None, labels)]


EXPECTED: dict[tuple[Any, ...], Array] = {}


@pytest.mark.parametrize("own", [False, True], ids=["corpus", "self"])
@pytest.mark.parametrize("metric", METRICS)
def test_agrees_with_the_oracle(
    isa: str,
    metric: str,
    own: bool,
    dtype_name: str,
    agrees: Callable[..., Array],
    score_reference: Callable[..., Array],
) -> None:
    x, corpus = rows(dtype_name)
    among = None if own else corpus
    for number, case in enumerate(cases(metric, ROWS if own else CORPUS_ROWS)):
        key = (metric, own, dtype_name, number)
        if key not in EXPECTED:
            EXPECTED[key] = score_reference(x, among, metric, **case)
        agrees(x, among, metric=metric, expected=EXPECTED[key], **case)


@pytest.mark.parametrize("metric", METRICS)
def test_offsets_are_groups_of_neighbours(metric: str) -> None:
    x, corpus = rows("float32")
    by_offsets = depth.score(x, corpus, metric=metric, offsets=OFFSETS)
    assert by_offsets.shape == (ROWS, 3)
    assert by_offsets.tobytes() == depth.score(x, corpus, metric=metric, groups=SPANS).tobytes()
    as_list = depth.score(x, corpus, metric=metric, offsets=[0, 13, 24, CORPUS_ROWS])
    assert by_offsets.tobytes() == as_list.tobytes()


@pytest.mark.parametrize("metric", METRICS)
def test_labels_of_any_kind_are_sorted(metric: str) -> None:
    x, corpus = rows("float32")
    expected = depth.score(x, corpus, metric=metric, groups=LABELS)
    names = np.array(["apple", "Pear", "zoo"])  # capitals sort first
    for groups in (
        LABELS * 10 - 7,
        LABELS.astype(np.uint8),
        LABELS.tolist(),
    ):
        got = depth.score(x, corpus, metric=metric, groups=groups)
        assert got.tobytes() == expected.tobytes()
    by_name = depth.score(x, corpus, metric=metric, groups=names[LABELS])
    assert by_name.tobytes() == expected[:, [1, 0, 2]].tobytes()


@pytest.mark.parametrize("metric", METRICS)
def test_one_group_is_a_column(metric: str) -> None:
    x, corpus = rows("float64")
    for among in (None, corpus):
        plain = depth.score(x, among, metric=metric)
        count = ROWS if among is None else CORPUS_ROWS
        grouped = depth.score(x, among, metric=metric, groups=np.full(count, 9))
        assert grouped.shape == (ROWS, 1)
        assert grouped.tobytes() == plain.tobytes()


@pytest.mark.parametrize("own", [False, True], ids=["corpus", "self"])
@pytest.mark.parametrize("metric", [m for m in METRICS if m != "ai_irw"])
def test_many_small_groups(metric: str, own: bool, agrees: Callable[..., Array]) -> None:
    rng = np.random.default_rng(6)
    least = 4 if metric in ("mahalanobis", *DIRECTIONAL) else 2
    labels = rng.permutation(np.repeat(np.arange(45), rng.integers(least, least + 3, 45)))
    corpus = rng.standard_normal((len(labels), 2))
    x = None if own else rng.standard_normal((7, 2))
    options = {"shrinkage": 0.25} if metric == "mahalanobis" else {}
    if metric in DIRECTIONAL:
        # Tails of so few rows are multiples of 1 / rows, and a MAD may be tiny.
        got = depth.score(
            corpus if own else x, None if own else corpus, metric=metric, groups=labels
        )
        assert got.shape[1] == 45 and np.isfinite(got).all()
        return
    if x is None:
        agrees(corpus, metric=metric, groups=labels, **options)
    else:
        agrees(x, corpus, metric=metric, groups=labels, **options)


# The covariances of mahalanobis and ai_irw take weights as shares, not as counts.
@pytest.mark.parametrize(
    "metric", [m for m in METRICS if m not in ("projection", "mahalanobis", "ai_irw")]
)
def test_integer_weights_are_repetitions(metric: str) -> None:
    x, corpus = rows("float64")
    times = np.arange(CORPUS_ROWS) % 4
    weights = times.astype(np.float32)
    expected = depth.score(x, np.repeat(corpus, times, axis=0), metric=metric)
    got = depth.score(x, corpus, metric=metric, weights=weights)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("metric", [m for m in METRICS if m != "projection"])
def test_the_scale_of_weights_does_not_count(metric: str) -> None:
    x, corpus = rows("float64")
    weights = weights_of(CORPUS_ROWS)
    plain = depth.score(x, corpus, metric=metric, weights=weights)
    scaled = depth.score(x, corpus, metric=metric, weights=weights * 2.0**20)
    np.testing.assert_allclose(scaled, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_dtypes_may_differ(metric: str) -> None:
    x, corpus = rows("float32")
    plain = depth.score(x, corpus, metric=metric)
    wide_corpus = depth.score(x, corpus.astype(np.float64), metric=metric)
    wide_x = depth.score(x.astype(np.float64), corpus, metric=metric)
    assert wide_corpus.dtype == np.float32 and wide_x.dtype == np.float64
    limit = 0.03 if metric in DIRECTIONAL else 1e-6
    np.testing.assert_allclose(wide_corpus, plain, rtol=0, atol=limit)
    np.testing.assert_allclose(wide_x, plain, rtol=0, atol=limit)


@pytest.mark.parametrize("metric", sorted(DIRECTIONAL))
def test_seeds_choose_the_directions(metric: str) -> None:
    x, corpus = rows("float32")
    first = depth.score(x, corpus, metric=metric, n_directions=20, seed=1)
    again = depth.score(x, corpus, metric=metric, n_directions=20, seed=1)
    other = depth.score(x, corpus, metric=metric, n_directions=20, seed=2)
    assert first.tobytes() == again.tobytes() != other.tobytes()
    drawn = [
        depth.score(x, corpus, metric=metric, n_directions=20, seed=np.random.default_rng(seed))
        for seed in (1, 1, 2)
    ]
    assert drawn[0].tobytes() == drawn[1].tobytes() != drawn[2].tobytes()
