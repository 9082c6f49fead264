# SPDX-License-Identifier: Apache-2.0
"""Builds whose links come from a device: the graph, and searches through it on the CPU."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedcore import _device, ann
from embedcore.ann import _device_cells, _device_links, _device_steps
from support.ann import DTYPES, check, clustered, early_builds, make_world

METRICS = ("cosine", "ip", "l2")
NO_SLOT = 0xFFFFFFFF


def links_of(index: Any) -> Any:
    return index._state.vectors.parts()["links"].reshape(-1, 32)


def shared_links(index: Any, other: Any) -> float:
    """Return which share of a row's links two graphs have in common."""
    pairs = zip(links_of(index), links_of(other), strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / len(np.union1d(a, b)) for a, b in pairs]))


def recall(index: Any, world: Any, effort: int = 20) -> float:
    hits = index.search(world.queries, effort=effort)
    return float(np.mean(check(hits, world.table, world.queries, 10, None)))


@pytest.mark.parametrize(
    ("metric", "dtype"),
    [*((metric, "float32") for metric in METRICS), *(("l2", d) for d in DTYPES[1:])],
)
def test_the_graph_is_nearly_that_of_the_cpu(kind: Any, metric: str, dtype: str) -> None:
    with early_builds(200):
        here = make_world(metric, dtype, rows=300, columns=24, queries=20)
        there = make_world(metric, dtype, rows=300, columns=24, queries=20, build_device="cuda")
    np.testing.assert_array_equal(here.index._state.ids.external, there.index._state.ids.external)
    assert shared_links(here.index, there.index) > 0.85  # rows farther away are others
    assert recall(there.index, there) >= recall(here.index, here) - 0.02
    assert recall(there.index, there, 100) >= 0.9


def chosen_lists(monkeypatch: pytest.MonkeyPatch, scanned: int) -> list[tuple[Any, int, Any]]:
    """Let few rows of the cells around be looked at, and watch which."""
    monkeypatch.setattr(_device_cells, "SCANNED", scanned)
    monkeypatch.setattr(_device_cells, "GROUP", 128)
    monkeypatch.setattr(_device_links, "_BATCH", 256)  # so that there are several
    seen = []

    class Watched(_device_cells.Cells):
        def lists(self, call: Any, first: int, count: int) -> Any:
            made, make = [], call.made
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(call, "made", lambda *of: made.append(make(*of)) or made[-1])
                found = super().lists(call, first, count)
            seen.append((self, first, made))
            return found

    monkeypatch.setattr(_device_steps, "Cells", Watched)
    return seen


def lists_of(seen: list[tuple[Any, int, Any]]) -> list[tuple[int, Any]]:
    """Return the first row of each group, and what its rows are compared with."""
    groups = []
    for _, first, made in seen:
        slots, counts = (_device.on_host(array) for array in made)
        groups += [(first + 128 * i, slots[i, :count]) for i, count in enumerate(counts)]
    return groups


