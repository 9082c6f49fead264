# SPDX-License-Identifier: Apache-2.0
"""What an index tells of itself: plans, memory, costs; dropped vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedcore import ann
from oracle.ann import Table
from support.ann import (
    World,
    check,
    clustered,
    early_builds,
    expression,
    make_world,
    same,
    with_costs,
)

Worlds = Callable[..., World]


@pytest.mark.parametrize("count", [0, 1, 9, 30, 300, 1999, 2000])
def test_explain(built: Worlds, metric: str, count: int) -> None:
    world = built(metric)
    where = ann.field("rank") < count
    before = world.index.search(world.queries[:1], k=10, where=where)
    for options in ({}, {"recall": 0.999}, {"exact": True}, {"k": 100}, {"effort": 50}):
        told = world.index.explain(world.queries[0], where=where, **options)
        assert isinstance(told, dict) and all(isinstance(name, str) for name in told)
        assert isinstance(told["plan"], str) and told["plan"]
        assert told["passing"] == count
        assert np.isfinite(told["estimated_seconds"]) and told["estimated_seconds"] >= 0
        if options.get("exact") and count:
            assert told["plan"] == "exact" and told["rescored"] == count
        numbers = [value for value in told.values() if isinstance(value, (int, float))]
        assert all(value >= 0 for value in numbers)
    same(world.index.search(world.queries[:1], k=10, where=where), before)


def test_explain_is_about_one_query(built: Worlds) -> None:
    world = built()
    told = world.index.explain(world.queries[:1])
    assert told["passing"] == 2000
    assert ann.Index(3).explain(np.ones(3, np.float32))["passing"] == 0
    with pytest.raises(ValueError, match=r"^ann.Index.explain: 'query' must be one query; got 8"):
        world.index.explain(world.queries)
    with pytest.raises(ValueError, match=r"^ann.Index.explain: 'where' .*'ran'.*'rank'"):
        world.index.explain(world.queries[0], where=ann.field("ran") < 3)


def test_equal_filters_have_one_plan(built: Worlds, metric: str) -> None:
    world = built(metric)
    for count in (0, 5, 40, 400, 1600):
        where = ("<", "rank", count)
        plans = {
            world.index.explain(world.queries[0], where=world.form(form, where))["plan"]
            for form in ("expression", "mask", "ids", "filter")
        }
        assert len(plans) == 1
    everything = world.index.explain(world.queries[0], where=ann.field("rank") >= 0)["plan"]
    assert everything == world.index.explain(world.queries[0])["plan"]


@pytest.mark.parametrize(("columns", "share"), [(384, 0.45), (1024, 0.25)])
def test_memory_beyond_the_vectors(columns: int, share: float, tmp_path: Path) -> None:
    rows = clustered(np.random.default_rng(0), 2200, columns).astype(np.float32)
    # The axes do not grow with the rows: of so few they would be the largest part.
    share += 4 * columns * columns / rows.nbytes
    index = ann.Index(columns)
    index.add(rows)
    usage = index.memory_usage()
    assert usage["total"] == sum(size for name, size in usage.items() if name != "total")
    assert all(isinstance(size, int) and size >= 0 for size in usage.values())
    assert rows.nbytes <= usage["total"] <= (1 + share) * rows.nbytes
    index.save(tmp_path / "index")
    assert (tmp_path / "index").stat().st_size <= (1 + share) * rows.nbytes
    for mode in ("mmap", "load"):
        opened = ann.Index.open(tmp_path / "index", mode=mode, verify=False).memory_usage()
        assert rows.nbytes <= opened["total"] <= (1 + share) * rows.nbytes
        assert set(opened) == set(usage)


def test_memory_of_attributes() -> None:
    index = ann.Index(4)
    before = index.memory_usage()["total"]
    index.add(np.ones((1000, 4), np.float32), attributes={"n": np.arange(1000)})
    usage = index.memory_usage()
    named = [size for name, size in usage.items() if name.startswith("attributes.")]
    assert sum(named) >= 8000 and usage["ids"] >= 8000 and usage["total"] > before + 32_000
    index.delete(np.arange(990))
    index.compact()
    assert index.memory_usage()["total"] < usage["total"] / 5


def test_dropped_vectors(metric: str, tmp_path: Path) -> None:
    kept = make_world(metric, rows=2500, columns=64)
    world = make_world(metric, rows=2500, columns=64, keep_vectors=False)
    saving = kept.index.memory_usage()["total"] - world.index.memory_usage()["total"]
    assert saving >= 2500 * 64 * 4
    norm = np.linalg.norm(world.queries, axis=1)
    for tree in (None, ("<", "rank", 20), ("<", "rank", 800)):
        where = None if tree is None else expression(tree)
        hits = world.index.search(world.queries, where=where)
        assert (hits.counts == 10).all() and (np.diff(hits.distances, axis=1) >= 0).all()
        for i, (ids, distances) in enumerate(hits):
            assert len(set(ids)) == 10 and set(ids.tolist()) <= set(world.table.passing(tree))
            true = world.table.distances(world.queries[i], ids.tolist())
            scale = {"cosine": 1.0, "ip": 3 * norm[i] ** 2, "l2": norm[i]}[metric]
            np.testing.assert_allclose(distances, true, rtol=0, atol=0.03 * scale)
            best = world.table.search(world.queries[i], 10, tree)
            assert len({key for _, key in best} & set(ids.tolist())) >= 6
    world.index.save(tmp_path / "index")
    opened = ann.Index.open(tmp_path / "index")
    same(opened.search(world.queries), world.index.search(world.queries))
    opened.delete(world.ids[:1500])
    opened.compact()  # from the codes
    assert (opened.search(world.queries).counts == 10).all() and len(opened) == 1000


@pytest.mark.parametrize("change", ["build", "calibrate"])
def test_dropped_vectors_are_measured_by_their_codes(metric: str, change: str) -> None:
    world = make_world(metric, rows=2500, columns=64, queries=60, keep_vectors=False)
    if change == "build":
        gone = world.ids[::10]
        world.index.delete(gone), world.table.delete(gone.tolist())
        world.index.compact()
    else:
        world.index.calibrate()
    for tree in (None, ("<", "rank", 800)):
        where = None if tree is None else expression(tree)
        hits = world.index.search(world.queries, where=where)
        best = [world.table.search(query, 10, tree) for query in world.queries]
        found = [
            len({key for _, key in pairs} & set(ids.tolist()))
            for pairs, (ids, _) in zip(best, hits, strict=True)
        ]
        assert np.mean(found) >= 9.3
        assert world.index.explain(world.queries[0], where=where)["estimated_seconds"] > 0


def saved(index: Any, path: Path) -> bytes:
    index.save(path)
    return path.read_bytes()


def test_costs_change_by_calibration_alone(tmp_path: Path) -> None:
    world = make_world(rows=2500, columns=48)
    before = saved(world.index, tmp_path / "index")
    for _ in range(3):
        for tree in (None, ("<", "rank", 30), ("<", "rank", 900)):
            where = None if tree is None else expression(tree)
            for recall in (0.5, 0.95, 0.999):
                world.index.search(world.queries, where=where, recall=recall)
            world.index.explain(world.queries[0], where=where)
    assert saved(world.index, tmp_path / "index") == before
    assert saved(ann.Index.open(tmp_path / "index"), tmp_path / "again") == before
    for queries in (None, world.queries, np.repeat(world.queries, 30, axis=0)):
        world.index.calibrate(queries)
        for tree in (None, ("<", "rank", 30), ("<", "rank", 900)):
            where = None if tree is None else expression(tree)
            check(
                world.index.search(world.queries, where=where), world.table, world.queries, 10, tree
            )
    ann.Index(3).calibrate()
    with pytest.raises(ValueError, match=r"^ann.Index.calibrate: 'queries' must have 48 columns"):
        world.index.calibrate(np.ones((3, 49), np.float32))


@pytest.mark.parametrize("left", [0, 1, 2, 5, 10, 30, 100])
def test_calibration_where_most_rows_are_dead(left: int, tmp_path: Path) -> None:
    rows = np.random.default_rng(left).standard_normal((2000, 24)).astype(np.float32)
    for seed in range(3):
        index = ann.Index(24, seed=seed)
        index.add(rows)
        index.delete(np.random.default_rng(seed).permutation(2000)[left:])
        for queries in (None, rows[:1], rows[:7]):
            index.calibrate(queries)
            index.save(tmp_path / "index")
            opened = ann.Index.open(tmp_path / "index")
            assert (opened.search(rows[:3]).counts == min(10, left)).all()


def test_a_recall_between_two_levels_looks_on_in_between() -> None:
    world = make_world(rows=2500, columns=48)

    def walks_are_cheap(costs: Any, by_level: Any) -> None:
        costs[2:9] = 1, 1000, 1000, 1, 5000, 1, 0
        by_level[:, :, 0] = 0.1 * np.arange(1, 8)[:, None]
        by_level[:, :, 1] = 1000.0 * np.arange(1, 8)[:, None]
        by_level[:, :, 2] = 500

    index = with_costs(world.index, walks_are_cheap)

    def told(recall: float) -> tuple[float, float]:
        plan = index.explain(world.queries[0], recall=recall)
        assert plan["plan"] == "graph"
        return plan["slack"], plan["estimated_seconds"]

    levels = [0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999]
    at = [told(level) for level in levels]
    np.testing.assert_allclose([slack for slack, _ in at], 0.1 * np.arange(1, 8), rtol=1e-6)
    assert told(0.5) == at[0]
    for recall, upper in ((0.85, 1), (0.96, 3), (0.97, 3), (0.985, 4), (0.992, 5), (0.998, 6)):
        lost = np.log([1 - levels[upper - 1], 1 - recall, 1 - levels[upper]])
        part = (lost[0] - lost[1]) / (lost[0] - lost[2])
        slack, seconds = told(recall)
        np.testing.assert_allclose(slack, 0.1 * (upper + part), rtol=1e-5)
        assert at[upper - 1][1] < seconds < at[upper][1]


def test_higher_recall_and_effort_find_more(metric: str) -> None:
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((4000, 64)).astype(np.float32)
    queries = rng.standard_normal((80, 64)).astype(np.float32)
    index, table = ann.Index(64, metric=metric), Table(metric)
    index.add(rows), table.add(rows)

    def walks_are_cheap(costs: Any, by_level: Any) -> None:
        costs[2:9] = 1, 1000, 1000, 1, 5000, 1, 0  # else the plan of a low target depends on times
        by_level[:, :, 1] = 1

    index = with_costs(index, walks_are_cheap)

    def recall(**options: Any) -> float:
        return float(np.mean(check(index.search(queries, **options), table, queries, 10)))

    low, default, high = (recall(recall=value) for value in (0.5, 0.95, 0.999))
    assert low - 0.02 <= default <= high + 0.01 and high >= 0.98
    assert low >= 0.75 and default >= 0.92
    efforts = [recall(effort=value) for value in (1, 10, 100, 4000)]
    assert efforts[0] <= efforts[1] + 0.02 <= efforts[2] + 0.04 and efforts[3] >= 0.98


def test_results_read_like_lists() -> None:
    with early_builds():
        world = make_world(rows=200, columns=12)
        hits = world.index.search(world.queries, k=3, where=ann.field("rank") < 2)
    assert len(hits) == len(world.queries)
    for ids, distances in hits:
        assert len(ids) == len(distances) == 2
    ids, _ = hits[-1]
    assert ids.tolist() == hits.ids[-1, :2].tolist()
    assert "SearchResult(queries=8, k=3)" in repr(hits)
    assert "rows=200" in repr(world.index) and "'topics': set" in repr(world.index)
