# SPDX-License-Identifier: Apache-2.0
"""Filters that are compiled on a device, and what it costs to count and to send others."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from embedcore import ann
from embedcore.ann import _on_device
from support.ann import World, check, expression, make_world
from support.emulated import EmulatedLibrary

K = 10
ROWS = 700

Array = np.ndarray[Any, Any]


@functools.cache
def world_of() -> World:
    return make_world("l2", rows=ROWS, columns=24, queries=6)


def first(count: int) -> tuple[Any, ...]:
    return ("<", "rank", count)


def found(kind: Any, index: Any, queries: Array, **options: Any) -> ann.SearchResult:
    hits = index.search(kind.to_device(queries), K, **options)
    return ann.SearchResult(*map(kind.to_host, (hits.ids, hits.distances, hits.counts)))


class Sent:
    """What goes from the host to the emulated device."""

    def __init__(self) -> None:
        self.copies, self.waited, self.fetched, self.made = 0, 0, 0, 0

    def __enter__(self) -> Sent:
        self.copies = self.waited = self.fetched = self.made = 0
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def sent(kind: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sent]:
    """Count copies of the emulated library: staged ones, those it waits for, and those back."""
    if not kind.emulated:
        pytest.skip("counts what the emulated library does")
    seen = Sent()
    staged, from_host = EmulatedLibrary.staged, EmulatedLibrary.from_host
    to_host, empty = EmulatedLibrary.to_host, EmulatedLibrary.empty

    def count_staged(library: EmulatedLibrary, array: Array, device: int) -> Any:
        seen.copies += 1
        before = seen.waited
        copy = staged(library, array, device)
        seen.waited = before
        return copy

    def count_waited(library: EmulatedLibrary, array: Array, device: int) -> Any:
        seen.waited += 1
        return from_host(library, array, device)

    def count_fetched(library: EmulatedLibrary, array: Any) -> Array:
        seen.fetched += 1
        return to_host(library, array)

    def count_made(library: EmulatedLibrary, shape: Any, dtype: str, device: int) -> Any:
        array = empty(library, shape, dtype, device)
        seen.made += array.memory.nbytes
        return array

    monkeypatch.setattr(EmulatedLibrary, "staged", count_staged)
    monkeypatch.setattr(EmulatedLibrary, "from_host", count_waited)
    monkeypatch.setattr(EmulatedLibrary, "to_host", count_fetched)
    monkeypatch.setattr(EmulatedLibrary, "empty", count_made)
    yield seen


@pytest.mark.parametrize("form", ["expression", "mask", "ids", "filter", "mask there", "ids there"])
@pytest.mark.parametrize("count", [0, 1, 300, ROWS])
def test_compiled_filters_of_every_form(kind: Any, form: str, count: int) -> None:
    world = world_of()
    index = world.index.to("cuda")
    where = world.form(form.removesuffix(" there"), first(count))
    if form.endswith("there"):
        where = kind.to_device(where)
    compiled = index.compile(where)
    assert compiled.count == len(compiled) == index.count(compiled) == count
    assert compiled
    np.testing.assert_array_equal(compiled.ids, world.index.compile(expression(first(count))).ids)
    for exact in (False, True):
        for _ in range(2):
            hits = found(kind, index, world.queries, where=compiled, exact=exact)
            check(hits, world.table, world.queries, K, first(count), exact=True)
    assert index.compile(compiled) is compiled


def test_compiled_filters_have_words_for_themselves(kind: Any) -> None:
    index = world_of().index.to("cuda")
    compiled = index.compile(expression(first(5)))
    assert repr(compiled) == f"DeviceFilter({expression(first(5))!r}, rows=5)"
    assert repr(index.compile(compiled.ids[:3])) == "DeviceFilter(ids, rows=3)"


def test_compiled_filters_of_deleted_rows(kind: Any) -> None:
    world = make_world("l2", rows=300, columns=16, queries=3)
    world.index.delete(world.ids[::3])
    # Which gets a later slot, and keeps its place.
    world.index.upsert(world.queries[:1], world.ids[1:2], {"rank": [0]})
    index = world.index.to("cuda")
    compiled = index.compile(~expression(("is_null", "rank")))
    assert compiled.count == 200 and set(compiled.ids) == set(index.ids)
    compiled = index.compile(world.ids)
    np.testing.assert_array_equal(compiled.ids, index.ids)


def test_lists_of_compiled_and_other_filters(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of()
    index = world.index.to("cuda")
    trees = [first(300), None, first(40), first(300), ("==", "kind", "a"), first(0)]
    compiled = {tree: index.compile(expression(tree)) for tree in trees if tree is not None}
    alone = [None if tree is None else compiled[tree] for tree in trees]
    mixed = list(alone)
    mixed[2], mixed[4] = world.form("ids", trees[2]), expression(trees[4])
    one = [compiled[trees[0]] if tree == trees[0] else None for tree in trees]
    for at_once in (1 << 28, 4 * ROWS):  # bytes of lists, so that filters take turns
        monkeypatch.setattr(_on_device, "_LIST_BYTES", at_once)
        for wheres in (alone, mixed):
            hits = found(kind, index, world.queries, where=wheres, exact=True)
            check(hits, world.table, world.queries, K, trees, exact=True)
        hits = found(kind, index, world.queries, where=one)
        own = [tree if tree == trees[0] else None for tree in trees]
        check(hits, world.table, world.queries, K, own, exact=True)


def test_searches_by_compiled_filters_send_nothing(kind: Any, sent: Sent) -> None:
    world = world_of()
    index = world.index.to("cuda")
    queries = kind.to_device(world.queries)
    compiled = index.compile(expression(first(50)))
    with sent:
        index.search(queries, K, where=compiled)
        index.search(queries, K)
        assert index.count(compiled) == 50
        assert (sent.copies, sent.waited, sent.fetched) == (0, 0, 0)
    with sent:
        index.search(queries, K, where=kind.to_device(world.mask(first(50))))
        assert (sent.copies, sent.waited, sent.fetched) == (0, 0, 0)


def test_a_list_of_filters_is_two_copies(kind: Any, sent: Sent, monkeypatch: Any) -> None:
    """One of what the expressions are, one of who has which; none is waited for."""
    world = world_of()
    index = world.index.to("cuda")
    queries = kind.to_device(world.queries)
    wheres = [expression(first(100 + i)) for i in range(6)]
    for at_once in (1 << 28, 4 * ROWS):
        monkeypatch.setattr(_on_device, "_LIST_BYTES", at_once)
        with sent:
            index.search(queries, K, where=wheres)
            assert (sent.copies, sent.waited, sent.fetched) == (2, 0, 0)
    with sent:
        index.search(queries, K, where=[index.compile(where) for where in wheres[:1]] * 6)
        assert (sent.copies, sent.waited) == (2, 0)  # the first to compile


def test_counts_list_no_slots(kind: Any, sent: Sent) -> None:
    world = world_of()
    index = world.index.to("cuda")
    with sent:
        assert index.count(expression(first(77))) == 77
        assert sent.made == 4 * index._rows.words + 8 + 8 * (index._rows.words // 256)


def test_captures_take_what_is_on_the_device(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kind.emulated:
        pytest.skip("test_graphs_search_by_compiled_filters captures graphs")
    world = world_of()
    index = world.index.to("cuda")
    queries = kind.to_device(world.queries)
    compiled = index.compile(expression(first(50)))
    mask = world.mask(first(50))
    monkeypatch.setattr(EmulatedLibrary, "is_capturing", lambda *_: True)
    for where in (None, compiled, kind.to_device(mask)):
        index.search(queries, K, where=where)
    words = r"^ann\.DeviceIndex\.search: what lies on the CPU cannot be sent while a CUDA graph"
    for where in (expression(first(50)), mask, [compiled] * len(world.queries)):
        with pytest.raises(RuntimeError, match=words):
            index.search(queries, K, where=where)


@pytest.mark.parametrize("copies", [2, 3])
def test_graphs_search_by_compiled_filters(kind: Any, copies: int) -> None:
    if kind.name != "torch":
        pytest.skip("needs Torch and a GPU")
    import torch

    world = world_of()
    index = world.index.to("cuda")
    compiled = index.compile(expression(first(50)))
    given = kind.to_device(world.queries)
    queries = torch.zeros_like(given)
    index.search(given, K, where=compiled)  # loads the kernels
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        hits = index.search(queries, K, where=compiled)
    for i in range(copies):
        queries.copy_(torch.roll(given, i, 0))
        graph.replay()
        expected = index.search(queries, K, where=compiled)
        assert torch.equal(hits.ids, expected.ids)


def test_filters_of_others_are_refused(kind: Any) -> None:
    world = world_of()
    index, other = world.index.to("cuda"), world.index.to("cuda")
    queries, compiled = kind.to_device(world.queries), other.compile(expression(first(5)))
    words = r"'where' must be a DeviceFilter of this DeviceIndex; got one of another\."
    for where in (compiled, [compiled] * len(world.queries)):
        with pytest.raises(ValueError, match=rf"^ann\.DeviceIndex\.search: {words}"):
            index.search(queries, where=where)
    with pytest.raises(ValueError, match=rf"^ann\.DeviceIndex\.count: {words}"):
        index.count(compiled)
    with pytest.raises(ValueError, match=rf"^ann\.DeviceIndex\.compile: {words}"):
        index.compile(compiled)
    with pytest.raises(TypeError, match=r"^ann\.Index\.search: 'where' must be an expression"):
        world.index.search(world.queries, where=compiled)


def test_what_is_no_filter_is_refused(kind: Any) -> None:
    index = world_of().index.to("cuda")
    where = r"^ann\.DeviceIndex\.compile: 'where' "
    for many in (None, [None, None]):
        with pytest.raises(TypeError, match=where + "must be one filter; got"):
            index.compile(many)
    with pytest.raises(TypeError, match=where + "must be an expression"):
        index.compile("kind")
    with pytest.raises(ValueError, match=where + "column 'yaer' is unknown"):
        index.compile(ann.field("yaer") > 1)
    with pytest.raises(ValueError, match=where + r"as a mask must have .* \(700\); got 2"):
        index.compile([True, False])


def test_indexes_without_rows(kind: Any) -> None:
    index = ann.Index(8).to("cuda")
    compiled = index.compile([1, 2])
    assert compiled.count == 0 and compiled.ids.shape == (0,)
    hits = found(kind, index, np.ones((2, 8), np.float32), where=compiled)
    assert (hits.counts == 0).all() and (hits.ids == -1).all()
