# SPDX-License-Identifier: Apache-2.0
"""Filtered search on a device: the contract of the CPU, for every metric, dtype and filter."""

from __future__ import annotations

import functools
import gc
import weakref
from typing import Any

import numpy as np
import pytest
from embedcore import ann
from embedcore.ann import _device_costs, _on_device
from embedcore.ann._device_costs import POOLS, Plan
from oracle.ann import distance_matrix
from support.ann import DTYPES, FORMS, World, check, expression, make_world
from support.emulated import EmulatedLibrary
from support.kinds import dtype_of

METRICS = ("cosine", "ip", "l2")
K = 10
ROWS = 700
# How many rows pass: none, one, around k, around the candidates that are kept, tiles, all.
PASSING = (0, 1, K - 1, K, K + 1, 33, 65, 129, 400, ROWS - 1, ROWS)

Array = np.ndarray[Any, Any]


@functools.cache
def world_of(metric: str = "cosine", dtype: str = "float32") -> World:
    return make_world(metric, dtype, rows=ROWS, columns=41)


def first(count: int) -> tuple[Any, ...]:
    return ("<", "rank", count)


def found(kind: Any, index: Any, queries: Array, k: int = K, **options: Any) -> ann.SearchResult:
    """Search on the device; return the result on the host."""
    hits = index.search(kind.to_device(queries), k, **options)
    return ann.SearchResult(*map(kind.to_host, (hits.ids, hits.distances, hits.counts)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_every_selectivity(kind: Any, metric: str, dtype: str) -> None:
    world = world_of(metric, dtype)
    index = world.index.to("cuda")
    for count in PASSING:
        for exact in (True, False):
            where = expression(first(count))
            hits = found(kind, index, world.queries, where=where, exact=exact)
            check(hits, world.table, world.queries, K, first(count), exact=True)


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


@pytest.mark.parametrize("k", [1, 2, 32, 33, 100, 699, 700, 701, 1024])
@pytest.mark.parametrize("metric", METRICS)
def test_every_k(kind: Any, metric: str, k: int) -> None:
    world = world_of(metric)
    index = world.index.to("cuda")
    for tree in (None, first(40)):
        where = None if tree is None else expression(tree)
        for exact in (True, False):
            hits = found(kind, index, world.queries[:2], k, where=where, exact=exact)
            check(hits, world.table, world.queries[:2], k, tree, exact=True)


@pytest.mark.parametrize("metric", METRICS)
def test_rows_that_bfloat16_cannot_tell_apart(kind: Any, metric: str) -> None:
    """Exact searches find the nearest of rows whose codes say nothing of their order."""
    rng = np.random.default_rng(3)
    far = rng.standard_normal((300, 24))
    centre = 3.0 * rng.standard_normal(24)
    near = centre + 1e-4 * rng.standard_normal((500, 24))
    rows = np.concatenate([far, near]).astype(np.float32)
    index = ann.Index(24, metric=metric)
    index.add(rows)
    queries = (centre + 1e-4 * rng.standard_normal((5, 24))).astype(np.float32)
    there = index.to("cuda")
    hits = found(kind, there, queries, exact=True)
    expected = index.search(queries, K, exact=True)
    # The CPU adds in float32 lanes; what is wrong by more than that would be another row.
    right = distance_matrix(queries, rows, metric)
    for query in range(5):
        best = np.sort(right[query])[:K]
        np.testing.assert_allclose(right[query, hits.ids[query]], best, rtol=2e-7, atol=1.2e-7)
    np.testing.assert_allclose(hits.distances, expected.distances, rtol=1e-5, atol=2e-7)
    loose = found(kind, there, queries)
    assert (loose.counts == K).all()
    if metric == "l2":  # which shows that the first pass alone would not do
        assert not np.array_equal(loose.ids, hits.ids)


def test_equal_distances_come_by_ascending_id(kind: Any) -> None:
    rows = np.repeat(np.eye(4, 8, dtype=np.float32), 100, axis=0)
    ids = np.random.default_rng(5).permutation(1000)[:400]
    index = ann.Index(8, metric="l2")
    index.add(rows, ids=ids)
    for exact in (True, False):
        hits = found(kind, index.to("cuda"), rows[[0, 399]], 100, exact=exact)
        np.testing.assert_array_equal(hits.ids[0], np.sort(ids[:100]))
        np.testing.assert_array_equal(hits.ids[1], np.sort(ids[300:]))
        assert (hits.distances == 0.0).all()


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e12])
@pytest.mark.parametrize("metric", METRICS)
def test_lengths_of_any_size(kind: Any, metric: str, scale: float) -> None:
    rng = np.random.default_rng(8)
    rows = (scale * rng.standard_normal((300, 12))).astype(np.float32)
    rows *= np.exp(rng.standard_normal((300, 1))).astype(np.float32)
    index = ann.Index(12, metric=metric)
    index.add(rows)
    queries = (scale * rng.standard_normal((4, 12))).astype(np.float32)
    hits = found(kind, index.to("cuda"), queries, exact=True)
    right = np.sort(distance_matrix(queries, rows, metric), axis=1)[:, :K]
    np.testing.assert_allclose(hits.distances, right, rtol=1e-5, atol=1e-44 + 1e-6 * scale**2)


