# SPDX-License-Identifier: Apache-2.0
"""Float64 oracle of filtered search: a table of plain Python rows, every row looked at.

A filter is written here as a tree of tuples, so that it owes nothing to the expressions of the
library::

    ("==", "year", 2020)                 also "!=", "<", "<=", ">", ">="
    ("between", "year", 2019, 2021)      both ends included
    ("isin", "year", [2019, 2021])
    ("contains", "topics", "nlp")        also "contains_any", "contains_all" with a list
    ("is_null", "year")
    ("and", a, b, ...)    ("or", a, b, ...)    ("not", a)

Two-valued logic: what is asked of a missing value is false, whatever it is (is_null excepted), and
`not` turns false into true; so "!=" and "not" include rows whose value is missing. None and NaN are
missing. An empty set is not missing.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

METRICS = ("cosine", "ip", "l2")
Tree = tuple[Any, ...]
Row = Mapping[str, Any]

_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def distance(query: ArrayLike, row: ArrayLike, metric: str) -> float:
    """1 - cosine, the negated inner product, or the Euclidean distance.

    A query of fewer numbers than the row is compared with the first numbers of the row.
    """
    q = np.asarray(query).astype(np.float64)
    x = np.asarray(row).astype(np.float64)[: len(q)]
    if metric == "l2":
        return math.sqrt(math.fsum((q - x) ** 2))
    product = math.fsum(q * x)
    if metric == "ip":
        return -product
    return 1.0 - product / math.sqrt(math.fsum(q * q) * math.fsum(x * x))


def distance_matrix(queries: ArrayLike, rows: ArrayLike, metric: str) -> NDArray[np.float64]:
    """`distance` of every query to every row, in float64 and faster."""
    x = np.asarray(rows).astype(np.float64)
    result = np.empty((len(np.asarray(queries)), len(x)))
    for i, query in enumerate(np.asarray(queries).astype(np.float64)):
        part = x[:, : len(query)]
        if metric == "l2":
            result[i] = np.sqrt(((query - part) ** 2).sum(1))
            continue
        product = (query * part).sum(1)
        norms = np.sqrt((query**2).sum() * (part**2).sum(1)) if metric == "cosine" else 1.0
        result[i] = 1.0 - product / norms if metric == "cosine" else -product
    return result


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN or NaT."""
    if isinstance(value, np.datetime64):
        return bool(np.isnat(value))
    return value is None or (isinstance(value, float) and math.isnan(value))


def passes(tree: Tree, row: Row) -> bool:
    """Whether a row passes a filter; columns that a row lacks are missing there."""
    name, *rest = tree
    if name == "and":
        return all(passes(part, row) for part in rest)
    if name == "or":
        return any(passes(part, row) for part in rest)
    if name == "not":
        return not passes(rest[0], row)
    if name == "!=":
        return not passes(("==", *rest), row)
    value = row.get(rest[0])
    if name == "is_null":
        return is_missing(value)
    return not is_missing(value) and _holds(name, value, rest[1:])


def _holds(name: str, value: Any, operands: Sequence[Any]) -> bool:
    if name in _ORDERS:
        return bool(_ORDERS[name](value, operands[0]))
    if name == "between":
        return bool(operands[0] <= value <= operands[1])
    if name == "isin":
        return any(value == operand for operand in operands[0])
    if name == "contains":
        return operands[0] in value
    if name == "contains_any":
        return any(operand in value for operand in operands[0])
    if name == "contains_all":
        return all(operand in value for operand in operands[0])
    raise ValueError(f"no such filter: {name}")


class Table:
    """What an index should hold: vectors and attributes by id, in the order of insertion."""

    def __init__(self, metric: str = "cosine") -> None:
        self.metric = metric
        self.vectors: dict[int, NDArray[Any]] = {}
        self.rows: dict[int, dict[str, Any]] = {}
        self.next_id = 0

    def __len__(self) -> int:
        return len(self.rows)

    def copy(self) -> Table:
        """Return a table that does not change with this one."""
        other = Table(self.metric)
        other.vectors = dict(self.vectors)
        other.rows = {key: dict(row) for key, row in self.rows.items()}
        other.next_id = self.next_id
        return other

    def add(
        self,
        vectors: NDArray[Any],
        ids: Iterable[int] | None = None,
        attributes: Mapping[str, Sequence[Any]] | None = None,
    ) -> list[int]:
        """Append rows; without ids they get those after the largest id there ever was."""
        start = self.next_id
        names = list(range(start, start + len(vectors))) if ids is None else [int(i) for i in ids]
        assert len(set(names)) == len(names) == len(vectors)
        assert not set(names) & set(self.rows)
        for at, key in enumerate(names):
            self.vectors[key] = np.array(vectors[at])
            self.rows[key] = {name: column[at] for name, column in (attributes or {}).items()}
        self.next_id = max([self.next_id, *(key + 1 for key in names)])
        return names

    def delete(self, ids: Iterable[int]) -> None:
        """Remove rows."""
        for key in ids:
            del self.vectors[int(key)], self.rows[int(key)]

    def upsert(
        self,
        vectors: NDArray[Any],
        ids: Iterable[int],
        attributes: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        """Replace rows that are there, in their place in the order, and add the others."""
        for at, key in enumerate(int(i) for i in ids):
            self.vectors[key] = np.array(vectors[at])
            self.rows[key] = {name: column[at] for name, column in (attributes or {}).items()}
            self.next_id = max(self.next_id, key + 1)

    def update_attributes(self, ids: Iterable[int], columns: Mapping[str, Sequence[Any]]) -> None:
        """Change the given columns of rows that are there."""
        for at, key in enumerate(ids):
            self.rows[int(key)].update({name: column[at] for name, column in columns.items()})

    def passing(self, where: Any) -> list[int]:
        """Ids that pass a tree, a set of ids, or None (all of them), ascending."""
        if where is None:
            return sorted(self.rows)
        if isinstance(where, tuple):
            return sorted(key for key, row in self.rows.items() if passes(where, row))
        return sorted(set(where) & set(self.rows))

    def count(self, where: Any) -> int:
        """How many rows pass."""
        return len(self.passing(where))

    def distances(self, query: ArrayLike, ids: Iterable[int]) -> list[float]:
        """Distance of the query to each of the rows."""
        rows = [self.vectors[int(key)] for key in ids]
        if not rows:
            return []
        values: list[float] = distance_matrix([query], rows, self.metric)[0].tolist()
        return values

    def search(self, query: ArrayLike, k: int, where: Any = None) -> list[tuple[float, int]]:
        """Return the k nearest of the passing rows as (distance, id); ties by id."""
        ids = self.passing(where)
        return sorted(zip(self.distances(query, ids), ids, strict=True))[:k]


def merge(answers: Iterable[Iterable[tuple[float, int]]], k: int) -> list[tuple[float, int]]:
    """Return the k nearest of several answers to one query; ties by id."""
    return sorted(hit for answer in answers for hit in answer)[:k]


def recall(found: Sequence[int], wanted: Sequence[int]) -> float:
    """Share of the wanted ids that was found; 1 when nothing is wanted."""
    return len(set(found) & set(wanted)) / len(set(wanted)) if len(wanted) else 1.0
