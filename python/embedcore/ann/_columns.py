# SPDX-License-Identifier: Apache-2.0
"""A column of attributes, an array or a list, as the payload that native code takes.

Payloads are tuples that start with the kind of the column:

==========  =================================================================================
category    codes int32 (-1 is missing), distinct labels: a list of str, of int or of bool
integer     values int64, missing (bool array or None)
number      values float64, NaN is missing, None
datetime    nanoseconds since 1970 int64, missing (bool array or None)
set         offsets int64 (rows + 1), codes int32 of the members, labels, missing
==========  =================================================================================
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._literals import nanoseconds, times

Payload = tuple[Any, ...]
Missing = NDArray[np.bool_]
Labels = list[str] | list[int] | list[bool]


class ColumnError(Exception):
    """What is wrong with a column: the error to raise, and what follows the column's name."""

    def __init__(self, kind: type[Exception], text: str) -> None:
        super().__init__(text)
        self.kind = kind


def payload_of_array(array: NDArray[Any]) -> Payload | None:
    """Return the payload of a NumPy array; None where all is missing and no kind is named."""
    if array.ndim != 1:
        raise ColumnError(ValueError, f"must have one axis; got shape {array.shape}")
    missing = None
    if isinstance(array, np.ma.MaskedArray):
        missing = np.ma.getmaskarray(array)
        array = array.data
    kind = array.dtype.kind
    if kind == "b":
        return categories_of_codes(array.astype(np.int32), [False, True], missing)
    if kind in "iu":
        return integers(array, missing)
    if kind == "f":
        payload = numbers(array, missing)
        # What has no value has no kind: an empty column of strings may come as floats.
        return None if len(array) and np.isnan(payload[1]).all() else payload
    if kind == "M":
        return datetimes(array, missing)
    if kind in "OUT":
        values = array.tolist()
        if missing is not None:
            values = [None if hidden else v for v, hidden in zip(values, missing, strict=True)]
        return payload_of_values(values)
    raise ColumnError(
        TypeError,
        "must hold booleans, integers, numbers, strings, dates or lists of labels; got dtype "
        f"{array.dtype}",
    )


def integers(array: NDArray[Any], missing: Missing | None) -> Payload:
    """Return the payload of an array of integers of any width."""
    if array.dtype.itemsize == 8 and array.dtype.kind == "u" and len(array):
        present = array if missing is None else array[~missing]
        if len(present) and present.max() > np.uint64((1 << 63) - 1):
            raise ColumnError(ValueError, f"must hold integers of int64; got {present.max()}")
    return "integer", np.ascontiguousarray(array, np.int64), _some(missing)


def numbers(array: NDArray[Any], missing: Missing | None) -> Payload:
    """Return the payload of an array of floating-point numbers."""
    values = np.ascontiguousarray(array, np.float64)
    if missing is not None and missing.any():
        values = np.where(missing, np.nan, values)
    return "number", values, None


def datetimes(array: NDArray[Any], missing: Missing | None) -> Payload:
    """Return the payload of a datetime64 array of any unit."""
    absent = np.isnat(array) if missing is None else np.isnat(array) | missing
    try:
        values = times(np.where(absent, np.datetime64("NaT"), array), missing=True)
    except ValueError as error:
        raise ColumnError(ValueError, str(error)) from None
    return "datetime", np.where(absent, 0, values), _some(absent)


def categories_of_codes(
    codes: NDArray[np.int32], labels: Labels, missing: Missing | None
) -> Payload:
    """Return the payload of categories that are encoded already."""
    if missing is not None and missing.any():
        codes = np.where(missing, np.int32(-1), codes)
    return "category", np.ascontiguousarray(codes, np.int32), labels


def set_of_members(
    lengths: NDArray[np.int64], codes: NDArray[np.int32], labels: Labels, missing: Missing | None
) -> Payload:
    """Return the payload of sets, given row after row; members with code -1 are left out."""
    if len(codes) and codes.min() < 0:
        there = codes >= 0
        rows = np.repeat(np.arange(len(lengths)), lengths)[there]
        lengths = np.bincount(rows, minlength=len(lengths))
        codes = codes[there]
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return "set", offsets, np.ascontiguousarray(codes, np.int32), labels, _some(missing)


def _some(missing: Missing | None) -> Missing | None:
    return missing if missing is not None and missing.any() else None


class _Codes(dict[Any, int]):
    """Numbers of labels in the order in which they are met."""

    def __missing__(self, label: Any) -> int:
        code = self[label] = len(self)
        return code


def encoded(values: Iterable[Any], count: int) -> tuple[NDArray[np.int32], list[Any]]:
    """Return the code of each value, all of one type, and the labels."""
    codes = _Codes()
    array = np.fromiter(map(codes.__getitem__, values), np.int32, count)
    return array, list(codes)


# What values of a list may be; subclasses come first.
_FAMILIES: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("booleans", (bool, np.bool_)),
    ("integers", (int, np.integer)),
    ("numbers", (float, np.floating)),
    ("strings", (str,)),
    ("dates", (datetime.date, np.datetime64)),
    ("lists", (list, tuple, set, frozenset, np.ndarray)),
)
_LABELS = {"booleans": bool, "integers": int, "strings": str}


