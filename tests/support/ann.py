# SPDX-License-Identifier: Apache-2.0
"""Indexes beside their oracle: random tables, filters in every form, the contract of a search."""

from __future__ import annotations

import contextlib
import copy
import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
from embedcore import _core, ann
from embedcore.ann import _index, _state
from oracle.ann import Table, Tree, distance_matrix

from .kinds import dtype_of

Array = np.ndarray[Any, Any]

DTYPES = ("float32", "float16", "bfloat16", "int8")
TOPICS = ("nlp", "law", "art", "math", "bio", "war")
RELATIVE = 1e-5


def expression(tree: Tree) -> Any:
    """Write a filter of the oracle with the operators of the library."""
    name, *rest = tree
    if name in ("and", "or"):
        combine = operator.and_ if name == "and" else operator.or_
        return functools.reduce(combine, [expression(part) for part in rest])
    if name == "not":
        return ~expression(rest[0])
    column = ann.field(rest[0])
    if name in ("==", "!=", "<", "<=", ">", ">="):
        operators: dict[str, Callable[[Any, Any], Any]] = {
            "==": operator.eq,
            "!=": operator.ne,
            "<": operator.lt,
            "<=": operator.le,
            ">": operator.gt,
            ">=": operator.ge,
        }
        return operators[name](column, rest[1])
    return getattr(column, name)(*rest[1:])


def clustered(rng: np.random.Generator, rows: int, columns: int, clusters: int = 20) -> Array:
    """Rows around centres, with variances that fall along the columns, as embeddings have."""
    scale = 1.0 / np.sqrt(1.0 + np.arange(columns) / 8.0)
    centres = rng.standard_normal((clusters, columns)) * scale
    noise = 0.6 * rng.standard_normal((rows, columns)) * scale
    return centres[rng.integers(0, clusters, rows)] + noise + 0.1


def as_dtype(rows: Array, name: str) -> Array:
    """Round rows to a dtype; int8 rows are scaled to use its range."""
    if name == "int8":
        return np.clip(np.rint(rows * 40), -127, 127).astype(np.int8)
    return rows.astype(dtype_of(name))


def random_attributes(rng: np.random.Generator, rows: int) -> dict[str, list[Any]]:
    """A column of each kind, with missing values; `rank` is 0, 1, ... in random order."""
    years = rng.integers(1990, 2025, rows).tolist()
    scores = rng.standard_normal(rows).round(2)
    scores[rng.random(rows) < 0.1] = np.nan
    days = np.datetime64("2020-01-01") + rng.integers(0, 1000, rows)
    sets = [rng.choice(TOPICS, rng.integers(0, 4), replace=False).tolist() for _ in range(rows)]
    holes = rng.random((4, rows)) < 0.1
    return {
        "rank": rng.permutation(rows).tolist(),
        "year": [None if h else y for h, y in zip(holes[0], years, strict=True)],
        "score": scores.tolist(),
        "kind": [
            None if h else str(k)
            for h, k in zip(holes[1], rng.choice(["a", "b", "c", "rare"], rows), strict=True)
        ],
        "draft": [
            None if h else bool(b) for h, b in zip(holes[2], rng.random(rows) < 0.3, strict=True)
        ],
        "topics": [None if h else s for h, s in zip(holes[3], sets, strict=True)],
        "day": list(days.astype("datetime64[ns]")),
    }


@dataclass
class World:
    """An index, the table that it should hold, and queries."""

    index: Any
    table: Table
    queries: Array
    ids: Array  # of all rows in the order of insertion

    @functools.cached_property
    def distances(self) -> Array:
        """Distances of the queries to all rows, by ascending id."""
        rows = np.stack([self.table.vectors[key] for key in sorted(self.table.rows)])
        return distance_matrix(self.queries, rows, self.table.metric)

    def mask(self, where: Any) -> Array:
        """Boolean mask of the rows that pass, in the order of insertion."""
        return np.isin(self.ids, self.table.passing(where))

    def rank(self, ids: Any) -> list[int]:
        """Attribute `rank` of rows."""
        return [self.table.rows[int(key)]["rank"] for key in ids]

    def form(self, name: str, tree: Tree | None) -> Any:
        """Write a filter in one of its forms."""
        if name == "none" or tree is None:
            return None
        if name == "expression":
            return expression(tree)
        if name == "mask":
            return self.mask(tree)
        if name == "ids":
            return np.array(self.table.passing(tree)[::-1], np.int64)
        assert name == "filter"
        return self.index.compile(expression(tree))


@contextlib.contextmanager
def early_builds(rows: int = 60, tail: int = 16) -> Iterator[None]:
    """Let indexes of few rows learn codes and a graph, and link a tail of few rows."""
    with contextlib.ExitStack() as stack:
        for module in (_state, _index):
            if hasattr(module, "TRAINED_ROWS"):
                stack.enter_context(mock.patch.object(module, "TRAINED_ROWS", rows))
        stack.enter_context(mock.patch.object(_state, "_TAIL_ROWS", tail))
        yield


def by_level(costs: Any) -> Any:
    """Return the costs of each of the 7 levels of recall: 6, and 4 of each of the 5 shares."""
    return costs[12:].reshape(7, 26)


def by_share(costs: Any) -> Any:
    """Return slack, time, steps and rows of cells by level and share."""
    return by_level(costs)[:, 6:].reshape(7, 5, 4)


