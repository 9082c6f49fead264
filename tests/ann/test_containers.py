# SPDX-License-Identifier: Apache-2.0
"""Queries, masks and ids of every dtype and from every library; copies; the interpreter lock."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from embedcore import ann
from support.ann import World, check, make_world, same
from support.kinds import dtype_of, to_torch

Worlds = Callable[..., World]


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64", "int8", "torch bfloat16"])
def test_queries_of_every_dtype(built: Worlds, metric: str, name: str) -> None:
    world = built(metric)
    rows = 20 * world.queries if name == "int8" else world.queries
    queries = rows.astype(dtype_of(name.removeprefix("torch ")))
    expected = world.index.search(queries.astype(np.float32))
    same(world.index.search(to_torch(queries) if "torch" in name else queries), expected)
    check(expected, world.table, queries.astype(np.float32), 10)


def test_one_query_without_its_axis(built: Worlds) -> None:
    world = built()
    for where in (None, ann.field("rank") < 30, [ann.field("rank") < 30]):
        hits = world.index.search(world.queries[0], where=where)
        same(hits, world.index.search(world.queries[:1], where=where))
        assert hits.ids.shape == (1, 10)


def test_masks_from_every_library(built: Worlds) -> None:
    world = built()
    tree = ("<", "rank", 300)
    mask = world.mask(tree)
    expected = world.index.search(world.queries, where=mask)
    wide = np.zeros((len(mask), 3), bool)
    wide[:, 1] = mask
    read_only = mask.copy()
    read_only.flags.writeable = False
    masks: list[Any] = [
        mask.tolist(),
        wide[:, 1],
        read_only,
        mask[::-1].copy()[::-1],
        to_torch(mask),
    ]
    for name in ("pandas", "polars"):
        try:
            masks.append(__import__(name).Series(mask))
        except ImportError:
            continue
    try:
        pyarrow = __import__("pyarrow")
        masks += [pyarrow.array(mask), pyarrow.chunked_array([mask[:70], mask[70:]])]
    except ImportError:
        pass
    for each in masks:
        same(world.index.search(world.queries, where=each), expected)
        assert world.index.count(each) == 300
    same(world.index.search(world.queries, where=[mask] * len(world.queries)), expected)


def test_ids_from_every_library(built: Worlds) -> None:
    world = built()
    ids = np.array(world.table.passing(("<", "rank", 300)), np.int64)
    expected = world.index.search(world.queries, where=ids)
    lists: list[Any] = [ids.tolist(), tuple(ids.tolist()), to_torch(ids), ids[::-1], list(ids)]
    for name in ("pandas", "polars"):
        try:
            lists.append(__import__(name).Series(ids))
        except ImportError:
            continue
    lists += [ids.astype(np.uint64), np.append(ids, np.int64(-1)), [*ids.tolist(), 2**62]]
    lists.append(np.append(ids.astype(np.uint64), np.uint64(2**64 - 1)))
    for each in lists:
        same(world.index.search(world.queries, where=each), expected)
        assert world.index.count(each) == 300 and len(world.index.compile(each)) == 300


def test_no_ids_in_every_form(built: Worlds) -> None:
    world = built()
    for each in ([], (), range(0), np.empty(0, np.int64), np.array([])):
        assert not world.index.search(world.queries, where=each).counts.any()
        assert world.index.count(each) == len(world.index.compile(each)) == 0
        assert world.index.explain(world.queries[0], where=each)["passing"] == 0
    each_its_own: list[Any] = [[], world.ids[:1].tolist(), None, [], [], [], [], []]
    hits = world.index.search(world.queries, where=each_its_own)
    assert hits.counts.tolist() == [0, 1, 10, 0, 0, 0, 0, 0]
    few = world.index.search(world.queries, where=range(1, 8))
    same(few, world.index.search(world.queries, where=[1, 3, 5, 7]))  # ids are odd


def test_a_copy_is_another_index(built: Worlds) -> None:
    world = built()
    for made in (copy.copy(world.index), copy.deepcopy(world.index)):
        same(made.search(world.queries), world.index.search(world.queries))
        made.delete(world.ids[:500])
        made.add(np.ones((1, 72), np.float32), attributes={"kind": ["copy"]})
        assert len(made) == 1501 and len(world.index) == 2000
        assert world.index.count(ann.field("kind") == "copy") == 0


def test_results_belong_to_the_caller(built: Worlds) -> None:
    world = built()
    expected = world.index.search(world.queries)
    for mask in (np.ones(2000, bool), None):
        hits = world.index.search(world.queries, where=mask)
        hits.ids[:] = 0
        hits.distances[:] = 0
        if mask is not None:
            mask[:] = False
        same(world.index.search(world.queries), expected)


def test_what_is_given_is_not_changed_or_kept() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    columns = {"n": np.arange(50), "tags": [["a"] for _ in range(50)]}
    index = ann.Index(8)
    kept = rows.copy()
    index.add(rows, attributes=columns)
    before = index.search(kept[:5], where=ann.field("n") < 20)
    rows[:] = 0
    columns["n"][:] = 0
    columns["tags"][0].append("b")
    same(index.search(kept[:5], where=ann.field("n") < 20), before)
    assert index.count(ann.field("tags").contains("b")) == 0
    assert np.array_equal(index.get(range(50))[0], kept)


def test_other_threads_run_during_a_search_and_a_build() -> None:
    world = make_world(rows=4000, columns=64)
    queries = np.repeat(world.queries, 1500, axis=0)
    vectors = world.index.get(world.ids)[0]
    _require_turns(lambda: world.index.search(queries, k=50, exact=True, threads=1))
    more = np.concatenate([vectors, vectors + 1, vectors + 2])
    _require_turns(lambda: ann.Index(64, threads=1).add(more))


def _require_turns(call: Callable[[], Any]) -> None:
    thread = threading.Thread(target=call)
    start = last = time.monotonic()
    thread.start()
    longest = 0.0
    while thread.is_alive():
        time.sleep(0)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    thread.join()
    took = time.monotonic() - start
    assert took > 0.1, "too fast for this test"
    assert longest < 0.6 * took, "the interpreter was held"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rows_in_any_order_of_memory(dtype: str) -> None:
    rows = np.random.default_rng(6).standard_normal((5, 4))
    expected = ann.Index(4, dtype=dtype)
    expected.add(rows)
    for given in (np.asfortranarray(rows), rows.T.copy().T, np.asfortranarray(rows, np.float32)):
        index = ann.Index(4, dtype=dtype)
        index.add(given)
        index.upsert(np.asfortranarray(given[:2]), ids=[0, 1])
        assert np.array_equal(index.get(range(5))[0], expected.get(range(5))[0])
    one = ann.Index(4, dtype=dtype)
    one.add(np.broadcast_to(rows[0], (3, 4)))
    assert len(one) == 3


def test_data_frames_are_matrices() -> None:
    pandas = pytest.importorskip("pandas")
    rows = np.random.default_rng(7).standard_normal((5, 4))
    index = ann.Index(4)
    index.add(pandas.DataFrame(rows))
    assert np.array_equal(index.get(range(5))[0], rows.astype(np.float32))


def test_columns_get_their_kind_from_their_first_values() -> None:
    index = ann.Index(2)
    index.add(np.ones((2, 2)), attributes={"x": np.full(2, np.nan)})
    index.add(np.ones((2, 2)), attributes={"x": ["a", "b"]})
    assert index.count(ann.field("x") == "a") == 1
    assert index.count(ann.field("x").is_null()) == 2


def test_values_from_arrow() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    index = ann.Index(2)
    index.add(np.ones((3, 2)), attributes={"x": ["a", "b", "c"]})
    assert index.count(ann.field("x").isin(pyarrow.array(["a", "c"]))) == 2
    with pytest.raises(TypeError, match="Use is_null"):
        ann.field("x").isin(pyarrow.array(["a", None]))


def test_integers_just_beyond_int64() -> None:
    index = ann.Index(2)
    index.add(np.ones((2, 2)), attributes={"n": [-(2**63), 2**63 - 1]})
    assert index.count(ann.field("n") == -(2**63) - 1) == 0
    assert index.count(ann.field("n") <= -(2**63) - 1) == 0
    assert index.count(ann.field("n") > -(2**63) - 1) == 2
