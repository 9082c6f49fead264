# SPDX-License-Identifier: Apache-2.0
"""Columns of pandas, polars and Arrow as payloads. None of them is needed, or imported here."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ._columns import (
    ColumnError,
    Payload,
    categories_of_codes,
    datetimes,
    encoded,
    integers,
    numbers,
    payload_of_array,
    payload_of_values,
    set_of_members,
)

Columns = dict[Any, Any]


def library_of(value: object) -> str:
    """Return the package that the type of `value` comes from."""
    return type(value).__module__.partition(".")[0]


def columns_of_stream(where: str, table: Any) -> Columns:
    """Return the columns of an object with the Arrow PyCapsule interface.

    Raises
    ------
    ImportError
        If no library is installed that reads it.
    TypeError
        If it is a single column.
    """
    try:
        return arrow_columns(importlib.import_module("pyarrow").table(table))
    except ImportError:
        pass
    except (TypeError, ValueError) as error:  # of Arrow: the schema is not one of a table
        raise TypeError(
            f"{where}: 'attributes' must be a table with named columns; {error}."
        ) from None
    try:
        return polars_columns(importlib.import_module("polars").DataFrame(table))
    except ImportError:
        raise _nothing_reads(where) from None


def arrow_columns(table: Any) -> Columns:
    """Return the columns of a pyarrow Table or RecordBatch."""
    return _named(names=table.schema.names, columns=table.columns)


def polars_columns(frame: Any) -> Columns:
    """Return the columns of a polars DataFrame."""
    return {series.name: series for series in frame.get_columns()}


def pandas_columns(frame: Any) -> Columns:
    """Return the columns of a pandas DataFrame."""
    columns = [frame.iloc[:, number] for number in range(frame.shape[1])]
    return _named(names=list(frame.columns), columns=columns)


def _named(names: list[Any], columns: list[Any]) -> Columns:
    named = dict(zip(names, columns, strict=True))
    if len(named) < len(columns):
        twice = next(name for name in names if names.count(name) > 1)
        raise ColumnError(ValueError, f"must have distinct names; got {twice!r} twice")
    return named


def payload_of_series(series: Any) -> Payload | None:
    """Return the payload of a pandas Series, Index or extension array."""
    pandas = importlib.import_module("pandas")
    series = pandas.Series(series)
    dtype, kinds = series.dtype, pandas.api.types
    if isinstance(dtype, pandas.CategoricalDtype):
        labels = dtype.categories.tolist()
        if {type(label) for label in labels} in ({str}, {int}, {bool}):
            return categories_of_codes(series.cat.codes.to_numpy().astype(np.int32), labels, None)
        return payload_of_values(series.tolist())
    if isinstance(dtype, getattr(pandas, "ArrowDtype", ())):
        return payload_of_arrow(importlib.import_module("pyarrow").array(series.array))
    missing = series.isna().to_numpy(np.bool_)
    if kinds.is_bool_dtype(dtype) and not kinds.is_object_dtype(dtype):
        codes = series.to_numpy(np.bool_, na_value=False).astype(np.int32)
        return categories_of_codes(codes, [False, True], missing)
    if kinds.is_integer_dtype(dtype):
        whole = np.uint64 if kinds.is_unsigned_integer_dtype(dtype) else np.int64
        return integers(series.to_numpy(whole, na_value=0), missing)
    if kinds.is_float_dtype(dtype):
        return numbers(series.to_numpy(np.float64, na_value=np.nan), missing)
    if isinstance(dtype, pandas.DatetimeTZDtype):
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    if kinds.is_datetime64_any_dtype(dtype):
        return datetimes(series.to_numpy(), missing)
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        return payload_of_array(series.to_numpy())
    return payload_of_values(series.tolist())


def payload_of_polars(series: Any) -> Payload | None:
    """Return the payload of a polars Series."""
    polars = importlib.import_module("polars")
    dtype = series.dtype
    missing = series.is_null().to_numpy()
    if dtype == polars.Boolean:
        codes = series.cast(polars.Int32).fill_null(-1).to_numpy()
        return categories_of_codes(codes, [False, True], None)
    if dtype.is_integer():
        return integers(series.fill_null(0).to_numpy(), missing)
    if dtype.is_float() or dtype.is_decimal():
        return numbers(series.cast(polars.Float64).fill_null(float("nan")).to_numpy(), missing)
    if dtype in (polars.Date, polars.Datetime):
        if dtype == polars.Datetime and dtype.time_zone is not None:
            series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return datetimes(series.to_numpy(), missing)
    if dtype in (polars.Categorical, polars.Enum):
        values = series.cast(polars.String).to_list()
    else:
        values = series.to_list()
    return payload_of_values(values)


def column_of_stream(where: str, column: Any) -> Any:
    """Return a column with the Arrow PyCapsule interface as one of pyarrow or polars."""
    try:
        pa = importlib.import_module("pyarrow")
        return (
            pa.array(column) if hasattr(column, "__arrow_c_array__") else pa.chunked_array(column)
        )
    except ImportError:
        pass
    try:
        return importlib.import_module("polars").Series(column)
    except ImportError:
        raise _nothing_reads(where) from None


def _nothing_reads(where: str) -> ImportError:
    return ImportError(f"{where}: reading Arrow data needs pyarrow or polars; install pyarrow.")


def payload_of_arrow(column: Any) -> Payload | None:
    """Return the payload of a pyarrow Array or ChunkedArray."""
    pa = importlib.import_module("pyarrow")
    if isinstance(column, pa.ChunkedArray):
        if pa.types.is_dictionary(column.type) and column.num_chunks > 1:
            column = column.cast(column.type.value_type)  # each chunk has its own dictionary
        column = _in_one(pa, column)
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    try:
        return _payload_of_arrow(pa, column)
    except pa.ArrowInvalid as error:
        raise ColumnError(ValueError, f"must fit int64 and nanoseconds; got {error}") from None


def _in_one(pa: Any, column: Any) -> Any:
    """Return a ChunkedArray as one Array."""
    if column.num_chunks == 1:
        return column.chunk(0)
    try:
        whole = column.combine_chunks()
        return whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)
    except (pa.ArrowException, IndexError):  # of slices that came through a stream
        return pa.array(column.to_pylist(), column.type)


def _payload_of_arrow(pa: Any, column: Any) -> Payload | None:
    kind, kinds = column.type, pa.types
    missing = column.is_null().to_numpy(zero_copy_only=False)
    if kinds.is_null(kind):
        return None
    if kinds.is_dictionary(kind) or _is_text(pa, kind):
        codes, labels = _arrow_codes(pa, column)
        if labels is None:
            return payload_of_arrow(column.dictionary_decode())
        return categories_of_codes(codes, labels, None)
    if kinds.is_boolean(kind):
        codes = column.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
        return categories_of_codes(codes, [False, True], None)
    if kinds.is_integer(kind):
        values = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        return integers(values, missing)
    if kinds.is_floating(kind) or kinds.is_decimal(kind):
        values = column.cast(pa.float64()).fill_null(float("nan")).to_numpy(zero_copy_only=False)
        return numbers(values, missing)
    if kinds.is_date(kind) or kinds.is_timestamp(kind):
        whole = column.cast(pa.timestamp("ns", getattr(kind, "tz", None))).cast(pa.int64())
        values = whole.fill_null(0).to_numpy(zero_copy_only=False)
        return datetimes(values.view("datetime64[ns]"), missing)
    if hasattr(column, "flatten") and not (kinds.is_struct(kind) or kinds.is_map(kind)):
        lengths = importlib.import_module("pyarrow.compute").list_value_length(column)
        lengths = lengths.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        codes, labels = _arrow_codes(pa, column.flatten())
        if labels is None:
            return payload_of_values(column.to_pylist())
        return set_of_members(lengths, codes, labels, missing)
    raise ColumnError(
        TypeError,
        "must hold booleans, integers, numbers, strings, dates or lists of labels; got Arrow type "
        f"{kind}",
    )


def _is_text(pa: Any, kind: Any) -> bool:
    tests = ("is_string", "is_large_string", "is_string_view")
    return any(getattr(pa.types, test)(kind) for test in tests if hasattr(pa.types, test))


def _arrow_codes(pa: Any, column: Any) -> tuple[Any, Any]:
    """Codes of labels, -1 for missing ones, and the labels, None unless of one usable type."""
    if _is_text(pa, column.type):
        column = column.cast(pa.large_string()).dictionary_encode()
    elif pa.types.is_integer(column.type):
        column = column.cast(pa.int64()).dictionary_encode()
    elif not pa.types.is_dictionary(column.type):
        return None, None
    labels = column.dictionary.to_pylist()
    if not {type(label) for label in labels} <= {str, int, bool, type(None)}:
        return None, None
    codes = column.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
    if len(set(labels)) == len(labels) and None not in labels:
        return codes, labels
    # A dictionary may repeat labels, or have one that is missing.
    present = [label for label in labels if label is not None]
    numbers_of, distinct = encoded(present, len(present))
    table = np.full(len(labels) + 1, -1, np.int32)  # the last is that of code -1
    table[[number for number, label in enumerate(labels) if label is not None]] = numbers_of
    return table[codes], distinct