def with_costs(index: Any, change: Callable[[Any, Any], None]) -> Any:
    """Return a copy of an index whose costs were changed.

    `change` gets the numbers in the order of visit_costs (from [2]: the times of a query, of a row
    of a list, of a cell, ...), and those by level and share: slack, time, steps, rows of cells.
    """
    state = index._state
    parts = dict(state.vectors.parts())
    costs = parts["costs"].copy()
    change(costs, by_share(costs))
    parts["costs"] = costs
    made = copy.copy(index)
    made._state = state.but(vectors=_core.AnnVectors.from_parts(parts))
    return made


def preferring_cells(index: Any) -> Any:
    """Return a copy of an index, its costs such that cells win wherever they can be used at all."""

    def change(costs: Any, by_level: Any) -> None:
        costs[2:9] = 0, 1000, 1, 0, 5000, 0, 0
        by_level[:, 1:, 1] = 1e9  # walks, but for those that all rows pass
        by_level[:, 0, 1] = 1

    return with_costs(index, change)


FORMS = ("expression", "mask", "ids", "filter")


def make_world(
    metric: str = "cosine",
    dtype: str = "float32",
    rows: int = 2000,
    columns: int = 72,
    queries: int = 8,
    seed: int = 0,
    **options: Any,
) -> World:
    """Build an index over random rows with attributes; ids are odd numbers in random order."""
    rng = np.random.default_rng(seed)
    vectors = as_dtype(clustered(rng, rows + queries, columns), dtype)
    ids = 2 * rng.permutation(rows).astype(np.int64) + 1
    attributes = random_attributes(rng, rows)
    index = ann.Index(columns, metric=metric, dtype=dtype, seed=seed, **options)
    index.add(vectors[:rows], ids=ids, attributes=attributes)
    table = Table(metric)
    table.add(vectors[:rows], ids.tolist(), attributes)
    return World(index, table, vectors[rows:].astype(np.float32), ids)


def slack(query: Array, longest: float, metric: str) -> float:
    """How far a distance may be off beside its relative error, with rows of at most this length.

    An inner product of float32 terms is good to a few 2^-24 of the norms, whatever it is itself.
    """
    if metric == "cosine":
        return 1e-6
    size = 1e-6 * float(np.linalg.norm(query))
    return size * longest if metric == "ip" else size


def check(
    hits: Any,
    table: Table,
    queries: Array,
    k: int,
    wheres: Sequence[Any] | Any = None,
    *,
    exact: bool = False,
    distances: Array | None = None,
) -> list[float]:
    """Hold a result against the contract; return the recall of each query.

    `wheres` is what `Table.passing` takes, or a list with one of these for each query. `distances`
    are those of the queries to all rows by ascending id, where they are known already.
    """
    each = wheres if isinstance(wheres, list) else [wheres] * len(queries)
    assert len(each) == len(queries)
    assert hits.ids.shape == hits.distances.shape == (len(queries), k)
    assert hits.ids.dtype == np.int64 and hits.distances.dtype == np.float32
    assert hits.counts.shape == (len(queries),)
    keys = sorted(table.rows)
    names = {id(w): repr(w) for w in each}  # an object may come for many queries
    distinct = {names[id(w)]: w for w in each}
    passing = {name: table.passing(w) for name, w in distinct.items()}
    rows = np.stack([table.vectors[key] for key in keys]) if keys else np.empty((0, 1))
    if distances is None:
        distances = distance_matrix(queries, rows, table.metric)
    longest = float(np.linalg.norm(rows.astype(np.float64), axis=1).max(initial=1.0))
    recalls = []
    for i, where in enumerate(each):
        places = np.searchsorted(keys, passing[names[id(where)]])
        close = slack(queries[i], longest, table.metric)
        found = [h[i] for h in (hits.ids, hits.distances, hits.counts)]
        recalls.append(
            _check_query(
                found, np.array(keys, np.int64)[places], distances[i, places], close, exact
            )
        )
    return recalls


def _check_query(found: Any, passing: Array, distances: Array, close: float, exact: bool) -> float:
    ids, got, count = found
    wanted = min(len(ids), len(passing))
    assert count == wanted, f"{count} results of {wanted}"
    assert (ids[wanted:] == -1).all() and np.isposinf(got[wanted:]).all()
    ids, got = ids[:wanted], got[:wanted]
    assert len(np.unique(ids)) == wanted, "duplicates"
    assert np.isin(ids, passing).all(), "a row that does not pass"
    true = distances[np.searchsorted(passing, ids)]
    np.testing.assert_allclose(got, true, rtol=RELATIVE, atol=close)
    assert (np.diff(got) >= 0).all(), "not ascending"
    assert (np.diff(ids)[np.diff(got) == 0] > 0).all(), "ties must be in the order of ids"
    best = np.sort(distances)[:wanted]
    if exact and wanted:
        np.testing.assert_allclose(got, best, rtol=RELATIVE, atol=close)
    if wanted == 0:
        return 1.0
    # A row as near as the last of the nearest is as good: ties make no difference to recall.
    return float((true <= best[-1] + close + RELATIVE * abs(best[-1])).mean())


def same(a: Any, b: Any) -> None:
    """Require two results to be the same to the last bit."""
    np.testing.assert_array_equal(a.ids, b.ids)
    np.testing.assert_array_equal(a.distances.view(np.int32), b.distances.view(np.int32))
    np.testing.assert_array_equal(a.counts, b.counts)
