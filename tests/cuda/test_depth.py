# SPDX-License-Identifier: Apache-2.0
"""`depth.score` on a device: values against the oracle, layouts, outputs, errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import embedcore._device as device_module
import numpy as np
import pytest
from embedcore import depth
from oracle import depths as oracle
from support.emulated import EmulatedArray, EmulatedLibrary
from support.kinds import dtype_of

ANGULAR = ("cosine", "chord", "arc")
METRICS = (*ANGULAR, "l2", "spatial", "mahalanobis")
# Split products are as exact as float32 ones, and bounds those of the CPU: tests/depth/conftest.py
# derives them. bfloat16: the bound of the documentation for corpora of a few rows.
TOLERANCES = {
    "cosine": 6e-7,
    "chord": 3.2e-6,
    "arc": 3.2e-6,
    "l2": 3.2e-6,
    "spatial": 1.3e-5,
    "mahalanobis": 1e-7,
}
BFLOAT16_TOLERANCE = 5e-5

Array = np.ndarray[Any, Any]


def rows(count: int, columns: int, seed: int, dtype: Any = np.float32) -> Array:
    values = np.random.default_rng(seed).standard_normal((count, columns)) + 0.3
    return values.astype(dtype)


def agree(got: Any, expected: Array, metric: str, dtype: Any = np.float32) -> None:
    assert got.dtype == dtype
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCES[metric])


def wide(x: Array) -> Array:
    return x.astype(np.float64)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_depths_are_those_of_the_oracle(kind: Any, metric: str, dtype: str) -> None:
    x, corpus = rows(5, 24, 0, dtype_of(dtype)), rows(30, 24, 1, dtype_of(dtype))
    result = np.float64 if dtype == "float64" else np.float32
    for others in (corpus, None):
        given = x if others is not None else corpus
        there = None if others is None else kind.to_device(others)
        got = depth.score(kind.to_device(given), there, metric=metric)
        expected = oracle.score(
            wide(given), None if others is None else wide(others), metric=metric
        )
        agree(kind.to_host(got), expected, metric, result)


@pytest.mark.parametrize("metric", ["chord", "arc"])
def test_bfloat16_products(kind: Any, metric: str) -> None:
    corpus = rows(40, 24, 1)
    got = kind.to_host(depth.score(kind.to_device(corpus), metric=metric, precision="bfloat16"))
    expected = oracle.score(wide(corpus), None, metric=metric)
    np.testing.assert_allclose(got, expected, rtol=0, atol=BFLOAT16_TOLERANCE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", METRICS)
def test_weighted_depths_are_those_of_the_cpu(kind: Any, metric: str, dtype: Any) -> None:
    x, corpus = rows(17, 33, 2), rows(150, 33, 3)
    weights = 1e30 * np.random.default_rng(4).random(300).astype(dtype)[::2]
    there = kind.to_device(weights)
    got = depth.score(kind.to_device(x), kind.to_device(corpus), metric=metric, weights=there)
    agree(kind.to_host(got), depth.score(x, corpus, metric=metric, weights=weights), metric)


@pytest.mark.parametrize("metric", METRICS)
def test_groups_are_those_of_the_cpu(kind: Any, metric: str) -> None:
    x, corpus = rows(7, 20, 2), rows(60, 20, 3)
    labels = np.random.default_rng(4).integers(0, 4, 60)
    for there in (labels, kind.to_device(labels), labels.astype(str)):
        got = depth.score(kind.to_device(x), kind.to_device(corpus), metric=metric, groups=there)
        agree(kind.to_host(got), depth.score(x, corpus, metric=metric, groups=labels), metric)
    got = depth.score(kind.to_device(corpus), metric=metric, groups=labels)
    agree(kind.to_host(got), depth.score(corpus, metric=metric, groups=labels), metric)
    got = depth.score(kind.to_device(corpus), metric=metric, offsets=[0, 30, 60])
    agree(
        kind.to_host(got), depth.score(corpus, metric=metric, offsets=np.array([0, 30, 60])), metric
    )


@pytest.mark.parametrize("shrinkage", ["auto", 0.3, 1])
@pytest.mark.parametrize("rows_given", [20, 60])
def test_shrunk_covariances_are_those_of_the_cpu(
    kind: Any, rows_given: int, shrinkage: float | str
) -> None:
    x, corpus = rows(7, 30, 2, np.float64), rows(rows_given, 30, 3, np.float64)
    weights = np.random.default_rng(4).random(rows_given)
    options = {"metric": "mahalanobis", "shrinkage": shrinkage}
    for given, among in ((x, corpus), (corpus, None)):
        for w in (None, weights):
            there = (None if a is None else kind.to_device(a) for a in (given, among, w))
            first, others, weighing = there
            got = kind.to_host(depth.score(first, others, weights=weighing, **options))
            expected = depth.score(given, among, weights=w, **options)
            np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_covariances_that_cannot_be(kind: Any) -> None:
    x = kind.to_device(rows(6, 8, 5))

    def score(given: Any, among: Any = None, **options: Any) -> Any:
        return depth.score(given, among, metric="mahalanobis", **options)

    assert np.isnan(kind.to_host(score(x, shrinkage=0.0))).all()
    same = kind.to_device(np.ones((9, 8), np.float32))
    assert np.isnan(kind.to_host(score(x, same))).all()
    with pytest.raises(ValueError, match=r"'shrinkage' must lie in \[0, 1\]; got 1\.5"):
        score(x, shrinkage=1.5)
    with pytest.raises(TypeError, match=r"'shrinkage' must be 'auto' or a number"):
        score(x, shrinkage="none")
    with pytest.raises(ValueError, match=r"'x' must have at least 3 rows in each group .* got 2"):
        score(x, groups=np.array([0, 0, 0, 0, 1, 1]))
    with pytest.raises(ValueError, match=r"'corpus' must have at least 2 rows .*; got 1"):
        score(x, x, groups=np.array([0, 0, 0, 0, 0, 1]))


def _rows_apart(x: Array) -> Array:
    return np.concatenate([x, np.full_like(x, np.nan)], axis=1)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("stored", "seen"),
    [
        (_rows_apart, lambda a, n: a[:, :n]),
        (lambda x: x.repeat(2, axis=1), lambda a, n: a[:, ::2]),
        (lambda x: np.array(x.T), lambda a, n: a.T),
    ],
    ids=["rows apart", "columns apart", "transposed"],
)
def test_strided_rows(
    kind: Any, metric: str, stored: Callable[..., Array], seen: Callable[..., Any]
) -> None:
    x = rows(20, 12, 5)
    if kind.emulated:
        given = kind.to_device(x)
        given.memory = seen(stored(x), 12)
    else:
        given = seen(kind.to_device(stored(x)), 12)
    got = depth.score(given, metric=metric)
    agree(kind.to_host(got), oracle.score(wide(x), None, metric=metric), metric)


def test_result_goes_into_out(kind: Any) -> None:
    x, out = rows(6, 8, 6), kind.to_device(np.full(6, -1, np.float32))
    assert depth.score(kind.to_device(x), out=out) is out
    agree(kind.to_host(out), oracle.score(wide(x), None, metric="cosine"), "cosine")


def test_bad_rows_have_no_depth_and_harm_no_other(kind: Any) -> None:
    x, corpus = rows(6, 8, 7), rows(20, 8, 8)
    x[1], x[3, 2], x[4, 7] = 0.0, np.nan, np.inf
    for metric in METRICS:
        bad = np.array([metric in ANGULAR, True, True])
        got = kind.to_host(depth.score(kind.to_device(x), kind.to_device(corpus), metric=metric))
        np.testing.assert_array_equal(np.isnan(got[[1, 3, 4]]), bad)
        right = oracle.score(wide(x[[0, 2, 5]]), wide(corpus), metric=metric)
        agree(got[[0, 2, 5]], right, metric)
        got = kind.to_host(depth.score(kind.to_device(corpus), kind.to_device(x), metric=metric))
        assert np.isnan(got).all()


def test_check_names_the_first_bad_value(kind: Any) -> None:
    x, corpus, weights = rows(6, 8, 7), rows(20, 8, 8), np.ones(20, np.float32)

    def refused(words: str, **options: Any) -> None:
        there = (kind.to_device(given) for given in (x, corpus, weights))
        first, among, weighing = there
        with pytest.raises(ValueError, match=f"^depth\\.score: {words}"):
            depth.score(first, among, weights=weighing, check=True, **options)

    depth.score(kind.to_device(x), kind.to_device(corpus), check=True)
    weights[13] = -1.0
    refused("'weights' must be finite and not negative; weight 13 is not")
    corpus[9, 4], corpus[17, 0] = np.inf, np.nan
    refused("'corpus' must be finite; row 9 holds a NaN or an infinite value")
    x[5] = 0.0
    refused(r"'x' must not hold zero rows \(they have no direction\); row 5 is zero")
    refused("'corpus' must be finite; row 9 holds", metric="l2")


def test_calls_repeat_bit_by_bit(kind: Any) -> None:
    x = kind.to_device(rows(140, 20, 9))
    for metric in METRICS:
        first = kind.to_host(depth.score(x, metric=metric))
        np.testing.assert_array_equal(kind.to_host(depth.score(x, metric=metric)), first)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"corpus": rows(4, 5, 0)}, ValueError, r"'corpus' must have the same number of columns"),
        ({"weights": np.ones(3, np.float32)}, ValueError, r"'weights' must have one number for"),
        ({"weights": np.ones((4, 1), np.float32)}, ValueError, "'weights' must be a 1-D array"),
        ({"weights": np.ones(4, np.int32)}, TypeError, "'weights' must be float"),
        ({"weights": np.ones(4, np.float16)}, TypeError, "'weights' must be float32 or float64;"),
        ({"groups": np.ones(3, int)}, ValueError, "'groups' must have one label for each corpus"),
        ({"out": np.ones(3, np.float32)}, ValueError, r"'out' must have the shape \(4,\)"),
        ({"out": np.ones(4, np.float16)}, TypeError, "'out' must be float32; got float16"),
        ({"corpus": rows(4, 8, 0).astype(int)}, TypeError, "'corpus' must be float16, bfloat16"),
        ({"corpus": np.ones(8, np.float32)}, ValueError, "'corpus' must be a 2-D array; got"),
        ({"corpus": np.ones((0, 8), np.float32)}, ValueError, "'corpus' must have at least one"),
    ],
)
def test_arguments_that_do_not_fit(
    kind: Any, options: dict[str, Array], error: type[Exception], words: str
) -> None:
    given = {name: kind.to_device(value) for name, value in options.items()}
    with pytest.raises(error, match=rf"^depth\.score: {words}"):
        depth.score(kind.to_device(rows(4, 8, 0)), **given)


def test_arrays_must_lie_on_one_device(kind: Any) -> None:
    x = rows(4, 8, 0)
    with pytest.raises(TypeError, match=r"'corpus' must be a .* on device cuda:0, as 'x' is; got"):
        depth.score(kind.to_device(x), x)
    with pytest.raises(TypeError, match=r"^depth\.score: 'corpus' must be on the CPU"):
        depth.score(x, kind.to_device(x))


def test_what_the_gpu_cannot_do_yet_is_said(kind: Any) -> None:
    x = kind.to_device(rows(4, 8, 0))
    with pytest.raises(NotImplementedError, match="'precision' must be 'float32' or 'bfloat16' on"):
        depth.score(x, metric="arc", precision="int8")


@pytest.mark.parametrize("method", ["asymptotic", "split", "permutation"])
@pytest.mark.parametrize("reference", ["f", "g"])
def test_rank_sum_test_is_that_of_the_cpu(kind: Any, method: str, reference: str) -> None:
    f, g = rows(30, 8, 1), rows(24, 8, 2)
    options = {"metric": "arc", "method": method, "reference": reference, "n_resamples": 99}
    got = depth.rank_sum_test(kind.to_device(f), kind.to_device(g), **options)
    expected = depth.rank_sum_test(f, g, **options)
    assert got.method == method
    assert got.statistic == expected.statistic
    np.testing.assert_allclose(got.pvalue, expected.pvalue, rtol=1e-3)
    agree(kind.to_host(got.depths_f), expected.depths_f, "arc")


def test_rank_sum_test_names_the_bad_row(kind: Any) -> None:
    f, g = rows(30, 8, 1), rows(24, 8, 2)
    g[7] = np.nan
    with pytest.raises(ValueError, match=r"^depth\.rank_sum_test: 'g' must be finite; row 7"):
        depth.rank_sum_test(kind.to_device(f), kind.to_device(g))
    with pytest.raises(TypeError, match=r"^depth\.rank_sum_test: 'g' must be on the CPU, as 'f'"):
        depth.rank_sum_test(f, kind.to_device(g))


def test_rows_alone_in_their_group(kind: Any) -> None:
    x = kind.to_device(rows(4, 8, 1))
    with pytest.raises(
        ValueError, match=r"^depth\.score: 'x' must have .*; row 2 is alone in group"
    ):
        depth.score(x, groups=np.array([0, 0, 1, 0]))
    with pytest.raises(ValueError, match="row 0 is alone in group 0"):
        depth.score(kind.to_device(rows(1, 8, 1)))
    assert kind.to_host(depth.score(x, x, groups=np.array([0, 0, 1, 0]))).shape == (4, 2)


def test_builds_without_kernels_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "_LIBRARIES", [EmulatedLibrary()])
    monkeypatch.setitem(sys.modules, "embedcore._cuda", None)
    x = EmulatedArray(rows(4, 8, 0))
    with pytest.raises(
        TypeError, match=r"'x' must be on the CPU, because this build has no kernels"
    ):
        depth.score(x)
