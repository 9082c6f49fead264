# SPDX-License-Identifier: Apache-2.0
"""Readers beside a writer: each result is that of the index at one moment."""

from __future__ import annotations

import contextlib
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from embedcore import ann
from oracle.ann import Table
from support.ann import check, early_builds, expression

COLUMNS = 12
SECONDS, CHANGES = 1.5, 25  # at least
TREES: list[Any] = [None, ("<", "n", 50), ("==", "kind", "a")]


class Shared:
    """An index, every state that it went through, and how far its writer is."""

    def __init__(self, rows: int = 200) -> None:
        self.rng = np.random.default_rng(0)
        self.index = ann.Index(COLUMNS, metric="l2")
        self.states = [Table("l2")]
        self.started = self.finished = 0
        self.failures: list[BaseException] = []
        self.stop = threading.Event()
        self.change(self._add, rows)

    def change(self, do: Callable[..., None], *arguments: Any) -> None:
        table = self.states[-1].copy()
        self.started += 1
        self.states.append(table)  # before the index shows it
        do(table, *arguments)
        self.finished += 1

    def _add(self, table: Table, count: int) -> None:
        vectors = self.rng.standard_normal((count, COLUMNS)).astype(np.float32)
        attributes = {
            "n": self.rng.integers(0, 100, count).tolist(),
            "kind": self.rng.choice(["a", "b"], count).tolist(),
        }
        table.add(vectors, attributes=attributes)
        self.index.add(vectors, attributes=attributes)

    def _delete(self, table: Table, count: int) -> None:
        ids = self.rng.permutation(sorted(table.rows))[:count]
        table.delete(ids.tolist())
        self.index.delete(ids)

    def _upsert(self, table: Table, count: int) -> None:
        ids = self.rng.permutation(sorted(table.rows))[:count]
        vectors = self.rng.standard_normal((count, COLUMNS)).astype(np.float32)
        columns = {"n": [7] * count, "kind": ["a"] * count}
        table.upsert(vectors, ids.tolist(), columns)
        self.index.upsert(vectors, ids=ids, attributes=columns)

    def _update(self, table: Table, count: int) -> None:
        ids = self.rng.permutation(sorted(table.rows))[:count]
        columns = {"n": self.rng.integers(0, 100, count).tolist()}
        table.update_attributes(ids.tolist(), columns)
        self.index.update_attributes(ids, columns)

    def write(self) -> None:
        end = time.monotonic() + SECONDS
        while (time.monotonic() < end or len(self.states) < CHANGES) and not self.failures:
            kind = int(self.rng.integers(0, 5))
            if kind == 4:
                self.change(lambda table: self.index.compact())
            elif kind == 1 and len(self.states[-1]) > 150:
                self.change(self._delete, 15)
            else:
                self.change([self._add, self._add, self._upsert, self._update][kind], 10)
        self.stop.set()

    def run(self, *readers: Callable[[], None]) -> None:
        threads = [
            threading.Thread(target=self._guarded, args=(r,)) for r in (self.write, *readers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
            assert not thread.is_alive()
        if self.failures:
            raise self.failures[0]

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self.failures.append(error)
            self.stop.set()


@pytest.mark.parametrize("linked", [False, True])
def test_searches_see_one_moment(linked: bool) -> None:
    """Also where the writer builds, links and moves rows, and the readers walk."""
    with early_builds() if linked else contextlib.nullcontext():
        _require_one_moment(Shared(), {"effort": 40} if linked else {"exact": True})


def _require_one_moment(shared: Shared, options: dict[str, Any]) -> None:
    seen: list[tuple[int, int, Any, Any]] = []
    queries = shared.rng.standard_normal((3, COLUMNS)).astype(np.float32)
    where = [None if tree is None else expression(tree) for tree in TREES]
    where[1] = shared.index.compile(where[1])  # follows the index

    def read() -> None:
        while not shared.stop.is_set():
            first = shared.finished
            hits = shared.index.search(queries, k=10, where=where, **options)
            seen.append((first, shared.started, hits, None))

    shared.run(*[read] * 4)
    assert len(seen) > 20
    for first, last, hits, _ in seen[:: max(1, len(seen) // 300)]:
        tables = shared.states[first : last + 1]
        assert any(_is_of(hits, table, queries, "exact" in options) for table in tables)


def _is_of(hits: Any, table: Table, queries: Any, exact: bool = True) -> bool:
    try:
        check(hits, table, queries, 10, TREES, exact=exact)
    except AssertionError:
        return False
    return True


def test_counts_and_filters_see_one_moment() -> None:
    shared = Shared()
    seen: list[tuple[int, int, int]] = []
    where = expression(TREES[1])

    def read() -> None:
        while not shared.stop.is_set():
            first = shared.finished
            count = shared.index.count(where)
            seen.append((first, shared.started, count))
            total = len(shared.index)
            assert min(map(len, shared.states[1:])) <= total <= max(map(len, shared.states))

    shared.run(read, read)
    counts = [table.count(TREES[1]) for table in shared.states]
    for first, last, count in seen:
        assert count in counts[first : last + 1]


def test_copies_and_files_of_an_index_that_changes(tmp_path: Any) -> None:
    shared = Shared()
    copies: list[tuple[int, int, Any]] = []

    def pickled() -> None:
        while not shared.stop.is_set():
            first = shared.finished
            data = pickle.dumps(shared.index)
            copies.append((first, shared.started, pickle.loads(data)))

    def saved() -> None:
        while not shared.stop.is_set():
            first = shared.finished
            shared.index.save(tmp_path / "index")
            last = shared.started
            copies.append((first, last, ann.Index.open(tmp_path / "index", mode="load")))

    shared.run(pickled, saved)
    queries = shared.rng.standard_normal((3, COLUMNS)).astype(np.float32)
    where = [None if tree is None else expression(tree) for tree in TREES]
    assert len(copies) > 4
    for first, last, copy in copies[:: max(1, len(copies) // 60)]:
        hits = copy.search(queries, k=10, where=where, exact=True)
        assert any(_is_of(hits, shared.states[v], queries) for v in range(first, last + 1))


def test_writers_take_turns() -> None:
    index = ann.Index(COLUMNS)
    vectors = np.ones((5, COLUMNS), np.float32)
    added: list[list[int]] = []

    def write() -> None:
        for _ in range(40):
            added.append(list(index.add(vectors, attributes={"n": [1, 2, 3, 4, 5]})))
            index.delete(added[-1][:2])

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    ids = [key for one in added for key in one]
    assert sorted(ids) == list(range(4 * 40 * 5))
    assert len(index) == index.count(ann.field("n") >= 3) == 4 * 40 * 3
