# SPDX-License-Identifier: Apache-2.0
"""What searches on a device say of themselves."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from embedcore import ann
from embedcore.ann import _device_costs, _on_device
from embedcore.ann._device_costs import SCAN, Costs
from support.ann import World, expression, make_world

K = 10
KEYS = [
    "plan", "passing", "live", "share", "estimated_seconds", "pool", "codes_scored", "rescored",
    "gave_up",
]  # fmt: skip

COSTS = Costs(
    rows=2300,
    call=1e-5,
    tile=4e-4,
    next_tile=3e-4,
    recalls=(1.0, 1.0, 1.0, 1.0),
    one=(2e-5, 3e-5, 5e-5, 9e-5),
    each=(1e-6, 2e-6, 4e-6, 8e-6),
)


def first(count: int) -> Any:
    return expression(("<", "rank", count))


@functools.cache
def built_world() -> World:
    return make_world("l2", rows=2300, columns=24, queries=140)


@pytest.fixture
def index(kind: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return an index with costs that are known."""
    if kind.emulated:
        monkeypatch.setattr(_on_device, "_SAMPLE", 3)
        monkeypatch.setattr(_device_costs, "_REPEATS", 1)
    made = built_world().index.to("cuda")
    made._costs = COSTS
    return made


def test_a_walk(kind: Any, index: Any) -> None:
    told = index.explain(kind.to_device(built_world().queries[0]), K)
    assert list(told) == KEYS
    assert (told["plan"], told["passing"], told["live"], told["share"]) == (
        "graph",
        2300,
        2300,
        1.0,
    )
    assert told["pool"] == 64 and not told["gave_up"]
    assert told["estimated_seconds"] == pytest.approx(2e-5)
    # A pool and its neighbours, but not all rows; at least what an answer takes.
    assert 64 < told["codes_scored"] < 2300 + index._rows.graph[2]
    assert K <= told["rescored"] <= 64


def test_a_scan_of_the_rows_that_pass(kind: Any, index: Any) -> None:
    query = kind.to_device(built_world().queries[:1])
    told = index.explain(query, K, where=first(40))
    assert (told["plan"], told["passing"], told["pool"]) == ("list", 40, 0)
    assert told["share"] == pytest.approx(40 / 2300)
    assert told["estimated_seconds"] == pytest.approx(1e-5 + 4e-4 * 40 / 2300)
    assert told["codes_scored"] == 40
    assert K <= told["rescored"] <= 40 and not told["gave_up"]
    for where in (first(40), None):
        exact = index.explain(query, K, where=where, exact=True)
        assert exact["plan"] == "list" and exact["pool"] == 0
        assert exact["codes_scored"] == exact["passing"] >= exact["rescored"] > K
    assert index.explain(query, K, where=index.compile(first(40))) == told


def test_nothing_passes(kind: Any, index: Any) -> None:
    told = index.explain(kind.to_device(built_world().queries[0]), K, where=first(0))
    assert (told["plan"], told["passing"], told["share"]) == ("empty", 0, 0.0)
    assert told["codes_scored"] == told["rescored"] == 0


def test_a_walk_that_finds_too_few_gives_up(kind: Any, index: Any) -> None:
    """The filter lets through just what is far from the query."""
    world = built_world()
    ids = np.array(sorted(world.table.rows))
    far = ids[world.distances[0].argsort()[1000:]]
    told = index.explain(kind.to_device(world.queries[0]), K, where=far)
    assert (told["plan"], told["gave_up"], told["passing"]) == ("graph", True, 1300)
    assert told["pool"] == 128 and told["codes_scored"] > 1300


def test_a_batch_of_filters_by_bits(kind: Any, index: Any) -> None:
    """All rows for two tiles are less than nearly all of them for each of many filters."""
    world = built_world()
    index._costs = None  # nothing walks
    index._scan_costs = COSTS
    wheres = [expression(("between", "rank", i, i + 2000)) for i in range(140)]
    told = index.explain_batch(kind.to_device(world.queries), K, where=wheres)
    assert len(told) == 140 and {one["plan"] for one in told} == {"bits"}
    assert all(one["passing"] == 2001 and one["codes_scored"] == 2300 for one in told)
    seconds = 1e-5 + 4e-4 + 3e-4  # two tiles
    assert sum(one["estimated_seconds"] for one in told) == pytest.approx(seconds)
    few = index.explain_batch(kind.to_device(world.queries[:4]), K, where=[first(20), None] * 2)
    assert [one["plan"] for one in few] == ["list"] * 4
    assert [one["passing"] for one in few] == [20, 2300] * 2


def test_batches_say_of_each_query_what_it_did(kind: Any, index: Any) -> None:
    world = built_world()
    wheres = [None, first(40), first(0), first(2299)]
    told = index.explain_batch(kind.to_device(world.queries[:4]), K, where=wheres)
    assert [one["plan"] for one in told if one["plan"] not in ("list", "bits")] == [
        "graph", "empty", "graph",
    ]  # fmt: skip
    assert [one["passing"] for one in told] == [2300, 40, 0, 2299]


def test_costs_of_what_has_no_graph_are_measured_when_asked_for(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind.emulated:
        monkeypatch.setattr(_on_device, "_SAMPLE", 3)
        monkeypatch.setattr(_device_costs, "_REPEATS", 1)
    world = make_world(rows=200, columns=16, prefixes=(8,))
    there = world.index.to("cuda")
    assert there._costs is None and there._scan_costs is None
    told = there.explain(kind.to_device(world.queries[0]), K)
    assert told["plan"] == "list" and told["estimated_seconds"] > 0.0
    assert there._scan_costs is not None and there._scan_costs.one == ()
    assert there._scan_costs.plan(1, 1, K, 0.5) == SCAN
    again = there.explain(kind.to_device(world.queries[0]), K)
    assert again == told
    narrow = there.explain(kind.to_device(np.ascontiguousarray(world.queries[0, :8])), K)
    assert narrow["codes_scored"] == 200
    empty = ann.Index(8).to("cuda")
    told = empty.explain(kind.to_device(np.ones(8, np.float32)), K, where=ann.field("year") > 1)
    assert (told["plan"], told["live"], told["share"]) == ("empty", 0, 0.0)


def test_refusals(kind: Any, index: Any) -> None:
    queries = kind.to_device(built_world().queries[:2])
    with pytest.raises(
        ValueError, match=r"^ann\.DeviceIndex\.explain: 'query' must be one query; got 2"
    ):
        index.explain(queries)
    with pytest.raises(
        TypeError, match=r"^ann\.DeviceIndex\.explain: 'query' must be on device cuda"
    ):
        index.explain(built_world().queries[0])
    with pytest.raises(
        ValueError, match=r"^ann\.DeviceIndex\.explain_batch: 'where' as a list must"
    ):
        index.explain_batch(queries, where=[None])
    with pytest.raises(ValueError, match=r"^ann\.DeviceIndex\.explain: 'k' must be from 1 to 1024"):
        index.explain(kind.to_device(built_world().queries[0]), 0)
