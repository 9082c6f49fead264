# SPDX-License-Identifier: Apache-2.0
"""Searches on a device in an index that was built: by costs, by scans and through the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.ann import check, expression, make_world
from support.ann_device import METRICS, K, Walks, built_world, first, found


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
