# SPDX-License-Identifier: Apache-2.0
"""Filters of searches on a device: every form, one for each query, where nothing can pass."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from embedcore import ann
from embedcore.ann import _on_device
from support.ann import FORMS, check, expression, make_world
from support.ann_device import ROWS, K, first, found, world_of
from support.emulated import EmulatedLibrary


@pytest.mark.parametrize("form", (*FORMS, "none", "mask there", "ids there"))
def test_every_form(kind: Any, form: str) -> None:
    world = world_of()
    index = world.index.to("cuda")
    for tree in (first(0), first(1), first(300), ("isin", "kind", ["a", "rare"])):
        where = world.form(form.removesuffix(" there"), tree)
        if form.endswith("there"):
            where = kind.to_device(where)
        assert index.count(where) == (ROWS if form == "none" else len(world.table.passing(tree)))
        hits = found(kind, index, world.queries, where=where)
        passing = None if form == "none" else tree
        check(hits, world.table, world.queries, K, passing, exact=True)


TREES = (
    ("==", "year", 2001),
    ("!=", "year", 2001),
    ("between", "score", -0.5, 0.25),
    ("isin", "year", [1999, 2003, 2004, 2020]),
    ("isin", "kind", ["a", "nothing", "rare"]),
    ("isin", "kind", ["nothing"]),
    ("==", "draft", True),
    ("is_null", "draft"),
    ("not", ("is_null", "topics")),
    ("contains", "topics", "nlp"),
    ("contains_any", "topics", ["law", "war"]),
    ("contains_all", "topics", ["law", "war"]),
    (">=", "day", np.datetime64("2021-06-01")),
    ("not", ("or", ("<", "score", 0.0), ("and", ("==", "kind", "b"), ("is_null", "year")))),
    ("or", ("==", "kind", "c"), ("and", ("contains", "topics", "art"), ("<", "rank", 500))),
)


@pytest.mark.parametrize("tree", TREES, ids=str)
def test_filters_are_those_of_the_cpu(kind: Any, tree: Any) -> None:
    world = world_of()
    index = world.index.to("cuda")
    where = expression(tree)
    assert index.count(where) == world.index.count(where) == len(world.table.passing(tree))
    hits = found(kind, index, world.queries[:2], 200, where=where)
    check(hits, world.table, world.queries[:2], 200, tree, exact=True)


def deep(levels: int, leaf: Any) -> Any:
    """A filter that is true where `leaf` is, nested to the side on which stacks grow."""
    tree = leaf
    for level in range(levels):
        other = first(ROWS) if level % 2 else first(0)
        tree = (("and" if level % 2 else "or"), other, tree)
    return tree


def test_deep_and_wide_filters(kind: Any) -> None:
    world = world_of()
    index = world.index.to("cuda")
    assert index.count(expression(deep(180, first(77)))) == 77
    wide = expression(("or", *(("==", "rank", 2 * i) for i in range(150))))
    assert index.count(wide & ~expression(first(100))) == 100


def test_a_filter_for_each_query(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of()
    index = world.index.to("cuda")
    trees = [None, first(0), first(5), first(30), first(400), ("==", "kind", "rare"), first(30)]
    trees = (trees * 2)[: len(world.queries)]
    for forms in (FORMS * 2, ("expression",) * 8, ("mask",) * 8):
        wheres = [world.form(form, tree) for form, tree in zip(forms, trees, strict=True)]
        for at_once in (1 << 28, 2 * 4 * ROWS):  # bytes of lists, so that filters take turns
            monkeypatch.setattr(_on_device, "_LIST_BYTES", at_once)
            hits = found(kind, index, world.queries, where=wheres, exact=True)
            check(hits, world.table, world.queries, K, trees, exact=True)


def test_filters_that_take_turns_share_scratch(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kind.emulated:
        pytest.skip("what libraries have handed out is theirs to know")
    world = world_of()
    index = world.index.to("cuda")
    monkeypatch.setattr(_on_device, "_LIST_BYTES", 4 * ROWS)  # one filter at a time
    empty, live, most = EmulatedLibrary.empty, 0, 0

    def counted(library: EmulatedLibrary, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        nonlocal live, most
        array = empty(library, shape, dtype, device)
        live += array.memory.nbytes
        most = max(most, live)
        weakref.finalize(array, give_back, array.memory.nbytes)
        return array

    def give_back(size: int) -> None:
        nonlocal live
        live -= size

    monkeypatch.setattr(EmulatedLibrary, "empty", counted)
    peaks = []
    for count in (2, 8):
        most = live
        before = live
        wheres = [expression(first(300 + i)) for i in range(count)]
        found(kind, index, world.queries[:count], where=wheres)
        gc.collect()
        peaks.append(most - before)
    # Six filters have their bits, and six queries their results.
    assert peaks[1] - peaks[0] <= 6 * (4 * index._rows.words + 12 * K + 8)


def test_many_queries_of_few_filters(kind: Any) -> None:
    world = world_of("l2")
    index = world.index.to("cuda")
    queries = np.random.default_rng(1).standard_normal((300, world.queries.shape[1]))
    queries = queries.astype(np.float32)
    hits = found(kind, index, queries, 3)
    check(hits, world.table, queries, 3, None, exact=True)
    trees = [(first(200), ("==", "kind", "a"))[i % 7 == 0] for i in range(300)]
    hits = found(kind, index, queries, 3, where=list(map(expression, trees)))
    check(hits, world.table, queries, 3, trees, exact=True)


@pytest.mark.parametrize(("passing", "filters"), [(5, 7), (600, 7), (5, 140), (600, 140)])
def test_filters_that_differ(kind: Any, passing: int, filters: int) -> None:
    """Where there is less to compare so, all rows are, with all queries, and their bits asked."""
    world = make_world("l2", rows=ROWS, columns=24, queries=140)
    index = world.index.to("cuda")
    trees: list[Any] = [("between", "rank", i % filters, i % filters + passing) for i in range(140)]
    trees[5], trees[6] = None, ("<", "rank", 0)
    wheres = [None if tree is None else expression(tree) for tree in trees]
    for exact in (True, False):
        hits = found(kind, index, world.queries, where=wheres, exact=exact)
        check(hits, world.table, world.queries, K, trees, exact=True)


@pytest.mark.parametrize("what", ["no rows", "rows deleted", "no queries"])
def test_filters_where_nothing_can_pass(kind: Any, what: str) -> None:
    """They need a form, as on the CPU, and no columns."""
    index, queries = ann.Index(8), np.ones((2, 8), np.float32)
    if what != "no rows":
        index.add(np.eye(3, 8, dtype=np.float32))
    if what == "rows deleted":
        index.delete(index.ids)
    if what == "no queries":
        queries = queries[:0]
    there, count, live = index.to("cuda"), len(queries), len(index)
    year = ann.field("year") > 2000
    good = [None, year, [year] * count, index.compile([1, 2]), [1, 2], np.ones(live, np.bool_)]
    for where in [*good, kind.to_device(np.ones(live, np.bool_))]:
        hits = found(kind, there, queries, 4, where=where)
        assert hits.ids.shape == (count, 4) and (hits.ids == -1).all()
        assert (hits.counts == 0).all() and np.isposinf(hits.distances).all()
    for where in good:
        assert (index.search(queries, 4, where=where).counts == 0).all()
    for where in ("year", [year] * 3, np.ones(live + 1, np.bool_), ann.Index(8).compile([1])):
        with pytest.raises((TypeError, ValueError)) as expected:
            index.search(queries, 4, where=where)
        with pytest.raises(expected.type, match=r"^ann\.DeviceIndex\.search: 'where' "):
            found(kind, there, queries, 4, where=where)
