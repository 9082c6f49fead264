# SPDX-License-Identifier: Apache-2.0
"""Columns of attributes as the bench keeps them, and filters over them.

A filter is a tree of tuples: ``("all",)``, ``("eq", column, value)``, ``("range", column, low,
high)`` with both ends in, ``("has", column, value)``, ``("and", f, ...)``, ``("or", f, ...)`` and
``("not", f)``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tree = tuple[Any, ...]
_FEW = 0.05  # share of the rows up to which sorting those of a window is quicker than a scan


@dataclass(frozen=True, eq=False)
class Sets:
    """A column of sets: the codes of row i are ``codes[starts[i] : starts[i + 1]]``."""

    starts: NDArray[np.int64]
    codes: NDArray[np.int64]

    @cached_property
    def _rows_by_code(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        rows = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        order = np.argsort(self.codes, kind="stable")
        counts = np.bincount(self.codes, minlength=1)
        return rows[order], np.concatenate([[0], np.cumsum(counts)])

    @property
    def counts(self) -> NDArray[np.int64]:
        """Return how many rows have each code."""
        return np.diff(self._rows_by_code[1])

    def rows(self, code: int) -> NDArray[np.int64]:
        """Return the rows that have a code."""
        rows, starts = self._rows_by_code
        if not 0 <= code < len(starts) - 1:
            return rows[:0]
        return rows[starts[code] : starts[code + 1]]

    def of_row(self, row: int) -> NDArray[np.int64]:
        """Return the codes of a row."""
        return self.codes[self.starts[row] : self.starts[row + 1]]

    def take(self, order: NDArray[np.int64]) -> Sets:
        """Return the sets of some rows."""
        sizes = np.diff(self.starts)[order]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], sizes)
        return Sets(starts, self.codes[np.repeat(self.starts[order], sizes) + within])


@dataclass(frozen=True, eq=False)
class Columns:
    """The attributes of `rows` rows: categories and numbers by name, and sets."""

    rows: int
    categories: dict[str, NDArray[np.int32]] = field(default_factory=dict)
    numbers: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    sets: dict[str, Sets] = field(default_factory=dict)

    def take(self, order: NDArray[np.int64]) -> Columns:
        """Return the attributes of some rows."""
        return Columns(
            len(order),
            {name: column[order] for name, column in self.categories.items()},
            {name: column[order] for name, column in self.numbers.items()},
            {name: column.take(order) for name, column in self.sets.items()},
        )

    def mask(self, tree: Tree) -> NDArray[np.bool_]:
        """Evaluate a filter the quickest way known in NumPy; sets have their rows listed."""
        kind = tree[0]
        if kind == "all":
            return np.ones(self.rows, bool)
        if kind == "eq":
            return np.equal(self.categories[tree[1]], np.int32(tree[2]))
        if kind == "range":
            column = self.numbers[tree[1]]
            passing = np.greater_equal(column, tree[2])
            passing &= np.less_equal(column, tree[3])
            return passing
        if kind == "has":
            passing = np.zeros(self.rows, bool)
            passing[self.sets[tree[1]].rows(tree[2])] = True
            return passing
        if kind == "not":
            passing = self.mask(tree[1])
            return np.logical_not(passing, out=passing)
        combine = {"and": np.logical_and, "or": np.logical_or}[kind]
        passing = self.mask(tree[1])
        for part in tree[2:]:
            combine(passing, self.mask(part), out=passing)
        return passing

    def ids(self, tree: Tree) -> NDArray[np.int64]:
        """Return the rows that pass: of a filter on one column, if few, without a look at all."""
        if tree[0] == "eq":
            order, codes = self._ordered(tree[1], self.categories)
            found = order[slice(*np.searchsorted(codes, (tree[2], tree[2] + 1)))]
        elif tree[0] == "range":
            order, values = self._ordered(tree[1], self.numbers)
            first, last = (
                np.searchsorted(values, tree[2]),
                np.searchsorted(values, tree[3], "right"),
            )
            found = order[first:last]
        elif tree[0] == "has":
            found = self.sets[tree[1]].rows(tree[2])
        else:
            return np.flatnonzero(self.mask(tree))
        if len(found) > self.rows * _FEW and tree[0] == "range":
            return np.flatnonzero(self.mask(tree))
        return np.sort(found) if tree[0] == "range" else found

    def _ordered(self, name: str, columns: dict[str, Any]) -> tuple[Any, Any]:
        """Return the rows in the order of a column, and its values in that order; kept."""
        kept: dict[str, tuple[Any, Any]] = self.__dict__.setdefault("_orders", {})
        if name not in kept:
            order = np.argsort(columns[name], kind="stable")
            kept[name] = order, columns[name][order]
        return kept[name]


def tree_of(found: Any) -> Tree:
    """Return a filter read from JSON, where tuples are lists."""
    return tuple(tree_of(part) if isinstance(part, list) else part for part in found)


def expression(tree: Tree) -> Any:
    """Return the filter for `embedcore.ann`; None for the one that everything passes.

    Categories are strings ("c17") in embedcore's index, codes of sets integers.
    """
    from embedcore.ann import field as column

    kind = tree[0]
    if kind == "all":
        return None
    if kind == "eq":
        return column(tree[1]) == label(tree[2])
    if kind == "range":
        return column(tree[1]).between(tree[2], tree[3])
    if kind == "has":
        return column(tree[1]).contains(tree[2])
    if kind == "not":
        return ~expression(tree[1])
    found = expression(tree[1])
    for part in tree[2:]:
        found = found & expression(part) if kind == "and" else found | expression(part)
    return found


def label(code: int) -> str:
    """Return the string that stands for a category's code."""
    return f"c{code}"


def attributes(columns: Columns) -> dict[str, Any]:
    """Return the columns as `embedcore.ann.Index.add` takes them."""
    found: dict[str, Any] = {}
    for name, codes in columns.categories.items():
        labels = np.array([label(code) for code in range(int(codes.max(initial=0)) + 1)])
        found[name] = labels[codes]
    found |= columns.numbers
    for name, sets in columns.sets.items():
        parts = np.split(sets.codes, sets.starts[1:-1])
        found[name] = [part.tolist() for part in parts]
    return found
