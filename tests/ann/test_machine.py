# SPDX-License-Identifier: Apache-2.0
"""Any sequence of changes, saves and reopenings: the index holds what the oracle's table holds."""

from __future__ import annotations

import contextlib
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from embedcore import ann
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from oracle.ann import METRICS, Table
from support.ann import DTYPES, as_dtype, check, early_builds, expression

COLUMNS, PREFIX = 19, 7
values: dict[str, st.SearchStrategy[Any]] = {
    "n": st.none() | st.integers(-3, 6),
    "score": st.none() | st.sampled_from([-1.5, 0.0, 0.25, 2.0]),
    "kind": st.none() | st.sampled_from(["a", "b", "c"]),
    "tags": st.none() | st.lists(st.sampled_from(["x", "y", "z"]), max_size=3),
}
TREES: list[Any] = [
    None,
    ("<", "n", 2),
    ("!=", "n", 2),
    (">", "score", 0.0),
    ("==", "kind", "a"),
    ("not", ("contains", "tags", "x")),
    ("or", ("is_null", "tags"), ("and", ("isin", "kind", ["b", "c"]), (">=", "n", 0))),
]


@st.composite
def columns_of(draw: st.DrawFn, rows: int) -> dict[str, list[Any]]:
    names = draw(st.lists(st.sampled_from(sorted(values)), unique=True))
    return {
        name: draw(st.lists(values[name], min_size=rows, max_size=rows))
        for name in names
        # A column with nothing in it says nothing of its kind.
        if rows
    }


class Changes(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()

    def teardown(self) -> None:
        self.stack.close()

    @initialize(
        metric=st.sampled_from(METRICS), dtype=st.sampled_from(DTYPES), trained=st.booleans()
    )
    def start(self, metric: str, dtype: str, trained: bool) -> None:
        if trained:
            self.stack.enter_context(early_builds(rows=12, tail=4))
        self.rng = np.random.default_rng(1)
        self.dtype = dtype
        self.index = ann.Index(COLUMNS, metric=metric, dtype=dtype, seed=3, prefixes=[PREFIX])
        self.table = Table(metric)
        for name, value in (("n", 1), ("score", 0.5), ("kind", "a"), ("tags", ["x"])):
            vectors = self.rows(1)
            self.index.add(vectors, attributes={name: [value]})
            self.table.add(vectors, attributes={name: [value]})

    def rows(self, count: int) -> Any:
        # Few distinct rows, so that there are duplicates; none is zero.
        rows = self.rng.integers(-2, 3, (count, COLUMNS)).astype(np.float32)
        rows[:, 0] = 1 + self.rng.integers(0, 2, count)
        return as_dtype(rows / 40 if self.dtype == "int8" else rows, self.dtype)

    def some(self, data: st.DataObject, most: int = 8) -> list[int]:
        ids = sorted(self.table.rows)
        return data.draw(st.lists(st.sampled_from(ids), unique=True, max_size=most)) if ids else []

    @rule(data=st.data(), count=st.integers(0, 40), named=st.booleans())
    def add(self, data: st.DataObject, count: int, named: bool) -> None:
        vectors, attributes = self.rows(count), data.draw(columns_of(count))
        ids = None
        if named:
            free = [key for key in range(400) if key not in self.table.rows]
            ids = self.rng.permutation(free)[:count].astype(np.int64)
        returned = self.index.add(vectors, ids=ids, attributes=attributes or None)
        assert list(returned) == self.table.add(vectors, ids, attributes)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        ids = self.some(data, 20)
        self.index.delete(np.array(ids, np.int64))
        self.table.delete(ids)

    @precondition(lambda self: len(self.table) > 30)
    @rule()
    def delete_most(self) -> None:
        ids = self.rng.permutation(sorted(self.table.rows))[3:]
        self.index.delete(ids)
        self.table.delete(ids.tolist())

    @rule(data=st.data(), new=st.lists(st.integers(0, 400), unique=True, max_size=5))
    def upsert(self, data: st.DataObject, new: list[int]) -> None:
        ids = list(dict.fromkeys(self.some(data) + new))
        vectors, attributes = self.rows(len(ids)), data.draw(columns_of(len(ids)))
        self.index.upsert(vectors, ids=np.array(ids, np.int64), attributes=attributes or None)
        self.table.upsert(vectors, ids, attributes)

    @rule(data=st.data())
    def update_attributes(self, data: st.DataObject) -> None:
        ids = self.some(data)
        columns = data.draw(columns_of(len(ids)))
        if columns:
            self.index.update_attributes(np.array(ids, np.int64), columns)
            self.table.update_attributes(ids, columns)

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule(mode=st.sampled_from(["mmap", "load"]))
    def reopen(self, mode: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.index.save(Path(folder) / "index")
            self.index = ann.Index.open(Path(folder) / "index", mode=mode)

    @rule()
    def copy(self) -> None:
        self.index = pickle.loads(pickle.dumps(self.index))

    @rule(tree=st.sampled_from(TREES), k=st.sampled_from([1, 3, 10, 200]), masked=st.booleans())
    def search(self, tree: Any, k: int, masked: bool) -> None:
        queries = self.rows(2).astype(np.float32)
        where = None if tree is None else expression(tree)
        if masked:
            passing = set(self.table.passing(tree))
            where = np.array([key in passing for key in self.table.rows], bool)
        for exact in (True, False):
            for width in (COLUMNS, PREFIX):
                first = np.ascontiguousarray(queries[:, :width])
                hits = self.index.search(first, k=k, where=where, exact=exact)
                check(hits, self.table, first, k, tree, exact=exact)

    @invariant()
    def counts(self) -> None:
        if not hasattr(self, "table"):
            return
        assert len(self.index) == len(self.table)
        for tree in TREES:
            where = None if tree is None else expression(tree)
            assert self.index.count(where) == self.table.count(tree)

    @invariant()
    def keeps_rows(self) -> None:
        if not hasattr(self, "table") or not len(self.table):
            return
        ids = sorted(self.table.rows)[:: max(1, len(self.table) // 5)]
        vectors, columns = self.index.get(ids)
        kept = np.stack([self.table.vectors[key] for key in ids]).astype(np.float64)
        np.testing.assert_array_equal(np.asarray(vectors).astype(np.float64), kept)
        for name, column in columns.items():
            for key, value in zip(ids, column, strict=True):
                wanted = self.table.rows[key].get(name)
                if wanted is None:
                    assert value is None or value != value
                else:
                    assert value == wanted or set(value) == set(wanted)


Changes.TestCase.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
test_changes = Changes.TestCase
