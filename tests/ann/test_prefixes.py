# SPDX-License-Identifier: Apache-2.0
"""Queries that have the first columns alone, as Matryoshka embeddings allow."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedcore import ann
from support.ann import World, check, expression, make_world, same

WIDTHS = (1, 2, 16, 33, 63)
TREES: list[Any] = [None, ("<", "rank", 4), ("<", "rank", 50), ("<", "rank", 900)]


@functools.cache
def world_of(metric: str, dtype: str = "float32") -> World:
    widths = WIDTHS[2:] if (metric, dtype) == ("cosine", "int8") else WIDTHS
    return make_world(metric, dtype, rows=2200, columns=64, prefixes=widths)


def first(world: World, width: int) -> Any:
    return np.ascontiguousarray(world.queries[:, :width])


@pytest.mark.parametrize("width", [*WIDTHS, 64])
def test_queries_of_the_first_columns(metric: str, dtype: str, width: int) -> None:
    world = world_of(metric, dtype)
    if (metric, dtype) == ("cosine", "int8") and width < 3:
        return  # some rows are zero in so few columns of small integers
    queries = first(world, width)
    for tree in TREES:
        where = None if tree is None else expression(tree)
        for exact in (True, False):
            hits = world.index.search(queries, where=where, exact=exact)
            recalls = check(hits, world.table, queries, 10, tree, exact=exact)
            assert np.mean(recalls) >= 0.93
        told = world.index.explain(queries[0], where=where)
        assert told["passing"] == world.table.count(tree)


def test_prefixes_are_kept_by_changes_and_files(metric: str, tmp_path: Path) -> None:
    world = make_world(metric, rows=2200, columns=64, prefixes=(33, 16))
    gone = world.ids[::5]
    more = np.stack([world.table.vectors[key] for key in gone.tolist()[:50]]) + 1
    for target in (world.index, world.table):
        target.delete(gone)
        target.add(more, ids=list(range(10_000, 10_050)))
        target.upsert(more[:20] + 1, list(range(10_010, 10_030)))
    world.index.save(tmp_path / "index")
    copies = [
        world.index,
        ann.Index.open(tmp_path / "index"),
        ann.Index.open(tmp_path / "index", mode="load"),
        pickle.loads(pickle.dumps(world.index)),
    ]
    for width in (16, 33):
        queries = first(world, width)
        for index in copies:
            check(index.search(queries, exact=True), world.table, queries, 10, exact=True)
            same(index.search(queries), world.index.search(queries))
    world.index.compact()
    check(world.index.search(first(world, 16)), world.table, first(world, 16), 10)
    assert world.index.memory_usage()["prefixes.16"] >= 2200 * 0.8 * 16 * 4


def test_threads_and_masks_of_short_queries(metric: str) -> None:
    world = world_of(metric)
    queries = first(world, 33)
    mask = world.mask(("<", "rank", 300))
    expected = world.index.search(queries, where=expression(("<", "rank", 300)), threads=1)
    for where in (mask, world.ids[mask], [mask] * len(queries)):
        for threads in (1, 3):
            same(world.index.search(queries, where=where, threads=threads), expected)


def test_other_widths_are_refused() -> None:
    world = world_of("cosine")
    with pytest.raises(ValueError, match=r"^ann.Index.search: 'queries' must have .*64.*\(8, 17\)"):
        world.index.search(first(world, 17))
    plain = ann.Index(8)
    plain.add(np.ones((2, 8), np.float32))
    with pytest.raises(ValueError, match=r"'queries' must have 8 columns .*\(1, 4\)"):
        plain.search(np.ones((1, 4), np.float32))


@pytest.mark.parametrize(
    ("prefixes", "error", "words"),
    [
        ([0], ValueError, r"'prefixes' must be from 1 to 8; got 0"),
        ([9], ValueError, r"'prefixes' must be from 1 to 8; got 9"),
        ([2.5], TypeError, r"'prefixes' must be an integer; got float"),
        (4, TypeError, r"'prefixes' must be a sequence of integers; got int"),
        ("4", TypeError, r"'prefixes' must be a sequence of integers; got str"),
    ],
)
def test_bad_prefixes(prefixes: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^ann.Index: {words}"):
        ann.Index(8, prefixes=prefixes)


def test_rows_whose_first_columns_are_zero() -> None:
    rows = np.ones((4, 8), np.float32)
    rows[2, :3] = 0
    index = ann.Index(8, prefixes=[3])
    with pytest.raises(ValueError, match=r"^ann.Index.add: 'vectors' .*row 2.* zero"):
        index.add(rows)
    assert len(index) == 0
    other = ann.Index(8, metric="ip", prefixes=[3])
    assert len(other.add(rows)) == 4
    assert other.search(np.ones((1, 3), np.float32), k=4).ids.tolist() == [[0, 1, 3, 2]]


def test_an_index_that_has_lost_its_rows() -> None:
    index = ann.Index(4, prefixes=[2])
    index.add(np.ones((3, 4)))
    index.delete([0, 1, 2])
    index.compact()
    assert len(index) == 0 and index.add(np.ones((1, 4))).tolist() == [3]
    assert index.search(np.ones(2), k=2).ids.tolist() == [[3, -1]]
