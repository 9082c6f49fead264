# SPDX-License-Identifier: Apache-2.0
"""Filters as nested tuples: their bytes, and what they mean row by row."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LEAVES = {
    "eq": 1,
    "lt": 2,
    "le": 3,
    "gt": 4,
    "ge": 5,
    "between": 6,
    "isin": 7,
    "contains": 8,
    "contains_any": 9,
    "contains_all": 10,
    "is_null": 11,
}
NODES = {"and": 32, "or": 33}
COUNTED = ("isin", "contains_any", "contains_all")


@dataclass(frozen=True)
class Nanoseconds:
    """A datetime operand."""

    count: int


def encode_value(value: Any) -> bytes:
    if isinstance(value, bool):
        return b"\1" + bytes([value])
    if isinstance(value, int):
        return b"\2" + struct.pack("<q", value)
    if isinstance(value, float):
        return b"\3" + struct.pack("<d", value)
    if isinstance(value, Nanoseconds):
        return b"\5" + struct.pack("<q", value.count)
    text = value.encode()
    return b"\4" + struct.pack("<I", len(text)) + text


def encode(filter_: Sequence[Any]) -> bytes:
    """Bytes of ("eq", column, value), ("isin", column, values), ("and", a, b, ...), ("all",)."""
    name, *rest = filter_
    if name in ("all", "none"):
        return bytes([48 if name == "all" else 49])
    if name == "not":
        return encode(rest[0]) + b"\x22"
    if name in NODES:
        return b"".join(map(encode, rest)) + bytes([NODES[name]]) + struct.pack("<I", len(rest))
    column = rest[0].encode()
    out = bytes([LEAVES[name]]) + struct.pack("<H", len(column)) + column
    if name in COUNTED:
        return out + struct.pack("<I", len(rest[1])) + b"".join(map(encode_value, rest[1]))
    return out + b"".join(map(encode_value, rest[1:]))


def leaf_passes(name: str, have: Any, operands: Sequence[Any]) -> bool:
    """What the leaf says of one value; None is null. Python compares int with float exactly."""
    if name == "is_null":
        return have is None
    if have is None:
        return False
    plain = [v.count if isinstance(v, Nanoseconds) else v for v in operands]
    if name == "eq":
        return bool(have == plain[0])
    if name == "between":
        return bool(plain[0] <= have <= plain[1])
    if name == "isin":
        return any(have == v for v in plain)
    if name == "contains":
        return plain[0] in have
    if name == "contains_any":
        return any(v in have for v in plain)
    if name == "contains_all":
        return all(v in have for v in plain)
    below, equal, above = have < plain[0], have == plain[0], have > plain[0]
    return {"lt": below, "le": below or equal, "gt": above, "ge": above or equal}[name]


def passing(filter_: Sequence[Any], columns: dict[str, list[Any]], rows: int) -> list[bool]:
    """The mask of a filter over columns of Python values."""
    name, *rest = filter_
    if name in ("all", "none"):
        return [name == "all"] * rows
    if name == "not":
        return [not p for p in passing(rest[0], columns, rows)]
    if name in NODES:
        parts = [passing(part, columns, rows) for part in rest]
        combine = all if name == "and" else any
        return [combine(row) for row in zip(*parts, strict=True)]
    operands = rest[1] if name in COUNTED else rest[1:]
    return [leaf_passes(name, have, operands) for have in columns[rest[0]]]