def _family(kind: type) -> str:
    if kind is type(None) or kind.__name__ in ("NAType", "NaTType"):
        return "missing"
    if issubclass(kind, np.timedelta64):  # an integer of NumPy's
        return kind.__name__
    for family, kinds in _FAMILIES:
        if issubclass(kind, kinds):
            return family
    return kind.__name__


def payload_of_values(values: Sequence[Any]) -> Payload | None:
    """Return the payload of a list of Python objects; None where all of them are missing.

    None, NaN, NaT and pandas' NA are missing.
    """
    families = {kind: _family(kind) for kind in set(map(type, values))}
    found = set(families.values()) - {"missing"}
    missing = np.zeros(len(values), np.bool_)
    if "missing" in families.values():
        missing = np.fromiter((families[type(v)] == "missing" for v in values), np.bool_)
    if "numbers" in found and not found <= {"numbers", "integers"}:  # then they must be NaN
        missing |= np.fromiter(
            (families[type(v)] == "numbers" and v != v for v in values), np.bool_
        )
        rest = {families[type(v)] for v, absent in zip(values, missing, strict=True) if not absent}
        found = rest
    if not found:
        return None
    if found == {"integers", "numbers"}:
        found = {"numbers"}
    if len(found) > 1:
        raise _mixed(values, families, missing, found)
    (family,) = found
    return _payload_of_family(family, values, missing)


def _mixed(
    values: Sequence[Any], families: dict[type, str], missing: Missing, found: set[str]
) -> ColumnError:
    present = [row for row in range(len(values)) if not missing[row]]
    first = families[type(values[present[0]])]
    other = next(row for row in present if families[type(values[row])] != first)
    return ColumnError(
        TypeError,
        f"must hold values of one kind; got {' and '.join(sorted(found))}, row {other} is "
        f"{values[other]!r}",
    )


def _payload_of_family(family: str, values: Sequence[Any], missing: Missing) -> Payload:
    absent = missing.tolist()
    if family == "lists":
        return _sets(values, missing)
    if family in ("booleans", "strings"):
        make = _LABELS[family]
        present = (make(v) for v, a in zip(values, absent, strict=True) if not a)
        codes = np.full(len(values), -1, np.int32)
        codes[~missing], labels = encoded(present, int((~missing).sum()))
        return "category", codes, labels
    if family == "integers":
        try:
            whole = [0 if a else int(v) for v, a in zip(values, absent, strict=True)]
            return "integer", np.array(whole, np.int64), _some(missing)
        except OverflowError:
            big = next(v for v in values if v is not None and not -(1 << 63) <= v < 1 << 63)
            raise ColumnError(ValueError, f"must hold integers of int64; got {big}") from None
    if family == "numbers":
        try:
            real = [np.nan if a else float(v) for v, a in zip(values, absent, strict=True)]
        except OverflowError:
            raise ColumnError(ValueError, "must hold numbers of float64") from None
        return "number", np.array(real, np.float64), None
    if family == "dates":
        return _dates(values, missing)
    raise ColumnError(
        TypeError,
        f"must hold booleans, integers, numbers, strings, dates or lists of labels; got {family}",
    )


def _dates(values: Sequence[Any], missing: Missing) -> Payload:
    moments = np.zeros(len(values), np.int64)
    absent = missing.copy()
    for row in np.flatnonzero(~missing).tolist():
        value = values[row]
        try:
            if hasattr(value, "to_datetime64"):  # pandas, to the nanosecond
                value = value.to_datetime64()
            if not isinstance(value, np.datetime64):
                moments[row] = nanoseconds(value)
            elif np.isnat(value):
                absent[row] = True
            else:
                moments[row] = times(np.asarray(value)[None])[0]
        except ValueError as error:
            raise ColumnError(ValueError, str(error)) from None
    return "datetime", moments, _some(absent)


def _sets(values: Sequence[Any], missing: Missing) -> Payload:
    # Python's sets have an order that differs from run to run.
    rows: list[Any] = [
        () if absent else sorted(row, key=repr) if isinstance(row, (set, frozenset)) else row
        for row, absent in zip(values, missing.tolist(), strict=True)
    ]
    rows = [row.ravel().tolist() if isinstance(row, np.ndarray) else row for row in rows]
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    members = list(chain.from_iterable(rows))
    families = {kind: _family(kind) for kind in set(map(type, members))}
    found = set(families.values()) - {"missing"}
    if not found:
        return set_of_members(lengths, np.full(len(members), -1, np.int32), [], missing)
    if len(found) > 1 or not found <= set(_LABELS):
        raise ColumnError(
            TypeError,
            "must hold lists of strings, of integers or of booleans; got lists of "
            f"{' and '.join(sorted(found))}",
        )
    (family,) = found
    make = _LABELS[family]
    there = np.ones(len(members), np.bool_)
    if "missing" in families.values():
        there = np.fromiter((families[type(m)] != "missing" for m in members), np.bool_)
        members = [m for m in members if families[type(m)] != "missing"]
    codes = np.full(len(there), -1, np.int32)
    codes[there], labels = encoded(map(make, members), len(members))
    if family == "integers" and not all(-(1 << 63) <= label < 1 << 63 for label in labels):
        raise ColumnError(ValueError, "must hold lists of integers of int64")
    return set_of_members(lengths, codes, labels, missing)
