# SPDX-License-Identifier: Apache-2.0
"""Filtered search on a device: the contract of the CPU, for every metric, dtype and selectivity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embedcore import ann
from oracle.ann import distance_matrix
from support.ann import DTYPES, check, expression, make_world
from support.ann_device import METRICS, ROWS, K, first, found, world_of
from support.kinds import dtype_of

# How many rows pass: none, one, around k, around the candidates that are kept, tiles, all.
PASSING = (0, 1, K - 1, K, K + 1, 33, 65, 129, 400, ROWS - 1, ROWS)


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
