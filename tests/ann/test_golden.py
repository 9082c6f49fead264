# SPDX-License-Identifier: Apache-2.0
"""Files of every version of the format stay readable and hold what they held."""

from __future__ import annotations

import pickle
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from embedcore import ann
from oracle.ann import Table
from support.ann import check, expression

GOLDEN = Path(__file__).with_name("golden")
VERSIONS = ("v1",)
TREES: list[Any] = [
    None,
    ("between", "year", 2000, 2005),
    ("<", "score", 4.0),
    ("==", "kind", "\u00e9"),
    ("!=", "draft", True),
    ("contains_all", "topics", ["nlp", "law"]),
    (">=", "day", np.datetime64("2024-02-29T00:01:00")),
    *[("is_null", name) for name in ("year", "score", "kind", "draft", "topics", "day")],
]


def recipe(version: str) -> Any:
    return SimpleNamespace(**runpy.run_path(str(GOLDEN / f"make_{version}.py")))


def table_of(made: Any) -> Table:
    table = Table(made.METRIC)
    for rows, ids, columns in made.content():
        table.add(rows, ids.tolist(), columns)
    table.delete(made.GONE)
    return table


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", ["mmap", "load"])
def test_golden_files(version: str, mode: str) -> None:
    made = recipe(version)
    table = table_of(made)
    index = ann.Index.open(GOLDEN / f"{version}.embedcore", mode=mode)
    assert (index.dim, index.metric, index.dtype) == (made.COLUMNS, made.METRIC, made.DTYPE)
    assert len(index) == len(table)
    queries = made.vectors(200, 220).astype(np.float32)
    for tree in TREES:
        where = None if tree is None else expression(tree)
        assert index.count(where) == table.count(tree)
        for exact in (True, False):
            hits = index.search(queries, k=12, where=where, exact=exact)
            recalls = check(hits, table, queries, 12, tree, exact=exact)
            assert np.mean(recalls) >= 0.93
    assert (pickle.loads(pickle.dumps(index)).ids == index.ids).all()
    rows = made.vectors(300, 310)
    index.compact()
    assert list(index.add(rows)) == table.add(rows)
    check(index.search(queries, exact=True), table, queries, 10, exact=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_recipe_still_makes_such_a_file(version: str, tmp_path: Path) -> None:
    made = recipe(version)
    made.make(tmp_path / "index")
    assert (GOLDEN / f"{version}.embedcore").stat().st_size < 60_000
    fresh, golden = (
        ann.Index.open(path, mode="load")
        for path in (tmp_path / "index", GOLDEN / f"{version}.embedcore")
    )
    assert (fresh.ids == golden.ids).all()
    ids = fresh.ids
    assert (np.asarray(fresh.get(ids)[0]) == np.asarray(golden.get(ids)[0])).all()
