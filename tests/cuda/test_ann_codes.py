# SPDX-License-Identifier: Apache-2.0
"""Searches on a device of indexes that have not kept their vectors."""

from __future__ import annotations

import functools
from typing import Any

import embedcore._device as device_module
import numpy as np
import pytest
from embedcore import ann
from embedcore.ann import _device_costs, _on_device
from embedcore.ann._device_codes import codes_of
from embedcore.ann._device_costs import SCAN
from embedcore.ann._device_search import Asked, Search
from embedcore.ann._device_where import DeviceFilters
from support.ann import World, early_builds, expression, make_world

METRICS = ("cosine", "ip", "l2")
K = 10
ROWS = 500

Array = np.ndarray[Any, Any]


@functools.cache
def world_of(metric: str, columns: int = 41) -> World:
    """An index of codes; 530 columns have fewer axes than columns, and 41 no tail."""
    with early_builds():
        return make_world(metric, rows=ROWS, columns=columns, queries=6, keep_vectors=False)


@pytest.fixture(autouse=True)
def quick_costs(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind.emulated:
        monkeypatch.setattr(_on_device, "_SAMPLE", 3)
        monkeypatch.setattr(_device_costs, "_REPEATS", 1)


def first(count: int) -> Any:
    return expression(("<", "rank", count))


def found(kind: Any, index: Any, queries: Array, k: int = K, **options: Any) -> ann.SearchResult:
    hits = index.search(kind.to_device(queries), k, **options)
    return ann.SearchResult(*map(kind.to_host, (hits.ids, hits.distances, hits.counts)))


def code_distances(index: Any, queries: Array) -> Array:
    """Distances to what the codes of all slots stand for, as csrc/ann/codes.h has them."""
    state = index._state
    codes = codes_of(state.vectors.parts(), state.ids.rows)
    queries = queries.astype(np.float64)
    if index.metric == "cosine":
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    mean, axes = codes.mean.astype(np.float64), codes.axes.astype(np.float64)
    numbers = codes.numbers.astype(np.float64) - 128
    numbers[:, : codes.head_columns] *= codes.scales[:, :1]
    numbers[:, codes.head_columns :] *= codes.scales[:, 1:]
    if index.metric == "ip":
        return -(queries @ mean)[:, None] - queries @ axes.T @ numbers.T
    centred = queries - mean
    scores = centred @ axes.T @ numbers.T + codes.offsets
    squares = np.maximum(0.0, (centred**2).sum(axis=1)[:, None] - 2.0 * scores)
    return np.sqrt(squares) if index.metric == "l2" else 0.5 * squares


def agree(hits: ann.SearchResult, index: Any, queries: Array, k: int, passing: Any = None) -> None:
    """All that pass, at the distances of their codes, but for float32 sums, in order."""
    distances = code_distances(index, queries)
    ids = index._state.ids.external
    if passing is not None:
        distances = np.where(np.isin(ids, passing), distances, np.inf)
    right = np.sort(distances, axis=1)[:, :k]
    count = int(np.isfinite(right[0]).sum())
    assert (hits.counts == count).all() and (hits.ids[:, count:] == -1).all()
    slots = index._state.ids.slots_of(hits.ids[:, :count].reshape(-1)).reshape(len(right), count)
    own = np.take_along_axis(distances, slots, axis=1)
    scale = np.abs(distances[np.isfinite(distances)]).max(initial=0.0)
    for each in (hits.distances[:, :count], right[:, :count]):
        np.testing.assert_allclose(each, own, rtol=1e-5, atol=4e-6 * scale)
    assert all(len(set(row)) == count for row in hits.ids[:, :count].tolist())


@pytest.mark.parametrize("columns", [41, 530])
@pytest.mark.parametrize("metric", METRICS)
def test_distances_are_those_of_the_codes(kind: Any, metric: str, columns: int) -> None:
    world = world_of(metric, columns)
    there = world.index.to("cuda")
    there._costs = None  # everything is scanned
    for count in (0, 1, 60, ROWS):
        hits = found(kind, there, world.queries, where=first(count))
        passing = world.table.passing(("<", "rank", count))
        agree(hits, world.index, world.queries, K, passing)
    wheres = [None, first(60), first(200), first(0), first(499), first(60)]
    hits = found(kind, there, world.queries, where=wheres)
    for query, where in enumerate(wheres):
        passing = None if where is None else world.index.compile(where).ids
        one = ann.SearchResult(
            *(part[query : query + 1] for part in (hits.ids, hits.distances, hits.counts))
        )
        agree(one, world.index, world.queries[query : query + 1], K, passing)


@pytest.mark.parametrize("columns", [41, 130])
@pytest.mark.parametrize("metric", METRICS)
def test_the_cpu_finds_the_same(kind: Any, metric: str, columns: int) -> None:
    """It rounds queries to bytes, which moves distances by no more than codes are wrong."""
    world = world_of(metric, columns)
    codes = codes_of(world.index._state.vectors.parts(), ROWS)
    assert (codes.head_columns < columns) == (columns == 130)
    hits = found(kind, world.index.to("cuda"), world.queries)
    expected = world.index.search(world.queries, K)
    norm = np.linalg.norm(world.queries, axis=1).max()
    scale = {"cosine": 1.0, "ip": 3 * norm**2, "l2": norm}[metric]
    np.testing.assert_allclose(hits.distances, expected.distances, rtol=0, atol=0.03 * scale)
    same = [
        len(set(a) & set(b)) for a, b in zip(hits.ids.tolist(), expected.ids.tolist(), strict=True)
    ]
    assert np.mean(same) >= 8


@pytest.mark.parametrize("metric", METRICS)
def test_walks(kind: Any, metric: str) -> None:
    world = world_of(metric)
    there = world.index.to("cuda")
    assert there._costs is not None
    distances = code_distances(world.index, world.queries)
    for told in there.explain_batch(kind.to_device(world.queries), effort=64):
        assert told["plan"] == "graph" and K <= told["rescored"] <= 64
    hits = found(kind, there, world.queries, effort=128)
    right = np.sort(distances, axis=1)[:, K - 1 : K] + 1e-5 * np.abs(distances).max()
    assert (hits.distances <= right).mean() >= 0.9
    assert (np.diff(hits.distances, axis=1) >= 0).all()


def test_later_and_deleted_rows(kind: Any) -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((200, 24)).astype(np.float32)
    for metric in METRICS:
        with early_builds(tail=64):
            index = ann.Index(24, metric=metric, keep_vectors=False)
            index.add(rows[:170])
            assert index._state.dropped
            index.add(rows[170:])
            index.delete(index.ids[::8])
        assert index._state.dropped and index._state.tail == 30 and len(index) == 175
        there = index.to("cuda")
        queries = rng.standard_normal((3, 24)).astype(np.float32)
        agree(found(kind, there, queries), index, queries, K, index.ids)
        agree(found(kind, there, queries, 200), index, queries, 200, index.ids)
        assert there.to("cpu").search(queries).counts.tolist() == [K] * 3


def test_prefixes_keep_their_vectors(kind: Any) -> None:
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((150, 48)).astype(np.float32)
    for dtype in ("float32", "bfloat16"):
        with early_builds():
            index = ann.Index(48, metric="l2", prefixes=(8, 33), keep_vectors=False, dtype=dtype)
            index.add(rows)
        there = index.to("cuda")
        for width in (8, 33):
            queries = rng.standard_normal((3, width)).astype(np.float32)
            hits, expected = found(kind, there, queries), index.search(queries, K)
            np.testing.assert_array_equal(hits.ids, expected.ids)
            np.testing.assert_allclose(hits.distances, expected.distances, rtol=1e-5, atol=1e-6)
        queries = rng.standard_normal((3, 48)).astype(np.float32)
        agree(found(kind, there, queries), index, queries, K)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8"])
def test_dtypes_and_queries_without_an_answer(kind: Any, dtype: str) -> None:
    for metric in METRICS:
        world = world_of(metric)
        there = world.index.to("cuda")
        there._costs = None
        queries = np.rint(8 * world.queries).astype(dtype)
        agree(found(kind, there, queries), world.index, queries, K)
        if dtype == "int8":
            continue
        queries[1, 3], queries[4] = np.nan, 0.0
        bad = [1, 4] if metric == "cosine" else [1]
        good = np.setdiff1d(np.arange(len(queries)), bad)
        hits = found(kind, there, queries)
        assert (hits.ids[bad] == -1).all() and np.isnan(hits.distances[bad]).all()
        assert (hits.counts[bad] == 0).all()
        parts = (hits.ids[good], hits.distances[good], hits.counts[good])
        agree(ann.SearchResult(*parts), world.index, queries[good], K)


def test_many_queries(kind: Any) -> None:
    """More than a block turns at once, and not a multiple of what a warp takes."""
    world = world_of("l2")
    there = world.index.to("cuda")
    there._costs = None
    queries = np.random.default_rng(1).standard_normal((135, 41)).astype(np.float32)
    agree(found(kind, there, queries, 3), world.index, queries, 3)


def test_memory_and_refusals(kind: Any) -> None:
    world = world_of("cosine")
    there = world.index.to("cuda")
    usage = there.memory_usage()
    assert "vectors" not in usage and usage["codes"] >= ROWS * (41 + 2 * 64)
    queries = kind.to_device(world.queries)
    with pytest.raises(
        ValueError, match=r"^ann\.DeviceIndex\.search: 'exact' must be False for an"
    ):
        there.search(queries, exact=True)
    with pytest.raises(
        ValueError, match=r"^ann\.DeviceIndex\.search: 'queries' must have 41 columns"
    ):
        there.search(kind.to_device(np.ones((1, 40), np.float32)))
    assert there.count(first(60)) == there.compile(first(60)).count == 60


def test_kernels_refuse_what_codes_have_not(kind: Any) -> None:
    there = world_of("cosine").index.to("cuda")
    call = device_module.call_for("here", "device", 0)
    matrix = call.matrix("queries", kind.to_device(world_of("cosine").queries))
    asked = Asked(matrix, K, True, SCAN, DeviceFilters(0, 0, None))
    with pytest.raises(ValueError, match="'exact' must be 0 for an index of codes"):
        Search(call, there._rows, asked, 1 << 20).run()
    words = r"'index' must have scales, axes and no fewer columns of queries \(7\) than codes \(8\)"
    index = call.kernels.AnnIndex(0, 4, (1, 8, 8, 8, 7), (0,) * 10)
    with pytest.raises(ValueError, match=words):
        call.kernels.ann_encode("here", call.place(), index)
