# SPDX-License-Identifier: Apache-2.0
"""Adding, replacing, deleting and reading rows; what masks and Filters mean after changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embedcore import ann
from oracle.ann import Table
from support.ann import as_dtype, check, clustered, early_builds, expression, make_world, same
from support.kinds import KINDS, dtype_of, to_torch

ROWS = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)


def test_ids_count_on_from_the_largest_there_was() -> None:
    index = ann.Index(5)
    assert index.add(ROWS[:3]).tolist() == [0, 1, 2]
    assert index.add(ROWS[0]).tolist() == [3]  # one row without its axis
    assert index.add(ROWS[:2], ids=[100, 50]).tolist() == [100, 50]
    assert index.add(ROWS[:1]).tolist() == [101]
    index.delete(101)
    assert index.add(ROWS[:1]).tolist() == [102]
    assert index.add(ROWS[:0]).tolist() == []
    assert index.add(ROWS[:1], ids=[101]).tolist() == [101]  # it is free again
    assert index.ids.tolist() == [0, 1, 2, 3, 100, 50, 102, 101]
    assert index.ids.dtype == np.int64 and not index.ids.flags.writeable
    assert 50 in index and 101 in index and 51 not in index and -1 not in index and "a" not in index
    largest = 2**63 - 2
    assert index.add(ROWS[:1], ids=[largest]).tolist() == [largest]
    assert index.search(ROWS[:1], k=20, where=[largest]).ids[0, 0] == largest
    with pytest.raises(ValueError, match=r"^ann.Index.add: 'ids' "):
        index.add(ROWS[:2])  # there is none left


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_of_every_kind(kind: str, metric: str) -> None:
    rows = clustered(np.random.default_rng(1), 60, 24).astype(np.float32)
    index, table = ann.Index(24, metric=metric), Table(metric)
    assert index.add(KINDS[kind](rows)).tolist() == table.add(rows)
    queries = rows[:4] + np.float32(0.01)
    same(index.search(KINDS[kind](queries)), index.search(queries))
    check(index.search(KINDS[kind](queries), exact=True), table, queries, 10, exact=True)
    for threads in (1, 3):
        same(index.search(queries, threads=threads), index.search(queries))


def test_the_dtype_is_that_of_the_first_rows(dtype: str) -> None:
    index = ann.Index(5)
    assert index.dtype is None
    index.add(as_dtype(ROWS, dtype))
    assert index.dtype == dtype
    assert ann.Index(5, dtype="float16").dtype == "float16"
    double = ann.Index(5)
    double.add(ROWS.astype(np.float64))
    assert double.dtype == "float32"


@pytest.mark.parametrize("kept", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("given", ["float64", "float32", "float16", "bfloat16", "torch bfloat16"])
def test_rows_are_rounded_to_the_dtype_of_the_index(kept: str, given: str) -> None:
    torch_bfloat = given == "torch bfloat16"
    rows = ROWS.astype(dtype_of("bfloat16" if torch_bfloat else given))
    index = ann.Index(5, dtype=kept)
    index.add(to_torch(rows) if torch_bfloat else rows)
    wanted = rows.astype(dtype_of(kept))
    vectors = index.get(index.ids)[0]
    assert vectors.dtype == wanted.dtype
    assert np.array_equal(vectors.astype(np.float64), wanted.astype(np.float64))


def test_what_was_added_is_got() -> None:
    day = np.datetime64("2024-02-29T12:30", "ns")
    columns = {
        "n": [1, None, 3],
        "whole": [4, 5, 6],
        "x": [0.5, float("nan"), 2.0],
        "kind": ["b", None, "a"],
        "ok": [True, None, False],
        "tags": [["x", "y"], [], None],
        "levels": [[3, 1, 3], None, [2]],
        "day": [day, np.datetime64("NaT"), day + 1],
    }
    index = ann.Index(5)
    index.add(ROWS[:3], ids=[7, 8, 9], attributes=columns)
    vectors, got = index.get([9, 7, 8, 9])
    assert np.array_equal(vectors, ROWS[[2, 0, 1, 2]])
    order = [2, 0, 1, 2]
    for name in ("n", "kind", "ok"):
        assert list(got[name]) == [columns[name][i] for i in order]
    assert got["whole"].tolist() == [6, 4, 5, 6]
    np.testing.assert_array_equal(got["x"], [2.0, 0.5, np.nan, 2.0])
    np.testing.assert_array_equal(got["day"], np.array(columns["day"])[order])
    assert [v and sorted(v) for v in got["tags"]] == [None, ["x", "y"], [], None]
    assert [v and sorted(v) for v in got["levels"]] == [[2], [1, 3], None, [2]]
    copy = ann.Index(5)
    copy.add(*index.get([7, 8, 9])[:1], ids=[7, 8, 9], attributes=index.get([7, 8, 9])[1])
    for name in columns:
        where = ann.field(name).is_null()
        assert copy.count(where) == index.count(where)
    assert index.get([])[0].shape == (0, 5)
    assert index.get(8)[0].shape == (1, 5)


def test_attributes_change_and_vectors_stay() -> None:
    world = make_world(rows=2100, columns=24)
    before = world.index.search(world.queries)
    ids = np.sort(world.ids)[:500]
    columns = {"kind": ["new"] * 500, "year": [None] * 500, "extra": list(range(500))}
    world.index.update_attributes(ids, columns)
    world.table.update_attributes(ids.tolist(), columns)
    same(world.index.search(world.queries), before)
    for tree in (
        ("==", "kind", "new"),
        ("is_null", "year"),
        ("<", "extra", 40),
        ("!=", "kind", "a"),
    ):
        assert world.index.count(expression(tree)) == world.table.count(tree)
        hits = world.index.search(world.queries, where=expression(tree), exact=True)
        check(hits, world.table, world.queries, 10, tree, exact=True)
    world.index.update_attributes(ids[:1], {"kind": [None]})
    assert world.index.count(ann.field("kind") == "new") == 499


def test_masks_follow_the_order_of_adding() -> None:
    with early_builds():
        world = make_world(rows=400, columns=24)
        world.index.compact()
        gone = world.ids[::7]
        world.index.delete(gone)
        world.table.delete(gone.tolist())
        kept = [key for key in world.ids.tolist() if key in world.table.rows]
        again = np.array(kept[::5])
        rows = np.stack([world.table.vectors[key] for key in again.tolist()]) + 1
        columns = {"rank": list(range(len(again)))}
        world.index.upsert(rows, again, columns)
        world.table.upsert(rows, again.tolist(), columns)
        assert world.index.ids.tolist() == kept  # a replaced row keeps its place
        for compacted in (False, True):
            if compacted:
                world.index.compact()
            mask = np.array([world.table.rows[key]["rank"] < 40 for key in kept])
            where = ("<", "rank", 40)
            for exact in (True, False):
                hits = world.index.search(world.queries, where=mask, exact=exact)
                check(hits, world.table, world.queries, 10, where, exact=exact)
            assert world.index.count(mask) == mask.sum() == world.index.count(expression(where))


def test_filters_follow_the_index() -> None:
    index = ann.Index(5)
    index.add(ROWS, attributes={"n": range_list(12)})
    small = index.compile(ann.field("n") < 4)
    named = index.compile([1, 2, 30])
    masked = index.compile(np.arange(12) < 2)
    assert [len(f) for f in (small, named, masked)] == [4, 2, 2] and small.count == 4
    index.add(ROWS[:2], attributes={"n": [0, 9]})
    index.delete([1])
    index.update_attributes([2], {"n": [100]})
    assert small.ids.tolist() == [0, 3, 12] and named.ids.tolist() == [2]
    assert masked.ids.tolist() == [0]
    hits = index.search(ROWS[:2], where=small)
    assert sorted(hits.ids[0, :3].tolist()) == [0, 3, 12] and hits.counts.tolist() == [3, 3]
    assert bool(index.compile(ann.field("n") < 0)) and "n" in repr(small)


def range_list(stop: int) -> list[int]:
    return list(range(stop))


def test_deleting() -> None:
    index = ann.Index(5)
    index.add(ROWS, attributes={"n": range_list(12)})
    assert index.delete(3) == 1
    assert index.delete([]) == 0
    assert index.delete(np.array([4, 5])) == 2
    assert index.delete([5, 6, 6, 77], missing="ignore") == 1
    assert index.delete(np.full((1, 3), -1).ravel(), missing="ignore") == 0  # as results are padded
    assert index.delete(np.array([2**64 - 1], np.uint64), missing="ignore") == 0
    with pytest.raises(ValueError, match="'missing' must be one of 'raise', 'ignore'"):
        index.delete([1], missing="skip")
    assert index.ids.tolist() == [0, 1, 2, 7, 8, 9, 10, 11]
    assert set(index.search(ROWS, k=12).ids.ravel()) == {*index.ids.tolist(), -1}
    index.delete(index.ids)
    assert len(index) == 0 and index.count() == 0 and bool(index)
    assert index.search(ROWS[:2]).ids.tolist() == [[-1] * 10] * 2
    index.compact()
    assert index.add(ROWS[:1]).tolist() == [12]
    assert index.search(ROWS[:1]).counts.tolist() == [1]


def test_an_empty_index() -> None:
    index = ann.Index(5)
    for _ in range(2):
        for where in (None, np.empty(0, bool), np.empty(0, np.int64), [None, None], [3, 4]):
            for exact in (True, False):
                hits = index.search(ROWS[:2], k=3, where=where, exact=exact)
                assert hits.ids.tolist() == [[-1] * 3] * 2 and np.isposinf(hits.distances).all()
                assert hits.counts.tolist() == [0, 0]
        assert len(index) == index.count() == 0 and index.ids.tolist() == []
        index.compact()
    none = index.search(np.empty((0, 5), np.float32))
    assert none.ids.shape == none.distances.shape == (0, 10) and none.counts.shape == (0,)


@pytest.mark.parametrize("columns", [*range(1, 10), 15, 16, 17, 48, 49, 63, 64, 65, 129, 769])
def test_every_width(columns: int, metric: str) -> None:
    rng = np.random.default_rng(columns)
    rows = (clustered(rng, 330, columns) + 0.5).astype(np.float32)
    index, table = ann.Index(columns, metric=metric), Table(metric)
    with early_builds():
        for target in (index, table):
            target.add(rows[:320], attributes={"n": list(range(320))})
    queries = rows[320:]
    for tree in (None, ("<", "n", 40)):
        where = None if tree is None else expression(tree)
        hits = index.search(queries, k=5, where=where, exact=True)
        check(hits, table, queries, 5, tree, exact=True)
        recalls = check(index.search(queries, k=5, where=where), table, queries, 5, tree)
        assert np.mean(recalls) >= 0.8


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e6, 1e13])
def test_tiny_and_huge_rows(scale: float, metric: str) -> None:
    if metric != "cosine" and scale < 1e-15:  # squares and products must fit float32
        scale = 1e-15
    rows = (clustered(np.random.default_rng(2), 2100, 24) * scale).astype(np.float32)
    index, table = ann.Index(24, metric=metric), Table(metric)
    index.add(rows), table.add(rows)
    hits: Any = index.search(rows[:3] * np.float32(1.01), k=5, exact=True)
    check(hits, table, rows[:3] * np.float32(1.01), 5, exact=True)
    recalls = check(index.search(rows[:3], k=5), table, rows[:3], 5)
    assert np.mean(recalls) >= 0.9


def test_rows_wait_to_be_linked_as_long_as_they_are_few() -> None:
    """As docs/ann.md says: until 512 rows, or 1/128 of those that are linked."""
    rows = np.random.default_rng(0).standard_normal((3200, 16)).astype(np.float32)
    index = ann.Index(16)
    index.add(rows[:2500])
    for more, waiting in ((500, 500), (12, 512), (1, 0), (20, 20)):
        index.add(rows[len(index) : len(index) + more])
        assert index._state.tail == waiting
        assert (index.search(rows[: len(index)][-5:], k=1).distances < 1e-6).all()
