# SPDX-License-Identifier: Apache-2.0
"""Native halfspace, irw and projection depths against float64, over given directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embedcore import _core
from numpy.typing import NDArray
from support.kinds import dtype_of

Array = NDArray[Any]

HALFSPACE, PROJECTION, IRW = 5, 6, 7
METRICS = {"halfspace": HALFSPACE, "projection": PROJECTION, "irw": IRW}
SEAMS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 23, 24, 25, 47, 48, 49, 63, 64, 65]


def native(
    x: Array,
    corpus: Array | None,
    metric: str,
    u: Array | None,
    weights: Array | None = None,
    labels: Array | None = None,
    groups: int = 1,
    threads: int = 0,
) -> Array:
    result: Array = _core.depth_score(
        "depth.score",
        x,
        corpus,
        METRICS[metric],
        0,
        weights,
        labels,
        groups,
        u,
        threads,
        False,
        None,
        None,
    )
    return result


def members(x: Array, corpus: Array | None, labels: Array | None, i: int, group: int) -> Array:
    """Rows of the group, but for row i where the corpus is x."""
    count = len(x) if corpus is None else len(corpus)
    chosen = np.ones(count, bool) if labels is None else labels == group
    if corpus is None:
        chosen[i] = False
    return chosen


def tail_bounds(
    x: Array, corpus: Array, weights: Array, u: Array, metric: str
) -> tuple[float, float]:
    """Bounds of the depth of one row: pairs closer than rounding may be in either order.

    A float32 sum over d columns is off by at most d units in the last place of the sum of its
    terms' magnitudes; rows are moved and rounded before. Equal rows are ties exactly.
    """
    x, corpus, u = (a.astype(np.float64) for a in (x, corpus, u))
    u = u / np.linalg.norm(u, axis=1, keepdims=True)
    own, values = u @ x, corpus @ u.T
    size = np.linalg.norm(corpus, axis=1) + np.linalg.norm(x) + np.abs(np.median(corpus, 0)).sum()
    slack = (2 * (x.size + 4) * 2.0**-24 * size)[:, None]
    same = (corpus == x).all(axis=1)[:, None]
    gap = values - own
    at_least = [(gap <= -slack) | same, (gap >= slack) | same]
    at_most = [(gap <= slack) | same, (gap >= -slack) | same]
    low, high = (
        np.minimum(*(weights @ side / weights.sum() for side in sides))
        for sides in (at_least, at_most)
    )
    if metric == "halfspace":
        return float(low.min()), float(high.min())
    return float(low.mean()), float(high.mean())


def check_tails(
    x: Array,
    corpus: Array | None,
    metric: str,
    u: Array,
    weights: Array | None = None,
    labels: Array | None = None,
    groups: int = 1,
) -> None:
    result = native(x, corpus, metric, u, weights, labels, groups)
    result = result.reshape(len(x), groups)
    rows = x if corpus is None else corpus
    weight = np.ones(len(rows)) if weights is None else weights.astype(np.float64)
    for i in range(len(x)):
        for g in range(groups):
            chosen = members(x, corpus, labels, i, g)
            low, high = tail_bounds(x[i], rows[chosen], weight[chosen], u, metric)
            assert low - 1e-6 <= result[i, g] <= high + 1e-6, (i, g, low, result[i, g], high)


def outlying_depth(x: Array, corpus: Array, u: Array) -> float:
    x, corpus, u = (a.astype(np.float64) for a in (x, corpus, u))
    values = np.einsum("nd,pd->np", np.vstack([x, corpus]), u)
    center = np.median(values[1:], axis=0)
    spread = np.median(np.abs(values[1:] - center), axis=0)
    distance = np.abs(values[0] - center)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(distance == 0, 0.0, distance / spread)
    return float(1 / (1 + ratio.max()))


def check_projection(
    x: Array,
    corpus: Array | None,
    u: Array,
    labels: Array | None = None,
    groups: int = 1,
    tolerance: float = 2e-5,
) -> None:
    result = native(x, corpus, "projection", u, None, labels, groups).reshape(len(x), groups)
    rows = x if corpus is None else corpus
    for i in range(len(x)):
        for g in range(groups):
            expected = outlying_depth(x[i], rows[members(x, corpus, labels, i, g)], u)
            assert abs(result[i, g] - expected) <= tolerance, (i, g, result[i, g], expected)


def sample(rows: int, columns: int, seed: int, duplicates: bool = True) -> Array:
    """Normal rows away from the origin; about a third of them appear more than once."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((rows, columns)) + 3).astype(np.float32)
    if duplicates:
        x[rng.integers(0, rows, rows // 3)] = x[rng.integers(0, rows, rows // 3)]
    return x


def random_directions(count: int, columns: int, seed: int = 7) -> Array:
    return np.random.default_rng(seed).standard_normal((count, columns)).astype(np.float32)


# ---- by hand ------------------------------------------------------------------------------


def column(*values: float) -> Array:
    return np.array(values, np.float32)[:, None]


@pytest.mark.parametrize("metric", ["halfspace", "irw"])
@pytest.mark.parametrize("direction", [1.0, -1.0, 0.01])
def test_tails_by_hand(isa: str, metric: str, direction: float) -> None:
    corpus = column(0, 1, 1, 3)
    x = column(-1, 0, 0.5, 1, 2, 3, 4)
    expected = np.array([0, 1, 1, 3, 1, 1, 0]) / 4
    u = column(direction)
    assert native(x, corpus, metric, u).tolist() == expected.tolist()
    left_out = native(corpus, None, metric, u)
    np.testing.assert_array_equal(left_out, np.array([0, 2, 2, 0], np.float32) / np.float32(3))


@pytest.mark.parametrize("metric", ["halfspace", "irw"])
def test_weighted_tails_by_hand(isa: str, metric: str) -> None:
    corpus, weights = column(0, 1, 2), np.array([1, 2, 5], np.float32)
    x = column(0, 1, 1.5, 2)
    assert native(x, corpus, metric, column(1), weights).tolist() == [1 / 8, 3 / 8, 3 / 8, 5 / 8]
    left_out = native(corpus, None, metric, column(1), weights)
    np.testing.assert_array_equal(left_out, np.array([0, 1 / 6, 0], np.float32))


def test_projection_by_hand(isa: str) -> None:
    corpus = column(0, 1, 2, 4, 8)  # median 2, deviations 2 1 0 2 6, MAD 2
    x = column(2, 0, 8, -4)
    assert native(x, corpus, "projection", column(1)).tolist() == [1, 0.5, 0.25, 0.25]
    even = column(0, 1, 3, 8)  # median 2, deviations 2 1 1 6, MAD 1.5
    np.testing.assert_allclose(native(column(5), even, "projection", column(1)), 1 / 3, rtol=1e-6)


def test_projection_without_spread(isa: str) -> None:
    corpus = column(1, 1, 1, 5)  # MAD 0
    assert native(column(1, 2, 5), corpus, "projection", column(1)).tolist() == [1, 0, 0]
    assert native(column(3, 3), None, "projection", column(1)).tolist() == [1, 1]
    assert native(column(3, 4), None, "projection", column(1)).tolist() == [0, 0]


def test_two_directions(isa: str) -> None:
    corpus = np.array([[0, 0], [1, 4], [2, 2]], np.float32)
    x = np.array([[1, 4]], np.float32)
    u = np.eye(2, dtype=np.float32)
    np.testing.assert_allclose(native(x, corpus, "halfspace", u), [1 / 3])
    np.testing.assert_allclose(native(x, corpus, "irw", u), [1 / 2])


# ---- against float64 ----------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["halfspace", "irw"])
@pytest.mark.parametrize(
    ("n", "m", "d", "count"),
    [(1, 1, 1, 1), (2, 3, 5, 2), (50, 2, 3, 7), (9, 70, 17, 9), (20, 33, 2, 50), (5, 200, 300, 20)],
)
def test_tails_against_float64(isa: str, metric: str, n: int, m: int, d: int, count: int) -> None:
    corpus = sample(m, d, 1)
    x = sample(n, d, 2)
    x[: n // 2] = corpus[np.arange(n // 2) % m]
    u = random_directions(count, d)
    weights = (np.random.default_rng(3).integers(1, 9, m) / 8).astype(np.float32)
    labels = np.arange(m) % 3
    check_tails(x, corpus, metric, u)
    check_tails(x, corpus, metric, u, weights)
    if m < 6:
        return
    few = slice(0, 60)
    check_tails(x, corpus, metric, u, None, labels, 3)
    check_tails(corpus[few], None, metric, u)
    check_tails(corpus[few], None, metric, u, weights[few], labels[few], 3)


@pytest.mark.parametrize("rows", SEAMS)
def test_every_number_of_rows(isa: str, rows: int) -> None:
    x, u = sample(rows, 5, rows), random_directions(9, 5)
    check_tails(sample(3, 5, 1), x, "irw", u)
    check_tails(x, sample(4, 5, 1), "halfspace", u)
    check_projection(sample(3, 5, 1), x, u)
    if rows > 1:
        check_tails(x, None, "irw", u)
        check_projection(x, None, u)


@pytest.mark.parametrize(
    ("n", "m", "d", "count"), [(9, 70, 17, 9), (20, 33, 2, 50), (7, 600, 40, 60)]
)
def test_projection_against_float64(isa: str, n: int, m: int, d: int, count: int) -> None:
    corpus, x, u = sample(m, d, 1), sample(n, d, 2), random_directions(count, d)
    labels = np.arange(m) % 3
    check_projection(x, corpus, u)
    check_projection(x, corpus, u, labels, 3)
    check_projection(corpus[:60], None, u)
    check_projection(corpus[:59], None, u, labels[:59], 3)


@pytest.mark.parametrize("rows", [2, 3, 4, 5, 6, 7, 150, 151])
def test_left_out_medians_with_ties(isa: str, rows: int) -> None:
    """Few distinct values: the values around the median and around the MAD coincide and differ."""
    for seed in range(20):
        x = np.random.default_rng(seed).integers(-3, 4, (rows, 1)).astype(np.float32)
        check_projection(x, None, column(1), tolerance=1e-6)


@pytest.mark.parametrize("far", [1e3, 1e7, 1e25])
def test_rows_far_out(isa: str, far: float) -> None:
    """One row takes the whole width of the buckets; the rest shares one, and keeps its digits."""
    corpus, u = sample(300, 4, 1), random_directions(20, 4)
    corpus[7] *= np.float32(far)
    bulk = corpus[np.arange(300) != 7]
    x = corpus[100:130]
    result = native(x, corpus, "irw", u)
    for i, row in enumerate(x):
        low, high = tail_bounds(row, bulk, np.ones(299), u, "irw")
        assert low * 299 / 300 - 1e-6 <= result[i] <= (high * 299 + 1) / 300 + 1e-6
    check_projection(x, corpus, u)
    check_projection(corpus[95:140], None, u)


@pytest.mark.parametrize("metric", ["halfspace", "irw"])
def test_crowds_of_equal_values(isa: str, metric: str) -> None:
    rng = np.random.default_rng(4)
    corpus = rng.integers(-2, 3, (500, 1)).astype(np.float32)
    corpus[rng.integers(0, 500, 5)] *= 1000  # and with the rest in one bucket
    x = np.vstack([corpus[:40], column(-2.5, 0.5, 1.25, 900, 3000)])
    check_tails(x, corpus, metric, column(1))
    check_tails(corpus[:300], None, metric, column(1))


def test_heavy_tails(isa: str) -> None:
    corpus, u = sample(400, 3, 1), random_directions(10, 3)
    corpus *= np.exp(2 * np.random.default_rng(5).standard_normal((400, 1))).astype(np.float32)
    weights = np.linspace(0.5, 2, 400, dtype=np.float32)
    for metric in ("halfspace", "irw"):
        check_tails(corpus[:50], corpus, metric, u)
        check_tails(corpus[:50], corpus, metric, u, weights)


# ---- invariance ---------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_threads_do_not_show(isa: str, metric: str) -> None:
    corpus, x, u = sample(200, 33, 1), sample(90, 33, 2), random_directions(150, 33)
    labels = np.arange(200) % 4
    for rows, other in ((x, corpus), (corpus, None)):
        one, two, seven = (
            native(rows, other, metric, u, None, labels, 4, threads=t) for t in (1, 2, 7)
        )
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, seven)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [2.0**-100, 2.0**100])
def test_scale_does_not_show(isa: str, metric: str, scale: float) -> None:
    corpus, x, u = sample(100, 6, 1), sample(30, 6, 2), random_directions(40, 6)
    factor = np.float32(scale)
    np.testing.assert_array_equal(
        native(x * factor, corpus * factor, metric, u * np.float32(0.125)),
        native(x, corpus, metric, u),
    )
    np.testing.assert_array_equal(native(x * factor, None, metric, u), native(x, None, metric, u))


@pytest.mark.parametrize("metric", METRICS)
def test_order_and_sign_do_not_show(isa: str, metric: str) -> None:
    corpus, x, u = sample(60, 6, 1), sample(30, 6, 2), random_directions(40, 6)
    expected = native(x, corpus, metric, u)
    np.testing.assert_array_equal(native(x, corpus[::-1], metric, -u[::-1]), expected)
    np.testing.assert_array_equal(native(x[::-1], corpus, metric, u), expected[::-1])
    alone = np.concatenate([native(x[i : i + 1], corpus, metric, u) for i in range(30)])
    np.testing.assert_array_equal(alone, expected)


@pytest.mark.parametrize("metric", METRICS)
def test_dtypes_agree(isa: str, metric: str, dtype_name: str) -> None:
    dtype = dtype_of(dtype_name)
    exact = [np.round(sample(rows, 9, rows) * 16) / 16 for rows in (80, 20)]
    u = np.round(random_directions(30, 9) * 16) / 16
    expected = native(exact[1], exact[0], metric, u)
    result = native(exact[1].astype(dtype), exact[0].astype(dtype), metric, u.astype(dtype))
    assert result.dtype == (np.float64 if dtype_name == "float64" else np.float32)
    np.testing.assert_array_equal(result.astype(np.float32), expected)


def test_groups_are_corpora_of_their_own(isa: str) -> None:
    corpus, x, u = sample(150, 8, 1), sample(40, 8, 2), random_directions(30, 8)
    labels = (np.arange(150) * 7) % 3
    for metric in METRICS:
        together = native(x, corpus, metric, u, None, labels, 3)
        for g in range(3):
            alone = native(x, corpus[labels == g], metric, u)
            np.testing.assert_allclose(
                together[:, g], alone, atol=2e-2 if metric == "halfspace" else 1e-3
            )


# ---- bad input ----------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite(metric: str, value: float) -> None:
    corpus, x, u = sample(200, 5, 1), sample(20, 5, 2), random_directions(4, 5)
    x[[11, 17], 3] = value
    with pytest.raises(ValueError, match=r"depth\.score: 'x' must be finite; row 11 holds"):
        native(x, corpus, metric, u)
    with pytest.raises(ValueError, match=r"'x' must be finite; row 11 holds"):
        native(x, None, metric, u)
    corpus[[151, 196], 0] = value
    with pytest.raises(ValueError, match=r"'corpus' must be finite; row 151 holds"):
        native(sample(20, 5, 2), corpus, metric, u)


@pytest.mark.parametrize("metric", METRICS)
def test_bad_directions(metric: str) -> None:
    x = sample(10, 5, 1)
    with pytest.raises(ValueError, match=r"depth\.score: 'directions' must be given for metrics"):
        native(x, None, metric, None)
    with pytest.raises(
        ValueError,
        match=r"'directions' must have the same number of columns .* \(5\); got shape \(3, 4\)",
    ):
        native(x, None, metric, random_directions(3, 4))
    u = random_directions(30, 5)
    u[25] = 0
    with pytest.raises(
        ValueError, match=r"'directions' must not hold zero rows .*; row 25 is zero"
    ):
        native(x, None, metric, u)
    u[4, 1] = np.nan
    with pytest.raises(ValueError, match=r"'directions' must be finite; row 4 holds a NaN"):
        native(x, None, metric, u)


def test_projection_takes_no_weights() -> None:
    x, weights = sample(10, 5, 1), np.ones(10, np.float32)
    with pytest.raises(ValueError, match="'weights' are not supported by metric 'projection'"):
        native(x, None, "projection", random_directions(3, 5), weights)


@pytest.mark.parametrize("metric", METRICS)
def test_row_alone_in_its_group(metric: str) -> None:
    x = sample(5, 3, 1)
    with pytest.raises(ValueError, match=r"row 3 is alone in group 1"):
        native(x, None, metric, random_directions(3, 3), None, np.array([0, 0, 0, 1, 0]), 2)
