# SPDX-License-Identifier: Apache-2.0
"""Builds whose neighbours come from a device: the graph, and searches through it on the CPU."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedcore import _device, ann
from embedcore.ann import _device_build
from oracle.ann import distance_matrix
from support.ann import DTYPES, as_dtype, check, clustered, early_builds, make_world

METRICS = ("cosine", "ip", "l2")
NO_SLOT = 0xFFFFFFFF


def links_of(index: Any) -> Any:
    return index._state.vectors.parts()["links"].reshape(-1, 32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_neighbours_are_the_nearest(
    kind: Any, metric: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_device_build, "_BATCH", 256)  # so that there are several
    rows = as_dtype(clustered(np.random.default_rng(1), 300, 20), dtype)
    seen = []

    class Watched(_device_build._Neighbours):
        def found(self) -> Any:
            seen.append((self._rows.copy(), super().found()))
            return seen[-1][1]

    monkeypatch.setattr(_device_build, "_Neighbours", Watched)
    index = ann.Index(20, metric=metric, build_device="cuda")
    with early_builds(200):
        index.add(rows)
    ((_, nearest),) = seen
    placed, _ = index.get(index._state.ids.external)  # in the order of slots
    placed = np.asarray(placed).astype(np.float64)
    right = distance_matrix(placed, placed, "cosine" if metric == "cosine" else "l2")
    np.fill_diagonal(right, np.inf)
    assert nearest.shape == (300, 80) and nearest.max() < 300
    found = np.take_along_axis(right, nearest.astype(np.int64), axis=1)
    best = np.sort(right, axis=1)[:, :80]
    # Nearly: rounding to bfloat16 may put another row in the place of one of the last.
    np.testing.assert_allclose(found[:, :60], best[:, :60], rtol=1e-5, atol=2e-6)
    assert (np.isclose(found, best, rtol=1e-5, atol=2e-6)).mean() > 0.99


@pytest.mark.parametrize("metric", METRICS)
def test_the_graph_is_nearly_that_of_the_cpu(kind: Any, metric: str) -> None:
    with early_builds(200):
        here = make_world(metric, rows=400, columns=24, queries=10)
        there = make_world(metric, rows=400, columns=24, queries=10, build_device="cuda")
    np.testing.assert_array_equal(here.index._state.ids.external, there.index._state.ids.external)
    a, b = links_of(here.index), links_of(there.index)
    same = np.mean(
        [len(np.intersect1d(x, y)) / len(np.union1d(x, y)) for x, y in zip(a, b, strict=True)]
    )
    assert same > 0.9
    for effort in (20, 100):
        hits = there.index.search(there.queries, effort=effort)
        recalls = check(hits, there.table, there.queries, 10, None)
        assert np.mean(recalls) >= 0.9


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


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (np.zeros((119, 4), np.uint32), r"neighbours must have shape \(rows, n\)"),
        (np.zeros((120, 81), np.uint32), r"neighbours must have shape \(rows, n\)"),
        (np.full((120, 2), 120, np.uint32), "a neighbour is out of range"),
    ],
)
def test_neighbours_that_cannot_be(found: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_device_build._Neighbours, "__init__", lambda *_: None)
    monkeypatch.setattr(_device_build._Neighbours, "found", lambda _: found)
    rows = np.random.default_rng(3).standard_normal((120, 8)).astype(np.float32)
    with early_builds(100), pytest.raises(ValueError, match=words):
        ann.Index(8, build_device="cuda").add(rows)
    found = np.full((120, 2), NO_SLOT, np.uint32)
    index = ann.Index(8, build_device="cuda")
    with early_builds(100):
        index.add(rows)  # links to rows farther away, then
    hits = index.search(rows[:5], 1, effort=50)
    assert hits.ids[:, 0].tolist() == [0, 1, 2, 3, 4]
