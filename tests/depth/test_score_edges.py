# SPDX-License-Identifier: Apache-2.0
"""`depth.score` at the seams: widths, single rows, ties, near pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from embedcore import depth
from embedcore.depth._metrics import METRICS
from oracle import depths as oracle

Array = np.ndarray[Any, Any]


PAIRWISE = ("chord", "arc", "l2")
PAIRS = ("cosine", *PAIRWISE, "spatial")
ANGULAR = ("cosine", "chord", "arc")
WIDTHS = [*range(1, 10), 15, 16, 17, 23, 24, 25, 31, 32, 33, 47, 48, 49, 95, 96, 97, 767, 768, 769]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("metric", PAIRS)
def test_every_width(isa: str, metric: str, agrees: Callable[..., Array]) -> None:
    for columns in WIDTHS:
        x = normal(5, columns, seed=columns).astype(np.float32)
        agrees(x[:2], x[2:], metric=metric)
        agrees(x, metric=metric)


@pytest.mark.parametrize("own", [False, True], ids=["corpus", "self"])
@pytest.mark.parametrize("metric", PAIRS)
def test_every_number_of_rows(
    isa: str, metric: str, own: bool, agrees: Callable[..., Array]
) -> None:
    rows = normal(97, 3, seed=1).astype(np.float32)
    for corpus in (rows[:count] for count in WIDTHS if 2 <= count <= 49):
        agrees(corpus if own else rows[-2:], None if own else corpus, metric=metric)
        if not own:
            agrees(corpus, rows[-2:], metric=metric)


@pytest.mark.parametrize("metric", ["halfspace", "projection", "irw", "mahalanobis", "ai_irw"])
def test_widths_of_the_other_metrics(isa: str, metric: str, agrees: Callable[..., Array]) -> None:
    for columns in (1, 7, 8, 9, 15, 16, 17, 33):
        corpus = normal(67, columns, seed=columns)
        agrees(normal(3, columns), corpus, metric=metric)


@pytest.mark.parametrize("columns", [1, 3, 16, 40])
@pytest.mark.parametrize("metric", PAIRS)
def test_one_row_corpus(isa: str, metric: str, columns: int, agrees: Callable[..., Array]) -> None:
    x = normal(9, columns).astype(np.float32)
    agrees(x, x[:1], metric=metric)
    agrees(x, -x[:1], metric=metric)


@pytest.mark.parametrize("metric", ["halfspace", "irw", "projection"])
def test_one_row_corpus_along_directions(metric: str) -> None:
    x = normal(4, 3)
    got = depth.score(x, x[:1], metric=metric, n_directions=20)
    assert got[0] == 1.0
    assert (got[1:] == 0.0).all()


@pytest.mark.parametrize("columns", [1, 2, 17, 33, 384])
def test_equal_rows_have_the_largest_depth(isa: str, columns: int) -> None:
    row = normal(1, columns).astype(np.float32)
    rows = np.repeat(row, 70, axis=0)
    for among in (None, rows[:50]):
        assert (depth.score(rows, among, metric="l2") == 1.0).all()
        assert (depth.score(rows, among, metric="spatial") == 1.0).all()
        assert (depth.score(rows, among, metric="chord") == 2.0).all()
        assert (depth.score(rows, among, metric="arc") == np.float32(math.pi)).all()
        np.testing.assert_allclose(depth.score(rows, among, metric="cosine"), 2.0, atol=6e-7)


@pytest.mark.parametrize("columns", [1, 2, 17, 33, 384])
def test_opposite_rows(isa: str, columns: int) -> None:
    row = normal(1, columns)
    rows = np.repeat(row, 20, axis=0)
    assert (depth.score(rows, -rows, metric="arc") == 0.0).all()
    np.testing.assert_allclose(depth.score(rows, -rows, metric="chord"), 0, atol=2e-7)
    np.testing.assert_allclose(depth.score(rows, -rows, metric="cosine"), 0, atol=6e-7)


@pytest.mark.parametrize("metric", PAIRS)
def test_duplicates_among_other_rows(isa: str, metric: str, agrees: Callable[..., Array]) -> None:
    rows = normal(20, 9).astype(np.float32)
    corpus = np.concatenate([rows, rows, rows[:5]])
    weights = np.linspace(0, 1, len(corpus))
    labels = np.arange(len(corpus)) % 3
    agrees(corpus, metric=metric, weights=weights, groups=labels)
    agrees(rows, corpus, metric=metric, weights=weights, groups=labels)
    got = depth.score(corpus, corpus, metric=metric)
    assert (got[:20] == got[20:40]).all() and (got[:5] == got[40:]).all()


@pytest.mark.parametrize("own", [False, True], ids=["corpus", "self"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("metric", ["chord", "arc"])
def test_near_and_nearly_opposite_rows(isa: str, metric: str, sign: int, own: bool) -> None:
    # Each element of a float32 unit row is off by about 2^-23 of itself, in either row; pairs that
    # are no nearer than 1/16 come from a cosine, off by 2e-7, with slope 1 / angle.
    u, v = np.linalg.qr(normal(48, 2))[0].T
    for angle in (1e-1, 3e-2, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7):
        pair = np.array([u, sign * (math.cos(angle) * u + math.sin(angle) * v)])
        expected = oracle.score(pair, metric=metric)
        got = depth.score(pair, None if own else pair[::-1].copy(), metric=metric)
        if not own:
            expected = oracle.score(pair, pair, metric=metric)
        limit = 3.2e-6 if angle > 1 / 16 else 4e-7
        np.testing.assert_allclose(got, expected, rtol=0, atol=limit)


@pytest.mark.parametrize("gap", [1e-1, 1e-2, 1e-3, 1e-5, 1e-6])
def test_near_rows_for_l2_and_spatial(isa: str, gap: float, agrees: Callable[..., Array]) -> None:
    rows = normal(12, 40)
    corpus = np.concatenate([rows, rows + gap * normal(12, 40, seed=1)])
    agrees(corpus, metric="l2")
    # The unit difference of two rows near 1 is off by 2^-24 / gap; one of 23 such is in each mean.
    limit = 1.3e-5 + 2e-7 / gap
    agrees(corpus, metric="spatial", tolerance=limit)


@pytest.mark.parametrize("metric", ANGULAR)
def test_the_length_of_rows_does_not_count(isa: str, metric: str) -> None:
    rows = normal(24, 19)
    expected = oracle.score(rows, metric=metric)
    for dtype, powers in (
        (np.float32, (-120, -80, 80, 120)),
        (np.float64, (-1000, -700, 700, 1000)),
    ):
        for power in powers:
            scaled = np.ldexp(rows, power).astype(dtype)
            np.testing.assert_allclose(
                depth.score(scaled, metric=metric), expected, rtol=0, atol=2e-6
            )
        mixed = (rows * np.ldexp(1.0, np.resize(powers, (24, 1)))).astype(dtype)
        np.testing.assert_allclose(depth.score(mixed, metric=metric), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("metric", ANGULAR)
def test_denormal_rows_have_a_direction(
    isa: str, metric: str, agrees: Callable[..., Array]
) -> None:
    agrees((normal(12, 19) * 1e-42).astype(np.float32), metric=metric)
    got = depth.score(normal(12, 19) * 1e-315, metric=metric)
    np.testing.assert_allclose(got, oracle.score(normal(12, 19), metric=metric), atol=2e-6)
    smallest = np.full((3, 5), np.finfo(np.float32).smallest_subnormal)
    np.testing.assert_allclose(
        depth.score(smallest, metric=metric), math.pi if metric == "arc" else 2, atol=6e-7
    )


@pytest.mark.parametrize("metric", ["spatial", "mahalanobis"])
def test_unit_free_metrics_take_any_unit(isa: str, metric: str) -> None:
    rows = normal(40, 7)
    expected = oracle.score(rows, metric=metric)
    for power in (-1000, -500, -140, 140, 500, 1000):
        got = depth.score(np.ldexp(rows, power), metric=metric)
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)
    for power in (-110, 110):
        got = depth.score(np.ldexp(rows, power).astype(np.float32), metric=metric)
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "power",
    [-1000, -300, -110, 110, 300, 1000],
)
@pytest.mark.parametrize("metric", ["halfspace", "irw", "projection"])
def test_directional_metrics_take_any_unit(metric: str, power: int) -> None:
    rows = normal(80, 6)
    # One of 79 rows may change its side along some of the directions.
    limit = 1e-6 if metric == "projection" else 1.01 / 79
    expected = depth.score(rows, metric=metric, n_directions=100)
    got = depth.score(np.ldexp(rows, power), metric=metric, n_directions=100)
    np.testing.assert_allclose(got, expected, rtol=0, atol=limit)


@pytest.mark.parametrize("power", [-1000, -400, -130, 130, 400, 1000])
def test_l2_takes_any_unit(isa: str, power: int) -> None:
    rows = normal(40, 7)
    mean = 1 / oracle.score(rows, metric="l2") - 1
    expected = 1 / (1 + np.ldexp(mean, power))
    np.testing.assert_allclose(depth.score(np.ldexp(rows, power), metric="l2"), expected, rtol=4e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", ["l2", "spatial", "mahalanobis"])
def test_a_common_offset_is_taken_off(
    isa: str, metric: str, dtype: type, agrees: Callable[..., Array]
) -> None:
    rows = normal(60, 21)
    agrees((rows + 1e3).astype(dtype), metric=metric)
    agrees((8 * rows + 1e6).astype(dtype), metric=metric)
    agrees((8 * rows[:9] + 1e6).astype(dtype), (8 * rows + 1e6).astype(dtype), metric=metric)


@pytest.mark.parametrize("metric", ["l2", "spatial"])
def test_float64_offset_beyond_float32(metric: str, agrees: Callable[..., Array]) -> None:
    agrees(normal(60, 21) + 1e12, metric=metric)


@pytest.mark.parametrize("metric", ["l2", "spatial"])
def test_queries_far_from_the_corpus(isa: str, metric: str, agrees: Callable[..., Array]) -> None:
    corpus = normal(50, 64)
    signs = np.sign(normal(6, 64, seed=1))
    for power in (10, 40, 59, 60, 61, 62, 63, 64, 65, 100, 120):
        x = np.ldexp(signs, power).astype(np.float32)
        agrees(x, corpus.astype(np.float32), metric=metric)
        if metric == "l2":  # depth is about 1 / distance here
            x = x.astype(np.float64)
            got = depth.score(x, corpus, metric="l2")
            np.testing.assert_allclose(got, oracle.score(x, corpus, metric="l2"), rtol=4e-6)


@pytest.mark.parametrize("metric", ["l2", "spatial"])
def test_scales_mixed_within_a_corpus(isa: str, metric: str, agrees: Callable[..., Array]) -> None:
    corpus = normal(40, 11)
    corpus[::2] *= 1e-3
    corpus[1::4] *= 1e3
    agrees(corpus, metric=metric, tolerance=2e-5)


@pytest.mark.parametrize("metric", ["l2", "spatial"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_groups_far_apart(metric: str, dtype: type, agrees: Callable[..., Array]) -> None:
    rows = np.concatenate([normal(30, 20), normal(30, 20, seed=1) + 1e6]).astype(dtype)
    agrees(rows, metric=metric, groups=np.repeat([0, 1], 30))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_spatial_of_a_tight_cluster_among_others(dtype: type, agrees: Callable[..., Array]) -> None:
    rows = np.concatenate([normal(30, 20) * 1e-10, normal(30, 20, seed=1)]).astype(dtype)
    agrees(rows, metric="spatial")


@pytest.mark.parametrize(
    "metric",
    ["cosine", "chord", "arc"],
)
def test_a_weight_that_dwarfs_the_others(metric: str, agrees: Callable[..., Array]) -> None:
    rows = normal(60, 20)
    weights = np.ones(60)
    weights[7] = 1e7
    agrees(rows, metric=metric, weights=weights)


@pytest.mark.parametrize("metric", ANGULAR)
@pytest.mark.parametrize("unit", [1e-60, 1e60])
def test_float64_weights_of_any_unit(
    metric: str, unit: float, agrees: Callable[..., Array]
) -> None:
    rows = normal(30, 20)
    agrees(rows, metric=metric, weights=unit * np.linspace(1, 2, 30))


@pytest.mark.parametrize("metric", PAIRS)
@pytest.mark.parametrize(
    "unit",
    [1e-30, 1e30, 1e38],
)
def test_float32_weights_of_any_unit(metric: str, unit: float) -> None:
    rows = normal(40, 8)
    weights = np.linspace(1, 3, 40, dtype=np.float32)
    expected = depth.score(rows, metric=metric, weights=weights)
    got = depth.score(rows, metric=metric, weights=weights * np.float32(unit))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_sums_over_many_rows(isa: str) -> None:
    # Cosines, distances and unit differences do not lose digits with the number of rows.
    corpus = (normal(400_000, 2) + 0.5).astype(np.float32)
    x = normal(5, 2, seed=1)
    gaps = x[:, None] - corpus
    lengths = np.sqrt((gaps**2).sum(axis=2))
    cosines = (x @ corpus.T) / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(corpus, axis=1)
    expected = {
        "cosine": 1 + cosines.mean(axis=1),
        "chord": 2 - np.sqrt(np.maximum(0, 2 - 2 * cosines)).mean(axis=1),
        "l2": 1 / (1 + lengths.mean(axis=1)),
    }
    for metric, depths in expected.items():
        np.testing.assert_allclose(depth.score(x, corpus, metric=metric), depths, rtol=0, atol=5e-7)


def test_spatial_sums_over_many_rows() -> None:
    corpus = (normal(400_000, 2) + 0.5).astype(np.float32)
    x = normal(5, 2, seed=1) * np.array([[0.1], [1], [10], [30], [60]])
    gaps = x[:, None] - corpus
    units = gaps / np.sqrt((gaps**2).sum(axis=2, keepdims=True))
    expected = 1 - np.linalg.norm(units.mean(axis=1), axis=1)
    got = depth.score(x, corpus, metric="spatial")
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


def test_the_widest_rows() -> None:
    x = normal(3, 65536).astype(np.float32)
    expected = oracle.score(x.astype(np.float64), metric="arc")
    for precision in ("float32", "bfloat16", "int8"):
        got = depth.score(x, metric="arc", precision=precision)
        np.testing.assert_allclose(got, expected, rtol=0, atol=5e-5)
    with pytest.raises(ValueError, match="'x' must have at most 65536 columns; got shape"):
        depth.score(np.ones((2, 65537), np.float32))


@pytest.mark.parametrize("metric", METRICS)
def test_no_result_is_nan(metric: str) -> None:
    rows = np.concatenate([normal(30, 4), np.ones((30, 4)), -np.ones((2, 4))])
    options = {} if metric in PAIRS else {"n_directions": 50}
    assert not np.isnan(depth.score(rows, metric=metric, **options)).any()
    labels = np.repeat([0, 1], 31)
    assert not np.isnan(depth.score(rows, rows, metric=metric, groups=labels, **options)).any()
