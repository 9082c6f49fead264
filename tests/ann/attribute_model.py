# SPDX-License-Identifier: Apache-2.0
"""Attribute tables as lists of Python values, and random ones to compare the native table with."""

from __future__ import annotations

from typing import Any

import numpy as np
from ann.filter_programs import Nanoseconds
from embedcore import _core

Array = np.ndarray[Any, Any]

TOPICS = [f"t{i}" for i in range(300)]
INTEGERS = [-(2**63), 2**63 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 0, -1, 1, 2, 3, 1000]
FLOATS = [0.0, -0.0, 0.5, -0.5, 1.0, 2.0, 3.5, float(2**53), 2.0**63, -(2.0**63), 5e-324, -5e-324]
FLOATS += [float("inf"), float("-inf"), 1e300]
KINDS = {
    "word": "category",
    "flag": "category",
    "level": "category",
    "year": "integer",
    "price": "number",
    "day": "datetime",
    "topics": "set",
    "codes": "set",
}


def skewed(rng: np.random.Generator, count: int) -> int:
    """Small numbers often, large ones rarely."""
    return int(count * rng.random() ** 4)


def random_value(name: str, rng: np.random.Generator) -> Any:
    if rng.random() < 0.1:
        return None
    if name == "word":
        return f"w{skewed(rng, 400)}"
    if name == "flag":
        return bool(rng.random() < 0.2)
    if name == "level":
        return skewed(rng, 20) - 3
    if name == "year":
        return int(rng.choice(INTEGERS)) if rng.random() < 0.1 else int(rng.integers(1950, 2050))
    if name == "price":
        return float(rng.choice(FLOATS)) if rng.random() < 0.3 else float(rng.normal())
    if name == "day":
        return int(rng.integers(-(10**18), 10**18))
    if name == "topics":
        return {TOPICS[skewed(rng, len(TOPICS))] for _ in range(rng.integers(0, 5))}
    return {skewed(rng, 50) for _ in range(rng.integers(0, 4))}


def coded(values: list[Any], rng: np.random.Generator) -> tuple[Array, list[Any]]:
    """Codes of values and their labels, in a random order and with some that are not used."""
    labels = sorted({v for v in values if v is not None})
    if labels and rng.random() < 0.3 and not isinstance(labels[0], bool):
        labels = sorted({*labels, max(labels) * 2})
    rng.shuffle(labels)
    place = {label: code for code, label in enumerate(labels)}
    return np.array([-1 if v is None else place[v] for v in values], np.int32), labels


def payload(name: str, values: list[Any], rng: np.random.Generator) -> tuple[Any, ...]:
    """What the native table takes for these values."""
    kind = KINDS[name]
    nulls = np.array([v is None for v in values], bool)
    if kind == "category":
        return (kind, *coded(values, rng))
    if kind == "set":
        rows = [[] if v is None else [*v, *list(v)[:1]] for v in values]  # some label twice
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
        codes, labels = coded([label for row in rows for label in row], rng)
        return (kind, offsets.astype(np.int64), codes, labels, nulls if nulls.any() else None)
    if kind == "number":
        return (kind, np.array([np.nan if v is None else v for v in values], np.float64), None)
    return (kind, np.array([0 if v is None else v for v in values], np.int64), nulls)


class Model:
    """A native table and what must be in it. Changes give a new pair and leave this one."""

    def __init__(self, table: Any, columns: dict[str, list[Any]], rows: int) -> None:
        self.table = table
        self.columns = columns
        self.rows = rows

    @staticmethod
    def empty() -> Model:
        return Model(_core.AnnTable(), {}, 0)

    def append(self, rows: int, names: list[str], rng: np.random.Generator) -> Model:
        fresh = {name: [random_value(name, rng) for _ in range(rows)] for name in names}
        table = self.table.append(rows, {n: payload(n, v, rng) for n, v in fresh.items()})
        columns = {
            name: [*self.columns.get(name, [None] * self.rows), *fresh.get(name, [None] * rows)]
            for name in [*self.columns, *(n for n in names if n not in self.columns)]
        }
        return Model(table, columns, self.rows + rows)

    def update(self, count: int, names: list[str], rng: np.random.Generator) -> Model:
        slots = rng.integers(0, self.rows, count if self.rows else 0)
        fresh = {name: [random_value(name, rng) for _ in slots] for name in names}
        table = self.table.update(slots, {n: payload(n, v, rng) for n, v in fresh.items()})
        columns = {name: list(values) for name, values in self.columns.items()}
        for name, values in fresh.items():
            column = columns.setdefault(name, [None] * self.rows)
            for slot, value in zip(slots, values, strict=True):
                column[slot] = value
        return Model(table, columns, self.rows)

    def take(self, order: Array) -> Model:
        columns = {name: [values[i] for i in order] for name, values in self.columns.items()}
        return Model(self.table.take(order), columns, len(order))

    def saved(self) -> Model:
        parts = {name: np.array(part) for name, part in self.table.parts().items()}
        return Model(_core.AnnTable.from_parts(parts, None), self.columns, self.rows)


def random_leaf(columns: list[str], rng: np.random.Generator) -> tuple[Any, ...]:
    name = str(rng.choice(columns))
    kind = KINDS[name]

    def operand() -> Any:
        value = None
        while value is None:
            value = random_value(name, rng)
        if kind == "set":
            value = next(iter(value), "none such" if name == "topics" else 77)
        if kind == "datetime":
            return Nanoseconds(value)
        if kind in ("integer", "number") and rng.random() < 0.3:
            return float(rng.choice(FLOATS)) if kind == "integer" else int(rng.choice(INTEGERS))
        if name == "word" and rng.random() < 0.1:
            return "not there"
        return value

    if rng.random() < 0.1:
        return ("is_null", name)
    if kind == "set":
        test = str(rng.choice(["contains", "contains_any", "contains_all"]))
    elif kind == "category":
        test = str(rng.choice(["eq", "isin"]))
    else:
        test = str(rng.choice(["eq", "lt", "le", "gt", "ge", "between", "isin"]))
    if test in ("isin", "contains_any", "contains_all"):
        return (test, name, [operand() for _ in range(skewed(rng, 40))])
    return (test, name, *(operand() for _ in range(2 if test == "between" else 1)))


def random_filter(columns: list[str], rng: np.random.Generator, depth: int = 3) -> tuple[Any, ...]:
    draw = rng.random()
    if draw < 0.05 or not columns:
        return ("all",) if rng.random() < 0.5 else ("none",)
    if depth == 0 or draw < 0.4:
        return random_leaf(columns, rng)
    if draw < 0.55:
        return ("not", random_filter(columns, rng, depth - 1))
    parts = (random_filter(columns, rng, depth - 1) for _ in range(rng.integers(1, 5)))
    return ("and" if rng.random() < 0.6 else "or", *parts)


def small_table() -> Any:
    """Three rows of every kind of column."""
    codes = np.array([0, 1, -1], np.int32)
    values = np.array([1, 2, 3])
    members = np.array([0, 1], np.int32)
    return _core.AnnTable().append(
        3,
        {
            "word": ("category", codes, ["a", "b"]),
            "flag": ("category", codes, [True, False]),
            "level": ("category", codes, [5, 6]),
            "year": ("integer", values, None),
            "price": ("number", values / 2.0, None),
            "day": ("datetime", values, None),
            "topics": ("set", np.array([0, 1, 1, 2]), members, ["x", "y"], None),
        },
    )
