# SPDX-License-Identifier: Apache-2.0
"""Searches on a device in time: what waits for nothing, streams, threads, and CUDA graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from embedcore import ann
from support.ann import check, expression
from support.ann_device import K, Walks, built_world, first
from support.emulated import EmulatedLibrary

WAYS = ("scans", "exact", "walks")
FILTERS = ("none", "mask there", "ids there")

pytestmark = pytest.mark.usefixtures("quick_costs")


@contextlib.contextmanager
def nothing_waits(kind: Any) -> Iterator[None]:
    """Let nothing be sent to the device or fetched from it, which would wait."""
    if kind.name == "cupy":
        pytest.skip("CuPy does not tell what waits")
    with contextlib.ExitStack() as stack:
        if kind.emulated:
            patch = stack.enter_context(pytest.MonkeyPatch.context())

            def refused(*_: object) -> None:
                raise AssertionError("this waits")

            for name in ("from_host", "to_host", "copy_to_host"):
                patch.setattr(EmulatedLibrary, name, refused)
        else:
            import torch

            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
            stack.callback(torch.cuda.set_sync_debug_mode, "default")
        yield


def index_for(way: str) -> Any:
    """Return an index on the device whose searches go one way, or by its costs where exact."""
    index = built_world("cosine").index.to("cuda")
    index._costs = Walks() if way == "walks" else None
    return index


def filter_of(kind: Any, name: str, count: int = 1100) -> tuple[Any, Any]:
    """Return what passes as the oracle says it, and as an array of the device."""
    if name == "none":
        return None, None
    tree, world = first(count), built_world("cosine")
    return tree, kind.to_device(world.form(name.removesuffix(" there"), tree))


def on_host(kind: Any, hits: Any) -> ann.SearchResult:
    return ann.SearchResult(*map(kind.to_host, (hits.ids, hits.distances, hits.counts)))


@pytest.mark.parametrize("form", FILTERS)
@pytest.mark.parametrize("way", WAYS)
def test_searches_wait_for_nothing(kind: Any, way: str, form: str) -> None:
    world, index = built_world("cosine"), index_for(way)
    tree, where = filter_of(kind, form)
    queries = kind.to_device(world.queries)
    options = {"where": where, "exact": way == "exact"}
    index.search(queries, K, **options)  # loads the kernels
    with nothing_waits(kind):
        hits = index.search(queries, K, **options)
    recalls = check(on_host(kind, hits), world.table, world.queries, K, tree)
    assert np.mean(recalls) >= (0.95 if way == "walks" else 1.0)


def test_what_has_to_be_sent_is_noticed(kind: Any) -> None:
    """Without which the test before this one would say nothing."""
    if not kind.emulated:
        pytest.skip("what is sent need not be waited for")
    world, index = built_world("cosine"), index_for("scans")
    queries = kind.to_device(world.queries)
    wheres = [world.form("mask", first(9)), expression(first(9)), [None] * len(world.queries)]
    wheres[2][0] = expression(first(9))
    for where in wheres:
        with nothing_waits(kind), pytest.raises(AssertionError, match="this waits"):
            index.search(queries, K, where=where)


def _torch_of(kind: Any) -> Any:
    if kind.name != "torch":
        pytest.skip("needs streams of Torch")
    import torch

    return torch


@pytest.mark.parametrize("form", FILTERS)
@pytest.mark.parametrize("way", WAYS)
def test_searches_are_captured_in_a_graph(kind: Any, way: str, form: str) -> None:
    torch, world, index = _torch_of(kind), built_world("cosine"), index_for(way)
    _, where = filter_of(kind, form)
    queries = kind.to_device(world.queries)

    def run() -> Any:
        return index.search(queries, K, where=where, exact=way == "exact")

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()  # loads the kernels
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        hits = run()

    def replays_are_calls() -> None:
        for part in (hits.ids, hits.distances, hits.counts):
            part.zero_()
        graph.replay()
        expected = run()
        for name in ("ids", "distances", "counts"):
            assert torch.equal(getattr(hits, name), getattr(expected, name)), name

    replays_are_calls()
    queries.copy_(queries.flip(0))  # other queries, and another filter, where they lay
    if form == "mask there":
        where.logical_not_()
    elif form == "ids there":
        where.copy_(where.flip(0))
        where[:500] = where[500]
    replays_are_calls()


@pytest.mark.parametrize("form", FILTERS)
@pytest.mark.parametrize("way", WAYS)
def test_searches_are_captured_in_a_graph_of_cupy(kind: Any, way: str, form: str) -> None:
    if kind.name != "cupy":
        pytest.skip("needs streams of CuPy")
    import cupy

    world, index = built_world("cosine"), index_for(way)
    _, where = filter_of(kind, form)
    queries = kind.to_device(world.queries)

    def run() -> Any:
        return index.search(queries, K, where=where, exact=way == "exact")

    stream = cupy.cuda.Stream(non_blocking=True)
    pool = cupy.cuda.MemoryPool()  # CuPy's own would hand the memory of the graph to others
    cupy.cuda.Device().synchronize()  # queries and filter are there
    with stream:
        run()  # loads the kernels
        with cupy.cuda.using_allocator(pool.malloc):
            stream.begin_capture()
            hits = run()
            graph = stream.end_capture()

    def replays_are_calls() -> None:
        with stream:
            for part in (hits.ids, hits.distances, hits.counts):
                part.fill(0)
            graph.launch()
            expected = run()
        stream.synchronize()
        for name in ("ids", "distances", "counts"):
            assert bool((getattr(hits, name) == getattr(expected, name)).all()), name

    replays_are_calls()
    queries[...] = queries[::-1].copy()  # other queries, and another filter, where they lay
    if form == "mask there":
        where[...] = cupy.logical_not(where)
    elif form == "ids there":
        where[...] = where[::-1].copy()
        where[:500] = where[500].copy()
    cupy.cuda.Device().synchronize()
    replays_are_calls()


@pytest.mark.parametrize("way", WAYS)
def test_searches_run_on_the_current_stream(kind: Any, way: str) -> None:
    torch, world, index = _torch_of(kind), built_world("cosine"), index_for(way)
    _, where = filter_of(kind, "mask there")
    queries, exact = kind.to_device(world.queries), way == "exact"
    expected = index.search(queries, K, where=where, exact=exact)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late = torch.zeros_like(queries).copy_(queries)  # not there before the sleep is over
        late_where = torch.zeros_like(where).copy_(where)
        hits = index.search(late, K, where=late_where, exact=exact)
    stream.synchronize()
    assert torch.equal(hits.ids, expected.ids)
    assert torch.equal(hits.distances, expected.distances)


@pytest.mark.parametrize("way", WAYS)
def test_searches_on_many_streams_and_threads(kind: Any, way: str) -> None:
    torch, world, index = _torch_of(kind), built_world("cosine"), index_for(way)
    wheres = [filter_of(kind, "mask there", count)[1] for count in (2200, 1100, 700, 40)]
    queries, exact = kind.to_device(world.queries), way == "exact"
    expected = [index.search(queries, K, where=where, exact=exact) for where in wheres]
    torch.cuda.synchronize()

    def run(number: int) -> Any:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            found = [index.search(queries, K, where=wheres[number], exact=exact) for _ in range(5)]
        stream.synchronize()
        return found

    with ThreadPoolExecutor(len(wheres)) as pool:
        for found, right in zip(pool.map(run, range(len(wheres))), expected, strict=True):
            for hits in found:
                assert torch.equal(hits.ids, right.ids)
                assert torch.equal(hits.distances, right.distances)