def test_deleted_rows_and_later_changes(kind: Any) -> None:
    world = make_world(rows=300, columns=16, queries=3)
    gone = world.ids[::3]
    world.index.delete(gone)
    for row in gone.tolist():
        del world.table.rows[row], world.table.vectors[row]
    index = world.index.to("cuda")
    world.index.delete(world.ids[1::3])  # which a snapshot does not see
    assert len(index) == 200
    assert index.count(~expression(("is_null", "rank"))) == 200
    for tree in (None, first(150)):
        where = None if tree is None else expression(tree)
        hits = found(kind, index, world.queries, where=where)
        check(hits, world.table, world.queries, K, tree, exact=True)
    mask = np.isin(index.ids, world.ids[1::3])
    hits = found(kind, index, world.queries, 200, where=mask)
    assert (hits.counts == 100).all()
    assert (found(kind, index, world.queries, where=gone).counts == 0).all()
    back = index.to("cpu")
    assert len(back) == 200 and len(world.index) == 100
    back.add(world.queries)
    assert len(back) == 203 and len(index) == 200


class Walks:
    """Costs by which everything walks that can."""

    def plan(self, queries: int, tiles: int, k: int, recall: float) -> Plan:
        base = next(pool for pool in POOLS if pool >= max(k, 64))
        return Plan(base, (0, 0, 0, 0))


@functools.cache
def built_world(metric: str) -> World:
    return make_world(metric, rows=2300, columns=24, queries=6)


