# SPDX-License-Identifier: Apache-2.0
"""Vectors and queries as users have them, to arrays that native code takes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import is_torch, to_numpy
from .._check import integer
from ._masked import refuse_masked

DTYPES = ("float32", "float16", "bfloat16", "int8")
METRICS = ("cosine", "ip", "l2")

Floats = NDArray[np.float32]

# Rows and queries are at most so long (1e15): squares of their distances stay far from the end of
# float32. Under the cosine only queries may be longer, because they are scaled.
_MOST_SQUARE = 1e30


def widths_of(where: str, prefixes: Any, dim: int) -> tuple[int, ...]:
    """Return the widths below `dim` that queries may have, ascending.

    Raises
    ------
    TypeError, ValueError
        For what is no sequence of integers from 1 to `dim`.
    """
    if isinstance(prefixes, str) or not isinstance(prefixes, Iterable):
        raise TypeError(
            f"{where}: 'prefixes' must be a sequence of integers; got {type(prefixes).__name__}."
        )
    widths = {integer(where, "prefixes", width, minimum=1, maximum=dim) for width in prefixes}
    return tuple(sorted(widths - {dim}))


def dtype_name(array: Any) -> str:
    """Return the name of the dtype of a NumPy array or Torch tensor."""
    name = getattr(array.dtype, "name", None)  # of NumPy, whatever the byte order
    return name if isinstance(name, str) else str(array.dtype).removeprefix("torch.")


def vectors_of(where: str, vectors: Any, dim: int, dtype: str | None) -> tuple[Any, str]:
    """Return rows (n, dim) in the dtype of an index, and the name of that dtype.

    Parameters
    ----------
    where : str
        The public function that is called.
    vectors : array
        Rows (n, dim), or one row (dim,).
    dim : int
        Columns that the rows must have.
    dtype : str or None
        That of the index; None if it has none yet, then that of the rows, float32 for float64.

    Returns
    -------
    array
        NumPy, in native byte order, its last axis contiguous; bfloat16 as uint16. Not copied where
        the dtype is right.
    str
        Name of its dtype.
    """
    rows = _with_rows(where, "vectors", _array_of(where, "vectors", vectors, dtype), dim)
    if rows.dtype == np.uint16 and _is_bfloat16(vectors):
        return _in_rows(rows), "bfloat16"
    given = dtype_name(rows)
    if given == dtype or (dtype is None and given in DTYPES):
        return _in_rows(rows), given
    kept = dtype or "float32"
    if given not in ("float64", *DTYPES) or (kept == "int8" and given != "int8"):
        allowed = "int8" if dtype == "int8" else "float32, float16, bfloat16, float64 or int8"
        raise TypeError(f"{where}: 'vectors' must be {allowed}; got {given}.")
    converted = _converted(rows, kept)
    _check_range(where, rows, widened(converted, kept), kept)
    return converted, kept


def _is_bfloat16(array: Any) -> bool:
    return hasattr(array, "dtype") and dtype_name(array) == "bfloat16"


def _array_of(where: str, argument: str, value: Any, dtype: str | None) -> NDArray[Any]:
    """Return a NumPy array; bfloat16 as uint16 where that is wanted, else as it comes."""
    if _is_bfloat16(value) and dtype in (None, "bfloat16"):
        return _bits_of(where, argument, value)
    refuse_masked(where, argument, value)
    try:
        array = to_numpy(value, where, argument)
    except ValueError as error:  # lists of different lengths
        raise ValueError(f"{where}: '{argument}' must be an array; {error}.") from None
    if array.dtype.kind in "OSUT" and array.size:
        raise TypeError(f"{where}: '{argument}' must be an array; got {type(value).__name__}.")
    return array


def _bits_of(where: str, argument: str, array: Any) -> NDArray[np.uint16]:
    if not is_torch(array):
        return np.asarray(array).view(np.uint16)
    if array.requires_grad or array.device.type != "cpu":
        to_numpy(array, where, argument)  # says which of the two is wrong
    bits: NDArray[np.uint16] = array.view(sys.modules["torch"].int16).numpy().view(np.uint16)
    return bits


def _in_rows(rows: NDArray[Any]) -> NDArray[Any]:
    """Return rows in native byte order whose last axis is contiguous."""
    if not rows.dtype.isnative:
        rows = rows.astype(rows.dtype.newbyteorder("="))
    return rows if rows.strides[1] == rows.itemsize else np.ascontiguousarray(rows)


def _with_rows(
    where: str, argument: str, rows: Any, dim: int, prefixes: tuple[int, ...] = ()
) -> Any:
    if len(rows.shape) == 1 and rows.shape[0] > 0:
        rows = rows[None]
    shape = tuple(rows.shape)
    if len(shape) == 2 and (shape[1] == dim or shape[1] in prefixes):
        return rows
    if shape == (0,):
        return np.empty((0, dim), np.float32)
    also = f", or as many as one of the prefixes {prefixes}" if prefixes else ""
    raise ValueError(
        f"{where}: '{argument}' must have {dim} columns (dim){also}; got shape {shape}."
    )


def _check_range(where: str, rows: NDArray[Any], kept: Floats, dtype: str) -> None:
    """Raise for finite numbers that have become infinite; others are refused with their row."""
    if dtype == "int8" or np.isfinite(kept).all():
        return
    beyond = np.flatnonzero((np.isinf(kept) & np.isfinite(rows)).any(axis=1))
    if len(beyond):
        raise ValueError(
            f"{where}: 'vectors' must hold numbers that {dtype} can hold; row {beyond[0]} has one "
            "that it cannot."
        )


def _converted(rows: NDArray[Any], dtype: str) -> NDArray[Any]:
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):  # what becomes infinite is refused with its row
            return rows.astype(dtype, order="C")
    bits = np.ascontiguousarray(rows, np.float32).view(np.uint32)
    # Round to nearest, ties to even; NaN stays NaN, and infinity what it is.
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(nan, 0x7FC0, rounded).astype(np.uint16)


def widened(rows: NDArray[Any], dtype: str | None) -> Floats:
    """Return rows as native code gives them, in float32: every value is kept."""
    if dtype == "bfloat16":
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return rows.astype(np.float32, copy=False)


def given_of(rows: NDArray[Any], dtype: str | None) -> NDArray[Any]:
    """Return rows as native code gives them in the dtype of the index."""
    if dtype != "bfloat16":
        return rows
    try:
        import ml_dtypes
    except ImportError:
        return widened(rows, dtype)
    return rows.view(ml_dtypes.bfloat16)


def queries_of(
    where: str, queries: Any, dim: int, metric: str, prefixes: tuple[int, ...] = ()
) -> Floats:
    """Return queries (n, dim), or (n, one of `prefixes`), as contiguous float32.

    Raises
    ------
    ValueError
        For another number of columns, values that are not finite (the first row is named), zero
        queries under the cosine, and others that are longer than 1e15.
    """
    if type(queries) is not np.ndarray:
        queries = _array_of(where, "queries", queries, "float32")
    rows = _with_rows(where, "queries", queries, dim, prefixes)
    if rows.dtype != np.float32:
        if dtype_name(rows) not in ("float64", *DTYPES):
            raise TypeError(
                f"{where}: 'queries' must be float32, float16, bfloat16, float64 or int8; got "
                f"{rows.dtype}."
            )
        with np.errstate(over="ignore"):
            rows = rows.astype(np.float32)
    rows = np.ascontiguousarray(rows)
    squares = np.einsum("ij,ij->i", rows, rows)
    if len(squares) and not (squares.max() <= _MOST_SQUARE and squares.min() > 0.0):
        _check_rows(where, rows, metric, squares)
    return rows


def _check_rows(where: str, rows: Floats, metric: str, squares: Floats) -> None:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise ValueError(f"{where}: 'queries' must be finite; row {bad[0]} is not.")
    zero = np.flatnonzero(~rows.any(axis=1))
    if metric == "cosine" and len(zero):
        raise ValueError(
            f"{where}: 'queries' must not be zero, because a zero vector has no direction; row "
            f"{zero[0]} is."
        )
    long = np.flatnonzero(squares > _MOST_SQUARE)
    if metric != "cosine" and len(long):
        raise ValueError(
            f"{where}: 'queries' must be no longer than 1e15, so that distances fit float32; row "
            f"{long[0]} is."
        )