def test_rows_of_the_cells_around_are_looked_at(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No worse a graph where these are half of all or little more."""
    with early_builds(200):
        here = make_world("l2", rows=400, columns=24, queries=20)
        seen = chosen_lists(monkeypatch, 200)
        there = make_world("l2", rows=400, columns=24, queries=20, build_device="cuda")
    groups = lists_of(seen)
    assert [first for first, _ in groups] == [0, 128, 256, 384]
    for first, near in groups:
        assert 200 <= len(near) < 400 and (np.diff(near.astype(np.int64)) > 0).all()
        assert np.isin(np.arange(first, min(400, first + 128)), near).all()
    assert shared_links(here.index, there.index) > 0.6
    assert recall(there.index, there, 40) >= recall(here.index, here, 40) - 0.02


def test_twins_are_left_out_of_the_cells_around(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = chosen_lists(monkeypatch, 100)
    rows = clustered(np.random.default_rng(4), 110, 12).astype(np.float32)
    index = ann.Index(12, metric="l2", build_device="cuda")
    with early_builds(200):
        index.add(np.concatenate([rows, rows]))
    groups = lists_of(seen)
    assert len(groups) == 2 and seen[0][0].members == 110
    original = index._state.ids.external % 110
    twins = [slot for slot in range(220) if original[slot] in original[:slot]]
    for _, near in groups:
        assert 100 <= len(near) <= 110 and not np.isin(near, twins).any()
    hits = index.search(rows, 2, effort=60)
    assert (hits.distances[:, :2] == 0.0).mean() > 0.97


def test_cells_in_the_order_of_their_distances(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_device_cells, "_BATCH", 128)  # so that there are several
    monkeypatch.setattr(_device_cells, "SCANNED", 800)
    rng = np.random.default_rng(6)
    centroids = rng.standard_normal((150, 5)).astype(np.float32)
    start = np.concatenate([[0], np.cumsum(rng.integers(10, 60, 150))])
    twins = rng.random(start[-1]) < 0.2
    cells = _device_cells.Cells("here", 0, start, centroids, twins)
    near = _device.on_host(cells.near)
    assert (near[:, 0] == np.arange(150)).all() and 32 <= near.shape[1] < 100
    distances = ((centroids[:, None].astype(np.float64) - centroids) ** 2).sum(axis=2)
    np.testing.assert_array_equal(near, distances.argsort(axis=1)[:, : near.shape[1]])
    sizes = np.add.reduceat(~twins, start[:-1]).astype(int)
    assert cells.members == sizes.sum()
    assert sizes[near].sum(axis=1).min() >= 800


def test_builds_repeat(kind: Any) -> None:
    with early_builds(100):
        one, other = (
            make_world(rows=150, columns=16, queries=1, build_device="cuda") for _ in range(2)
        )
    np.testing.assert_array_equal(links_of(one.index), links_of(other.index))


@pytest.mark.parametrize(
    ("slots", "near", "farther", "degree", "least"),
    [
        ((0, 5), 100, 28, 32, 16),
        ((0, 5), 1, 41, 32, 16),
        ((3, 3), 1, 0, 32, 16),
        ((-1, 3), 1, 0, 32, 16),
        ((0, 5), 1, 0, 8, 9),
        ((0, 5), 1, 0, 0, 0),
    ],
)
def test_choices_that_cannot_be(
    kind: Any, slots: tuple[int, int], near: int, farther: int, degree: int, least: int
) -> None:
    call = _device.call_for("here", "build_device", 0)
    index = call.kernels.AnnIndex(2, 0, (5, 3, 3, 0, 0), (0,) * 10)
    candidates = (*slots, (0, near), ((0, 0, 0, 0), 3, 40), farther)
    with pytest.raises(ValueError, match=r"^here: 'options' must have slots of the index, at most"):
        call.kernels.ann_choose_links("here", call.place(), index, candidates, 0, degree, least, 0)


@pytest.mark.parametrize(
    ("cells", "slots", "wanted", "stride", "words"),
    [
        ((1 << 18) + 1, (0, 5, 2), 3, 9, "'cells' must be from 0 to 262144; got 262145"),
        (3, (0, 5, 0), 3, 9, "'group' must be at least 1, 'first' and 'count' not negative; got 0"),
        (3, (-1, 5, 2), 3, 9, "'group' must be at least 1, .*; got 2, -1 and 5"),
        (3, (0, 5, 2), 0, 9, "'stride' must be at least 'wanted', and that 1; got 9 and 0"),
        (3, (0, 5, 2), 3, 2, "'stride' must be at least 'wanted', and that 1; got 2 and 3"),
    ],
)
def test_lists_that_cannot_be(
    kind: Any, cells: int, slots: tuple[int, int, int], wanted: int, stride: int, words: str
) -> None:
    call = _device.call_for("here", "build_device", 0)
    given = ((0, 0, 0, 0), cells, 4)
    with pytest.raises(ValueError, match=f"^here: {words}"):
        call.kernels.ann_list_near("here", call.place(), given, slots, wanted, (0, stride, 0))


def test_files_and_copies_are_those_of_any_index(kind: Any, tmp_path: Path) -> None:
    with early_builds(200):
        world = make_world(rows=300, columns=16, queries=4, build_device="cuda")
    world.index.save(tmp_path / "index")
    opened = ann.Index.open(tmp_path / "index")
    copied = pickle.loads(pickle.dumps(world.index))
    assert (opened._build_device, copied._build_device) == ("cpu", "cuda")
    for index in (opened, copied):
        np.testing.assert_array_equal(links_of(index), links_of(world.index))
        hits = index.search(world.queries)
        check(hits, world.table, world.queries, 10, None)


def test_few_and_equal_rows(kind: Any) -> None:
    """Fewer rows than neighbours are looked for, and rows that are nobody's neighbours: twins."""
    rows = np.random.default_rng(2).standard_normal((5, 12)).astype(np.float32)
    index = ann.Index(12, metric="l2", build_device="cuda")
    with early_builds(40):
        index.add(np.concatenate([rows] * 12))
    assert index._state.trained == 60
    hits = index.search(rows, 12)
    assert (hits.distances == 0.0).all()


def test_compact_builds_there_too(kind: Any) -> None:
    with early_builds(100):
        world = make_world(rows=150, columns=16, queries=4, build_device="cuda")
        world.index.delete(world.ids[:30])
        world.index.compact()
        assert len(links_of(world.index)) == 120


def test_without_a_device_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_device, "_LIBRARIES", [])
    index = ann.Index(8, build_device="cuda:1")
    rows = np.random.default_rng(3).standard_normal((120, 8)).astype(np.float32)
    index.add(rows[:20])  # no build
    with (
        early_builds(100),
        pytest.raises(RuntimeError, match=r"^ann\.Index: 'build_device' must be 'cpu', because"),
    ):
        index.add(rows[20:])
    assert len(index) == 20


def test_devices_that_there_are_not() -> None:
    with pytest.raises(ValueError, match=r"^ann\.Index: 'build_device' must be 'cpu', 'cuda' or"):
        ann.Index(8, build_device="tpu")
    with pytest.raises(TypeError, match=r"^ann\.Index: 'build_device' must be a string; got int"):
        ann.Index(8, build_device=0)  # type: ignore[arg-type]


def choose_instead(chosen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_device_links.Links, "begin", lambda _: None)
    monkeypatch.setattr(
        _device_links.Links, "finish", lambda _, links: np.copyto(links, chosen.reshape(-1))
    )


def test_links_that_cannot_be(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    choose_instead(np.full((120, 32), 120, np.uint32), monkeypatch)
    rows = np.random.default_rng(3).standard_normal((120, 8)).astype(np.float32)
    with early_builds(100), pytest.raises(ValueError, match="a link is out of range"):
        ann.Index(8, build_device="cuda").add(rows)


@pytest.mark.parametrize("slot", [NO_SLOT, 7])
def test_rows_without_links_get_some(kind: Any, slot: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none is chosen, or the same for all, from every row there is a way to every other."""
    chosen = np.full((120, 32), NO_SLOT, np.uint32)
    chosen[:, 0] = slot
    choose_instead(chosen, monkeypatch)
    rows = np.random.default_rng(3).standard_normal((120, 8)).astype(np.float32)
    index = ann.Index(8, build_device="cuda")
    with early_builds(100):
        index.add(rows)
    assert not (links_of(index)[7] == 7).any()
    hits = index.search(rows[:5], 1, effort=120)
    assert hits.ids[:, 0].tolist() == [0, 1, 2, 3, 4]
