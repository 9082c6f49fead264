# SPDX-License-Identifier: Apache-2.0
"""What searches on a device take beside filters: the dtypes and shapes of queries, and efforts."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from embedcore import ann
from embedcore.ann import _device_costs, _on_device
from embedcore.ann._device_costs import NEVER, SCAN, TILE, by_effort
from embedcore.ann._device_search import _tiles_of
from support.ann import World, as_dtype, check, expression, make_world
from support.emulated import EmulatedLibrary

K = 10

Array = np.ndarray[Any, Any]


@functools.cache
def world_of(metric: str, dtype: str) -> World:
    return make_world(metric, dtype, rows=400, columns=41)


def found(kind: Any, index: Any, queries: Array, k: int = K, **options: Any) -> ann.SearchResult:
    hits = index.search(kind.to_device(queries), k, **options)
    return ann.SearchResult(*map(kind.to_host, (hits.ids, hits.distances, hits.counts)))


@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_queries_of_int8(kind: Any, metric: str, dtype: str) -> None:
    world = world_of(metric, dtype)
    index = world.index.to("cuda")
    queries = as_dtype(world.queries, "int8") if dtype == "float32" else world.queries
    queries = queries.astype(np.int8)
    for exact in (False, True):
        hits = found(kind, index, queries, exact=exact)
        check(hits, world.table, queries.astype(np.float32), K, None, exact=True)
    # Columns apart, and one query.
    wide = np.zeros((len(queries), 2 * queries.shape[1]), np.int8)
    wide[:, ::2] = queries
    apart = index.search(kind.to_device(wide)[:, ::2], K) if not kind.emulated else hits
    np.testing.assert_array_equal(
        kind.to_host(apart.ids) if not kind.emulated else hits.ids, hits.ids
    )
    alone = found(kind, index, queries[0])
    np.testing.assert_array_equal(alone.ids[0], hits.ids[0])


def test_the_cpu_takes_the_same_dtypes(kind: Any) -> None:
    world = world_of("l2", "float32")
    index = world.index.to("cuda")
    for dtype in ("uint8", "int16", "int32", "int64", "bool"):
        queries = np.ones((2, 41), dtype)
        with pytest.raises(TypeError, match=rf"'queries' must be float32, .* or int8; got {dtype}"):
            world.index.search(queries)
        with pytest.raises(TypeError, match=rf"'queries' must be float16, .* or int8; got {dtype}"):
            index.search(kind.to_device(queries))


def test_no_query(kind: Any) -> None:
    world = world_of("l2", "float32")
    index = world.index.to("cuda")
    for shape in ((0,), (0, 41)):
        queries = np.ones(shape, np.float32)
        hits = found(kind, index, queries, 4)
        assert hits.ids.shape == world.index.search(queries, 4).ids.shape == (0, 4)
    assert index.explain_batch(kind.to_device(np.ones((0, 41), np.float32))) == []
    assert world.ids[0] in index and world.ids.max() + 1 not in index and "0" not in index


def test_efforts_are_pools(kind: Any) -> None:
    assert by_effort(1, 10) == (64, (11, 11, 11, 11))
    assert by_effort(65, 10) == (128, (66, 66, 66, NEVER))
    assert by_effort(10, 400) == (512, (401, NEVER, NEVER, NEVER))
    assert by_effort(513, 10) == SCAN


@pytest.mark.parametrize("effort", [1, 100, 400, 1000])
def test_efforts(kind: Any, monkeypatch: pytest.MonkeyPatch, effort: int) -> None:
    if kind.emulated:
        monkeypatch.setattr(_on_device, "_SAMPLE", 3)
        monkeypatch.setattr(_device_costs, "_REPEATS", 1)
    world = built_world()
    index = world.index.to("cuda")
    queries = kind.to_device(world.queries)
    for passing in (2300, 1500, 5):  # of 2300
        where = expression(("<", "rank", passing))
        hits = found(kind, index, world.queries, effort=effort, where=where)
        recalls = check(hits, world.table, world.queries, K, ("<", "rank", passing))
        assert np.mean(recalls) >= (0.95 if passing > 5 else 1.0)
        for told in index.explain_batch(queries, effort=effort, where=where):
            # A pool of 512 is the widest, and twice as wide where fewer pass than nine tenths.
            walks = passing > max(K, effort) and effort * (2 if passing < 2000 else 1) <= 512
            assert (told["pool"] >= effort) == walks == (told["plan"] == "graph")
    with pytest.raises(ValueError, match=r"^ann\.DeviceIndex\.search: 'effort' must be"):
        index.search(queries, effort=0)


@functools.cache
def built_world() -> World:
    return make_world(rows=2300, columns=24, queries=4)


def test_the_device_that_the_library_works_on(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kind.emulated:
        pytest.skip("one device is enough for the others")
    index = ann.Index(4)
    monkeypatch.setattr(EmulatedLibrary, "current", lambda *_: 7)
    with pytest.raises(ValueError, match=r"^ann\.Index\.to: 'device' must be .*; got 'cuda:7'"):
        index.to("cuda")
    assert index.to("cuda:0").device == "cuda:0"
    with pytest.raises(ValueError, match=r"^ann\.DeviceIndex\.to: 'device' must be .*'gpu'"):
        index.to("cuda:0").to("gpu")
    with pytest.raises(ValueError, match=r"got 'cuda:7'"):
        index.to("cuda:0").to("cuda")


@pytest.mark.parametrize("queries", [1, 2, TILE - 1, TILE, TILE + 1, 3 * TILE + 7])
def test_tiles_have_queries_of_one_filter(queries: int) -> None:
    source = np.random.default_rng(queries)
    for filters in (1, 2, 5, 2000):
        which = np.sort(source.integers(-1, filters, queries)).astype(np.int32)
        firsts, before = [], -2
        for at, own in enumerate(which):
            if own != before or at - firsts[-1] == TILE:
                firsts.append(at)
            before = own
        found = _tiles_of(which)
        assert found.dtype == np.int32
        assert found.tolist() == [*firsts, queries]