@pytest.fixture
def quick_costs(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure little, where time means nothing."""
    if kind.emulated:
        monkeypatch.setattr(_on_device, "_SAMPLE", 3)
        monkeypatch.setattr(_device_costs, "_REPEATS", 1)


@pytest.mark.parametrize("way", ["by costs", "scans", "walks"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.usefixtures("quick_costs")
def test_an_index_that_was_built(kind: Any, metric: str, way: str) -> None:
    world = built_world(metric)
    assert world.index._state.trained and world.index._state.tail == 0
    index = world.index.to("cuda")
    if way != "by costs":
        index._costs = Walks() if way == "walks" else None
    # All, much, a half, a quarter, less than walks are for; and where the nearest are filtered out.
    near = world.distances.argmin(axis=1)
    ids = np.array(sorted(world.table.rows))
    for tree in (None, first(2200), first(1100), first(600), first(60)):
        where = None if tree is None else expression(tree)
        hits = found(kind, index, world.queries, where=where)
        recalls = check(hits, world.table, world.queries, K, tree)
        assert np.mean(recalls) >= (1.0 if way == "scans" else 0.95)
    far = world.distances[0].argsort()[300:]
    hits = found(kind, index, world.queries[:1], where=ids[far])
    assert hits.ids[0, 0] == ids[far[0]] and ids[near[0]] not in hits.ids


@pytest.mark.usefixtures("quick_costs")
def test_walks_for_each_query_repeat_bit_by_bit(kind: Any) -> None:
    world = built_world("cosine")
    index = world.index.to("cuda")
    index._costs = Walks()
    trees = [None, first(1200), first(50), first(2250), first(1200), ("==", "draft", False)]
    wheres = [None if tree is None else expression(tree) for tree in trees]
    hits = found(kind, index, world.queries, where=wheres)
    assert np.mean(check(hits, world.table, world.queries, K, trees)) >= 0.95
    again = found(kind, index, world.queries, where=wheres)
    np.testing.assert_array_equal(hits.ids, again.ids)
    np.testing.assert_array_equal(hits.distances, again.distances)
    for k in (1, 100):
        hits = found(kind, index, world.queries[:2], k)
        assert np.mean(check(hits, world.table, world.queries[:2], k, None)) >= 0.9


@pytest.mark.usefixtures("quick_costs")
def test_rows_that_are_not_linked_are_scanned(kind: Any) -> None:
    world = make_world(rows=2100, columns=16, queries=2)
    rng = np.random.default_rng(4)
    world.index.add(rng.standard_normal((20, 16)).astype(np.float32))
    assert world.index._state.tail == 20
    index = world.index.to("cuda")
    assert index._costs is None
    hits = found(kind, index, world.queries)
    expected = world.index.search(world.queries, K, exact=True)
    np.testing.assert_array_equal(hits.ids, expected.ids)


@pytest.mark.usefixtures("quick_costs")
def test_walks_pass_through_deleted_rows(kind: Any) -> None:
    world = make_world(rows=2300, columns=16, queries=3)
    gone = world.ids[:300]
    world.index.delete(gone)
    for row in gone.tolist():
        del world.table.rows[row], world.table.vectors[row]
    index = world.index.to("cuda")
    assert index._costs is not None
    index._costs = Walks()
    hits = found(kind, index, world.queries)
    assert np.mean(check(hits, world.table, world.queries, K, None)) >= 0.9


def test_prefixes(kind: Any) -> None:
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((200, 48)).astype(np.float32)
    for metric in METRICS:
        index = ann.Index(48, metric=metric, prefixes=(8, 33))
        index.add(rows)
        there = index.to("cuda")
        for width in (8, 33, 48):
            queries = rng.standard_normal((3, width)).astype(np.float32)
            hits, expected = found(kind, there, queries), index.search(queries, K, exact=True)
            np.testing.assert_array_equal(hits.ids, expected.ids)
            np.testing.assert_allclose(hits.distances, expected.distances, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes_of_queries(kind: Any, dtype: str) -> None:
    if kind.name == "cupy" and dtype == "bfloat16":
        pytest.skip("CuPy has no bfloat16")
    world = world_of()
    queries = world.queries.astype(dtype_of(dtype))
    hits = found(kind, world.index.to("cuda"), queries)
    check(hits, world.table, queries.astype(np.float32), K, None, exact=True)


def test_one_query_gives_one_row(kind: Any) -> None:
    world = world_of()
    hits = found(kind, world.index.to("cuda"), world.queries[0])
    check(hits, world.table, world.queries[:1], K, None, exact=True)


def test_no_rows_and_no_queries(kind: Any) -> None:
    empty = ann.Index(8).to("cuda")
    hits = found(kind, empty, np.ones((3, 8), np.float32), 4)
    assert (hits.counts == 0).all() and (hits.ids == -1).all() and np.isposinf(hits.distances).all()
    hits = found(kind, empty, np.ones((3, 8), np.float32), 4, where=[1, 2])
    assert (hits.counts == 0).all()
    assert found(kind, empty, np.ones((0, 8), np.float32), 4).ids.shape == (0, 4)


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


@pytest.mark.parametrize("metric", METRICS)
def test_queries_without_an_answer(kind: Any, metric: str) -> None:
    world = world_of(metric)
    index = world.index.to("cuda")
    queries = world.queries.copy()
    queries[1, 3], queries[4, 0], queries[6] = np.nan, np.inf, 0.0
    bad = [1, 4, 6] if metric == "cosine" else [1, 4]
    good = np.setdiff1d(np.arange(len(queries)), bad)
    for exact in (True, False):
        hits = found(kind, index, queries, exact=exact)
        assert (hits.ids[bad] == -1).all() and np.isnan(hits.distances[bad]).all()
        assert (hits.counts[bad] == 0).all()
        parts = (hits.ids[good], hits.distances[good], hits.counts[good])
        check(ann.SearchResult(*parts), world.table, queries[good], K, None, exact=True)
    index.search(kind.to_device(world.queries), check=True)
    with pytest.raises(ValueError, match=r"'queries' must be finite and n.*; row 1 is not"):
        index.search(kind.to_device(queries), check=True)


def test_searches_repeat_bit_by_bit(kind: Any) -> None:
    world = world_of()
    index = world.index.to("cuda")
    for options in ({}, {"where": expression(first(300))}, {"exact": True}):
        hits = found(kind, index, world.queries, **options)
        for _ in range(3):
            again = found(kind, index, world.queries, **options)
            np.testing.assert_array_equal(hits.ids, again.ids)
            np.testing.assert_array_equal(hits.distances, again.distances)


def test_copies_on_a_device(kind: Any) -> None:
    world = world_of()
    index = world.index.to("cuda")
    assert (index.device, index.dim, index.metric, index.dtype) == (
        "cuda:0", 41, "cosine", "float32",
    )  # fmt: skip
    assert index.to("cuda:0") is index and world.index.to("cpu") is world.index
    assert repr(index) == "DeviceIndex(dim=41, metric='cosine', rows=700, device='cuda:0')"
    usage = index.memory_usage()
    assert usage["total"] == sum(usage.values()) - usage["total"]
    assert usage["codes"] >= 2 * 64 * ROWS
    assert index and len(index) == ROWS
    with pytest.raises(
        TypeError, match=r"^ann\.DeviceIndex\.count: 'where' must be one filter; got"
    ):
        index.count([None])
    np.testing.assert_array_equal(index.ids, world.index.ids)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"k": 0}, ValueError, "'k' must be from 1 to 1024; got 0"),
        ({"k": 1025}, ValueError, "'k' must be from 1 to 1024; got 1025"),
        ({"recall": 1.0}, ValueError, "'recall' must be above 0 and at most 0.999"),
        ({"where": ann.field("yaer") > 1}, ValueError, "'where' column 'yaer' is unknown; did you"),
        ({"where": ann.field("kind") > 1}, TypeError, "'where' "),
        ({"where": [True, False]}, ValueError, r"'where' as a mask must have .* \(700\); got 2"),
        ({"where": [None, None]}, ValueError, r"'where' as a list must have one filter for each"),
        ({"where": "kind"}, TypeError, "'where' must be an expression"),
        ({"where": np.ones(700)}, TypeError, "'where' as an array must be boolean or int64"),
        ({"where": ann.Index(4).compile([1])}, ValueError, "'where' must be a Filter of this"),
    ],
)
def test_options_that_do_not_fit(
    kind: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    world = world_of()
    with pytest.raises(error, match=rf"^ann\.DeviceIndex\.search: {words}"):
        world.index.to("cuda").search(kind.to_device(world.queries), **options)


def test_arrays_that_do_not_fit(kind: Any) -> None:
    world = make_world(rows=50, columns=16, prefixes=(8,))
    index = world.index.to("cuda")
    where = r"^ann\.DeviceIndex\.search: "
    with pytest.raises(ValueError, match=where + r"'queries' must have 16 or 8 columns; got"):
        index.search(kind.to_device(np.ones((2, 9), np.float32)))
    with pytest.raises(TypeError, match=where + "'queries' must be on device cuda:0, as the index"):
        index.search(world.queries)
    with pytest.raises(TypeError, match=where + "'queries' must be float16, bfloat16"):
        index.search(kind.to_device(np.ones((2, 16), np.int64)))
    with pytest.raises(TypeError, match=where + "'where' must be bool, int8, int16"):
        index.search(kind.to_device(world.queries), where=kind.to_device(np.ones(50, np.float32)))
    with pytest.raises(ValueError, match=where + r"'where' as a mask must have .* \(50\); got 49"):
        index.search(kind.to_device(world.queries), where=kind.to_device(np.ones(49, np.bool_)))


def test_arrays_on_another_device(kind: Any) -> None:
    world = make_world(rows=50, columns=16)
    index = world.index.to("cuda")
    index._number = 1  # one device is enough for the test
    mask, queries = kind.to_device(np.ones(50, np.bool_)), kind.to_device(world.queries)
    words = "must be on device cuda:1, as the index is; got .* on device cuda:0"
    with pytest.raises(TypeError, match=rf"^ann\.DeviceIndex\.count: 'where' {words}"):
        index.count(mask)
    with pytest.raises(TypeError, match=rf"^ann\.DeviceIndex\.search: 'queries' {words}"):
        index.search(queries)


def test_devices_that_are_not_there(kind: Any) -> None:
    index = ann.Index(4)
    where = r"^ann\.Index\.to: 'device' must be "
    with pytest.raises(ValueError, match=where + "'cpu', 'cuda' or 'cuda:' and a number; got 'gp"):
        index.to("gpu")
    with pytest.raises(TypeError, match=where + "a string; got int"):
        index.to(0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=where + "one of the .* devices"):
        index.to("cuda:99")
