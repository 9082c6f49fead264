# SPDX-License-Identifier: Apache-2.0
"""Values of filter expressions as bytes: a tag, then the value, little-endian.

Tags: 1 boolean (1 byte), 2 integer (int64), 3 number (float64), 4 string (length as uint32, UTF-8),
5 point in time (int64, nanoseconds since 1970, UTC).
"""

from __future__ import annotations

import datetime
import math
import struct
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._masked import refuse_masked

TRUE = b"\x01\x01"
FALSE = b"\x01\x00"

_integer = struct.Struct("<Bq").pack
_number = struct.Struct("<Bd").pack
_text_head = struct.Struct("<BI").pack
_count = struct.Struct("<I").pack

_EPOCH = datetime.datetime(1970, 1, 1)
_OUT_OF_RANGE = "must be a time from 1677-09-21 to 2262-04-11, to the nanosecond"
_INT64 = range(-(1 << 63), 1 << 63)


def _encode_int(value: int) -> bytes:
    if value in _INT64:
        return _integer(2, value)
    # What int64 does not hold is compared as a number: above or below all integers of a column.
    try:
        number = float(value)
        # Rounded to the least int64, which it is below, it would equal it.
        return _number(3, math.nextafter(number, -math.inf) if number > value else number)
    except OverflowError:
        return _number(3, math.inf if value > 0 else -math.inf)


def _encode_float(value: float) -> bytes:
    if value != value:
        raise ValueError("must not be NaN, which no row equals; got nan. Use is_null()")
    return _number(3, value)


def _encode_str(value: str) -> bytes:
    try:
        data = value.encode("utf-8")
    except UnicodeEncodeError:  # halves of a pair
        raise ValueError(f"must be text in Unicode; got {value!r}") from None
    return _text_head(4, len(data)) + data


def nanoseconds(value: datetime.date) -> int:
    """Return a date (its midnight) or datetime as nanoseconds since 1970; naive ones are UTC."""
    if not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    elif value.tzinfo is not None:
        try:
            value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        except OverflowError:
            raise ValueError(f"{_OUT_OF_RANGE}; got {value}") from None
    elapsed = value - _EPOCH
    whole = elapsed.days * 86_400 + elapsed.seconds
    result = (whole * 1_000_000 + elapsed.microseconds) * 1000
    if result not in _INT64:
        raise ValueError(f"{_OUT_OF_RANGE}; got {value}")
    return result


def _encode_time(value: datetime.date) -> bytes:
    if hasattr(value, "to_datetime64"):  # pandas: finer than datetime, and has a missing value
        return _encode_datetime64(value.to_datetime64())
    return _integer(5, nanoseconds(value))


def _encode_datetime64(value: np.datetime64) -> bytes:
    return _integer(5, int(times(np.asarray(value)[None])[0]))


def times(values: NDArray[Any], *, missing: bool = False) -> NDArray[np.int64]:
    """Return datetime64 values as nanoseconds since 1970.

    Raises
    ------
    ValueError
        For times that nanoseconds in int64 do not reach, and for NaT unless `missing`.
    """
    if not missing and np.isnat(values).any():
        raise ValueError("must not be NaT, which no row equals; got NaT. Use is_null()")
    exact = values.astype("datetime64[ns]")
    back = exact.astype(values.dtype)
    wrapped = (back != values) & ~np.isnat(values)
    if wrapped.any():
        bad = values[wrapped][0]
        raise ValueError(f"{_OUT_OF_RANGE}; got {bad}")
    return exact.view(np.int64)


ENCODERS: dict[type, Callable[[Any], bytes]] = {
    bool: lambda value: TRUE if value else FALSE,
    int: _encode_int,
    float: _encode_float,
    str: _encode_str,
    datetime.date: _encode_time,
    datetime.datetime: _encode_time,
    np.datetime64: _encode_datetime64,
}
_KINDS: tuple[tuple[type | tuple[type, ...], Callable[[Any], bytes]], ...] = (
    (np.bool_, lambda value: TRUE if value else FALSE),
    (np.integer, lambda value: _encode_int(int(value))),
    (np.floating, lambda value: _encode_float(float(value))),
    (str, _encode_str),
    (int, lambda value: _encode_int(int(value))),
    (float, _encode_float),
    (datetime.date, _encode_time),
)


def encode(where: str, value: object) -> bytes:
    """Return the bytes of a value; `where` starts the message of an error."""
    encoder = ENCODERS.get(type(value)) or _encoder_of(where, value)
    try:
        return encoder(value)
    except ValueError as error:
        raise ValueError(f"{where}: the value {error}.") from None


def _encoder_of(where: str, value: object) -> Callable[[Any], bytes]:
    missing = value is None or type(value).__name__ in ("NAType", "NaTType")
    if not missing and not isinstance(value, np.timedelta64):  # which NumPy takes for an integer
        for kind, encoder in _KINDS:
            if isinstance(value, kind):
                return encoder
    raise TypeError(
        f"{where}: the value must be a boolean, number, string, date or datetime; got "
        f"{type(value).__name__}." + (" Use is_null() for missing values." if missing else "")
    )


_LONG = 64  # values in an array from which it pays to encode them together


def encode_many(where: str, values: Any) -> bytes:
    """Return the number of values as uint32, then their bytes."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(
            f"{where}: 'values' must be a list, set or array of values; got "
            f"{type(values).__name__}."
        )
    refuse_masked(where, "values", values)
    if hasattr(values, "to_pylist"):  # Arrow, which has no NumPy form of strings, dates and nulls
        values = values.to_pylist()
    elif hasattr(values, "to_numpy"):
        values = values.to_numpy()
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise ValueError(f"{where}: 'values' must have one axis; got shape {values.shape}.")
        if values.dtype.kind in "iM" and len(values) >= _LONG:
            return _encode_long(where, values)
        values = values if values.dtype.kind == "M" else values.tolist()
    items = [encode(where, value) for value in values]
    return _count(len(items)) + b"".join(items)


def _encode_long(where: str, values: NDArray[Any]) -> bytes:
    packed = np.empty(len(values), np.dtype([("tag", "u1"), ("value", "<i8")]))
    packed["tag"] = 2 if values.dtype.kind == "i" else 5
    try:
        packed["value"] = values if values.dtype.kind == "i" else times(values)
    except ValueError as error:
        raise ValueError(f"{where}: each of 'values' {error}.") from None
    return _count(len(packed)) + packed.tobytes()
