# SPDX-License-Identifier: Apache-2.0
"""Attributes as users have them, a table of some kind, to payloads for native code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays import to_numpy
from ._columns import ColumnError, Payload, payload_of_array, payload_of_values
from ._frames import (
    arrow_columns,
    column_of_stream,
    columns_of_stream,
    library_of,
    pandas_columns,
    payload_of_arrow,
    payload_of_polars,
    payload_of_series,
    polars_columns,
)

LONGEST_NAME = 0xFFFF  # bytes of UTF-8, as filters name columns
Schema = Sequence[tuple[str, str, int]]  # name, kind, size of the dictionary


def ingest(where: str, attributes: Any, rows: int, schema: Schema) -> dict[str, Payload]:
    """Return the payload of each column.

    Parameters
    ----------
    where : str
        The public function that is called.
    attributes : mapping, table or None
        What the user gave.
    rows : int
        How many values each column must have.
    schema : sequence of (name, kind, size)
        The columns that the index has; values that can be read as their kind are.

    Returns
    -------
    dict
        Without columns that are new and of which all values are missing: they have no kind yet.

    Raises
    ------
    TypeError
        If `attributes` is no table, or a column holds what columns cannot hold.
    ValueError
        If a column has another number of values than `rows`, or a value that does not fit.
    """
    if attributes is None:
        return {}
    kinds = {name: kind for name, kind, _ in schema}
    payloads: dict[str, Payload] = {}
    for name, column in _columns(where, attributes).items():
        _check_name(where, name)
        try:
            column = _opened(where, column)
            payload = _payload(where, column)
        except ColumnError as error:
            raise error.kind(f"{where}: 'attributes' column {name!r} {error}.") from None
        count = len(column) if payload is None else _count(payload)
        if count != rows:
            raise ValueError(
                f"{where}: 'attributes' column {name!r} must have one value for each row ({rows}); "
                f"got {count}."
            )
        payload = _as_kind(payload, kinds.get(name), count)
        if payload is not None:
            payloads[name] = payload
    return payloads


def _check_name(where: str, name: Any) -> None:
    what = f"{where}: names of 'attributes'"
    if not isinstance(name, str) or not name:
        raise TypeError(f"{what} must be strings that are not empty; got {name!r}.")
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise ValueError(f"{what} must be text in Unicode; got {name!r}.") from None
    if size > LONGEST_NAME:
        raise ValueError(f"{what} must have at most {LONGEST_NAME} bytes of UTF-8; got {size}.")


def _columns(where: str, attributes: Any) -> Mapping[Any, Any]:
    library = library_of(attributes)
    try:
        if isinstance(attributes, Mapping):
            return attributes
        if isinstance(attributes, np.ndarray) and attributes.dtype.names is not None:
            return {name: attributes[name] for name in attributes.dtype.names}
        if library == "pandas" and hasattr(attributes, "columns"):
            return pandas_columns(attributes)
        if library == "polars" and hasattr(attributes, "get_columns"):
            return polars_columns(attributes)
        if library == "pyarrow" and hasattr(attributes, "schema"):
            return arrow_columns(attributes)
        if hasattr(attributes, "__arrow_c_stream__") or hasattr(attributes, "__arrow_c_array__"):
            return columns_of_stream(where, attributes)
    except ColumnError as error:
        raise error.kind(f"{where}: columns of 'attributes' {error}.") from None
    raise TypeError(
        f"{where}: 'attributes' must be a dict of arrays or lists, a pandas or polars table, or "
        f"another with the Arrow PyCapsule interface; got {type(attributes).__name__}."
    )


def _opened(where: str, column: Any) -> Any:
    """Return what a column is that is known by its Arrow PyCapsule interface alone."""
    known = isinstance(column, (list, tuple, range, np.ndarray)) or hasattr(column, "__dlpack__")
    if known or library_of(column) in ("pandas", "polars", "pyarrow"):
        return column
    if hasattr(column, "__arrow_c_array__") or hasattr(column, "__arrow_c_stream__"):
        return column_of_stream(where, column)
    return column


def _payload(where: str, column: Any) -> Payload | None:
    if isinstance(column, (list, tuple, range)):
        return payload_of_values(column)
    if isinstance(column, np.ndarray):
        return payload_of_array(column)
    library = library_of(column)
    if library == "pandas":
        return payload_of_series(column)
    if library == "polars":
        return payload_of_polars(column)
    if library == "pyarrow":
        return payload_of_arrow(column)
    if hasattr(column, "__dlpack__"):
        return payload_of_array(to_numpy(column, where, "attributes"))
    raise ColumnError(TypeError, f"must be an array or a list; got {type(column).__name__}")


def _count(payload: Payload) -> int:
    count = len(payload[1])
    return count - 1 if payload[0] == "set" else count


def _as_kind(payload: Payload | None, kind: str | None, count: int) -> Payload | None:
    """Return the payload as one of `kind` where all of its values can be read as that.

    Libraries store a column of integers with gaps as floats, and one of gaps alone as anything.
    """
    if kind is None or (payload is not None and payload[0] == kind):
        return payload
    if payload is None or _all_missing(payload):
        return _nothing(kind, count)
    if payload[0] == "number" and kind in ("integer", "category"):
        payload = _whole(payload)
    if payload[0] == "integer" and kind == "category":
        _, values, missing = payload
        there = np.ones(count, np.bool_) if missing is None else ~missing
        labels, inverse = np.unique(values[there], return_inverse=True)
        codes = np.full(count, -1, np.int32)
        codes[there] = inverse.ravel()
        return "category", codes, labels.tolist()
    return payload


def _whole(payload: Payload) -> Payload:
    values = payload[1]
    missing = np.isnan(values)
    present = values[~missing]
    if not (np.all(present == np.floor(present)) and np.all(np.abs(present) < 2.0**53)):
        return payload
    return "integer", np.where(missing, 0.0, values).astype(np.int64), missing


def _all_missing(payload: Payload) -> bool:
    kind = payload[0]
    if kind == "category":
        return bool((payload[1] < 0).all())
    if kind == "number":
        return bool(np.isnan(payload[1]).all())
    return payload[-1] is not None and bool(payload[-1].all())


def _nothing(kind: str, count: int) -> Payload:
    everywhere = np.ones(count, np.bool_)
    if kind == "category":
        return "category", np.full(count, -1, np.int32), []
    if kind == "number":
        return "number", np.full(count, np.nan), None
    if kind == "set":
        return "set", np.zeros(count + 1, np.int64), np.empty(0, np.int32), [], everywhere
    return kind, np.zeros(count, np.int64), everywhere
