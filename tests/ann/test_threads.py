# SPDX-License-Identifier: Apache-2.0
"""Threads and instruction sets: the same results at any number of threads, recall under any set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import embedcore
import numpy as np
import pytest
from embedcore import ann
from support.ann import World, by_level, by_share, check, early_builds, expression, make_world, same

Worlds = Callable[..., World]

TREES: list[Any] = [None, ("<", "rank", 6), ("<", "rank", 150), ("==", "kind", "b")]


def results(world: World, **options: Any) -> list[Any]:
    wheres = [None if tree is None else expression(tree) for tree in TREES]
    each = [world.index.search(world.queries, k=10, where=where, **options) for where in wheres]
    mixed = (wheres * len(world.queries))[: len(world.queries)]
    return [*each, world.index.search(world.queries, k=10, where=mixed, **options)]


@pytest.mark.parametrize("exact", [True, False])
def test_any_number_of_threads(built: Worlds, metric: str, thread_count: int, exact: bool) -> None:
    world = built(metric)
    expected = results(world, threads=1, exact=exact)
    for threads in (None, thread_count):
        for one, other in zip(expected, results(world, threads=threads, exact=exact), strict=True):
            same(one, other)


def counted(parts: dict[str, Any]) -> tuple[Any, ...]:
    """Return the costs that no clock has a part in: bars, reach and rows of cells, least slacks."""
    shares = by_share(parts["costs"])
    return by_level(parts["costs"])[:, :6], shares[..., 3], shares[0, :, 0]


def test_one_build_at_any_number_of_threads(metric: str, thread_count: int) -> None:
    worlds = [make_world(metric, rows=2200, threads=threads) for threads in (1, thread_count)]
    parts = [dict(world.index._state.vectors.parts()) for world in worlds]
    assert set(parts[0]) == set(parts[1])
    for name, array in parts[0].items():
        if name != "costs":
            assert np.array_equal(array, parts[1][name]), name
    for one, other in zip(*map(counted, parts), strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(worlds[0].index.ids, worlds[1].index.ids)


@pytest.mark.parametrize("name", embedcore.list_isas())
@pytest.mark.parametrize("dtype_of_rows", ["float32", "float16", "bfloat16", "int8"])
def test_every_instruction_set(metric: str, dtype_of_rows: str, name: str) -> None:
    embedcore.set_isa(name)
    with early_builds():
        world = make_world(metric, dtype_of_rows, rows=600)
    sets = embedcore.list_isas()
    other = sets[(sets.index(name) + 1) % len(sets)]
    for reader in (name, other):  # what one set built another one reads
        embedcore.set_isa(reader)
        for tree in TREES:
            where = None if tree is None else expression(tree)
            exact = world.index.search(world.queries, k=10, where=where, exact=True)
            check(exact, world.table, world.queries, 10, tree, exact=True)
            hits = world.index.search(world.queries, k=10, where=where)
            recalls = check(hits, world.table, world.queries, 10, tree)
            assert np.mean(recalls) >= 0.9, (reader, tree)


def test_sets_of_instructions_find_the_same_exact_rows(isa: str) -> None:
    world = make_world("l2", rows=600, columns=33)
    hits = world.index.search(world.queries, k=10, exact=True)
    check(hits, world.table, world.queries, 10, exact=True)
    where = ann.field("rank") < 100
    hits = world.index.search(world.queries, k=10, where=where, exact=True)
    check(hits, world.table, world.queries, 10, ("<", "rank", 100), exact=True)
