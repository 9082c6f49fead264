# SPDX-License-Identifier: Apache-2.0
"""`depth.score` on every kind of array, in every layout; results are of the kind of `x`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from embedcore import depth
from embedcore.depth._metrics import METRICS
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import depths as oracle
from support.guard import guarded
from support.kinds import Exporter, dtype_of, to_torch

Array = np.ndarray[Any, Any]

PAIRS = ("cosine", "chord", "arc", "l2", "spatial")
COLUMNS = 11


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def bits(depths: Any) -> bytes:
    return np.asarray(depths).tobytes()


def is_torch(array: Any) -> bool:
    return type(array).__module__.startswith("torch")


@pytest.mark.parametrize("metric", METRICS)
def test_kinds_have_the_same_depths(
    metric: str, dtype_name: str, to_kind: Callable[[Any], Any]
) -> None:
    x, corpus = (
        normal(count, COLUMNS, seed=count).astype(dtype_of(dtype_name)) for count in (9, 33)
    )
    labels = np.arange(33) % 2
    of_kind = to_kind(x), to_kind(corpus)
    by_numpy = metric in ("mahalanobis", "ai_irw")
    if by_numpy and dtype_name == "bfloat16" and isinstance(of_kind[0], Exporter):
        pytest.skip("NumPy takes no bfloat16 by DLPack")
    for own, options in ((False, {}), (False, {"groups": labels}), (True, {"groups": labels})):
        plain = depth.score(*((corpus,) if own else (x, corpus)), metric=metric, **options)
        got = depth.score(*(of_kind[1:] if own else of_kind), metric=metric, **options)
        assert is_torch(got) == is_torch(of_kind[0])
        assert got.shape == plain.shape
        np.testing.assert_array_equal(np.asarray(got), plain)


@pytest.mark.parametrize("metric", METRICS)
def test_kinds_of_weights_and_labels(metric: str) -> None:
    x = normal(30, COLUMNS)
    labels = np.repeat([0, 1], 15)
    weights = None if metric == "projection" else np.linspace(1, 2, 30)
    expected = depth.score(x, metric=metric, weights=weights, groups=labels)
    for kind in (guarded, to_torch, lambda v: np.repeat(v, 3)[::3], lambda v: v[::-1].copy()[::-1]):
        got = depth.score(
            x,
            metric=metric,
            weights=None if weights is None else kind(weights),
            groups=kind(labels),
        )
        assert bits(got) == bits(expected)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_torch_gives_torch(metric: str, name: str) -> None:
    torch = pytest.importorskip("torch")
    x = to_torch(normal(20, 4).astype(name))
    got = depth.score(x, metric=metric)
    assert isinstance(got, torch.Tensor) and got.dtype is getattr(torch, name)
    assert not got.requires_grad and got.device.type == "cpu"
    out = torch.empty(20, dtype=getattr(torch, name))
    assert depth.score(x, metric=metric, out=out) is out
    assert bits(out) == bits(got)
    assert depth.score(x.bfloat16(), metric=metric).dtype is torch.float32


@pytest.mark.parametrize("metric", METRICS)
def test_out_is_filled_and_returned(metric: str, dtype_name: str) -> None:
    x = normal(20, 4).astype(dtype_of(dtype_name))
    wide = np.float64 if dtype_name == "float64" else np.float32
    labels = np.repeat([0, 1], 10)
    for options in ({}, {"groups": labels}):
        expected = depth.score(x, metric=metric, **options)
        out = guarded(np.full(expected.shape, np.nan, wide))
        assert depth.score(x, metric=metric, out=out, **options) is out
        assert bits(out) == bits(expected)
    expected = depth.score(x, x, metric=metric)
    row = np.full((3, 20), -7, wide)
    depth.score(x, x, metric=metric, out=row[1])
    assert bits(row[1]) == bits(expected)
    assert (row[0] == -7).all() and (row[2] == -7).all()


@pytest.mark.parametrize("columns", [1, 3, 8, 15, 16, 17, 31, 33, 65])
@pytest.mark.parametrize("metric", METRICS)
def test_nothing_is_read_past_the_end(isa: str, metric: str, columns: int, dtype_name: str) -> None:
    dtype = dtype_of(dtype_name)
    x = guarded(normal(5, columns).astype(dtype))
    corpus = guarded(normal(13, columns, seed=1).astype(dtype))
    options = {} if metric in PAIRS else {"n_directions": 9}
    assert np.isfinite(depth.score(x, corpus, metric=metric, **options)).all()
    assert np.isfinite(depth.score(corpus, metric=metric, **options)).all()
    if metric in ("chord", "arc"):
        for precision in ("bfloat16", "int8"):
            depth.score(x, corpus, metric=metric, precision=precision)


@pytest.mark.parametrize("metric", PAIRS)
def test_broadcast_rows_and_columns(metric: str) -> None:
    row = normal(1, 7)
    corpus = normal(20, 7, seed=1)
    same = np.broadcast_to(row, (6, 7))
    assert same.strides[0] == 0
    expected = depth.score(same.copy(), corpus, metric=metric)
    assert bits(depth.score(same, corpus, metric=metric)) == bits(expected)
    assert bits(depth.score(corpus, same, metric=metric)) == bits(
        depth.score(corpus, same.copy(), metric=metric)
    )
    flat = np.broadcast_to(normal(20, 1), (20, 7))
    assert flat.strides[1] == 0
    assert bits(depth.score(flat, metric=metric)) == bits(depth.score(flat.copy(), metric=metric))


@pytest.mark.parametrize("metric", METRICS)
def test_inputs_are_left_alone(metric: str) -> None:
    x, corpus = normal(9, 4).astype(np.float32), normal(30, 4, seed=1)
    before = x.copy(), corpus.copy()
    depth.score(x, corpus, metric=metric, groups=np.repeat([0, 1], 15))
    assert bits(x) == bits(before[0]) and bits(corpus) == bits(before[1])


@settings(max_examples=60, deadline=None)
@given(
    metric=st.sampled_from(PAIRS),
    rows=st.integers(2, 60),
    columns=st.integers(1, 70),
    name=st.sampled_from(["float16", "float32", "float64"]),
    steps=st.tuples(st.sampled_from([-2, -1, 1, 3]), st.sampled_from([-1, 1, 2])),
    transposed=st.booleans(),
    own=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_shape_and_stride(
    metric: str,
    rows: int,
    columns: int,
    name: str,
    steps: tuple[int, int],
    transposed: bool,
    own: bool,
    seed: int,
) -> None:
    shape = rows * abs(steps[0]), columns * abs(steps[1])
    base = normal(*(shape[::-1] if transposed else shape), seed=seed).astype(name)
    x = (base.T if transposed else base)[:: steps[0], :: steps[1]]
    assert x.shape == (rows, columns)
    corpus = None if own else x[rows // 2 :]
    got = depth.score(x, corpus, metric=metric)
    packed = np.ascontiguousarray(x)
    assert bits(got) == bits(
        depth.score(packed, None if own else packed[rows // 2 :], metric=metric)
    )
    if rows * rows * columns < 2000:
        expected = oracle.score(
            x.astype(np.float64), None if own else corpus.astype(np.float64), metric=metric
        )
        np.testing.assert_allclose(got, expected, rtol=0, atol=1.5e-5)


@settings(max_examples=30, deadline=None)
@given(
    metric=st.sampled_from(PAIRS),
    sizes=st.lists(st.integers(2, 40), min_size=1, max_size=12),
    columns=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_a_group_is_a_corpus_of_its_own(
    metric: str, sizes: list[int], columns: int, seed: int
) -> None:
    rows = normal(sum(sizes), columns, seed=seed)
    offsets = np.cumsum([0, *sizes])
    together = depth.score(rows, metric=metric, offsets=offsets)
    for g, (begin, end) in enumerate(pairwise(offsets)):
        apart = depth.score(rows, rows[begin:end], metric=metric)
        apart[begin:end] = depth.score(rows[begin:end], metric=metric)
        np.testing.assert_allclose(together[:, g], apart, rtol=0, atol=1.5e-5)
