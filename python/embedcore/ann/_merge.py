# SPDX-License-Identifier: Apache-2.0
"""`ann.merge_topk`: results over parts of the rows to results over all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import to_numpy
from .._check import integer
from ._result import SearchResult

__all__ = ["merge_topk"]

_WHERE = "ann.merge_topk"


def merge_topk(
    results: Iterable[SearchResult | tuple[Any, Any]], k: int | None = None
) -> SearchResult:
    """Merge what searches for the same queries found in parts of the rows.

    Parameters
    ----------
    results : iterable of SearchResult, or of pairs (ids, distances)
        One for each part; arrays (n, k_i), ids padded with -1 and distances with inf. Distances
        must be ascending to be found first, but are not taken to be sorted.
    k : int, optional
        Rows to keep for each query; by default the largest k_i.

    Returns
    -------
    SearchResult
        The k nearest of all; equal distances by ascending id. An id that several parts returned
        counts once, with its smallest distance.

    Raises
    ------
    TypeError
        If `results` holds something else.
    ValueError
        If there are no results, if they are of different numbers of queries, or if k is less
        than 1.

    Notes
    -----
    Exact if every part returned its k nearest: O(n m log m) for m = sum of k_i. The parts may be
    indexes on other machines; ids must mean the same rows everywhere.

    Examples
    --------
    >>> import numpy as np
    >>> from embedcore import ann
    >>> left = np.array([[4, 7]]), np.array([[0.1, 0.5]], np.float32)
    >>> right = np.array([[11, -1]]), np.array([[0.2, np.inf]], np.float32)
    >>> ann.merge_topk([left, right]).ids
    array([[ 4, 11]])
    """
    if not isinstance(results, Iterable):
        raise TypeError(
            f"{_WHERE}: 'results' must be an iterable of results; got {type(results).__name__}."
        )
    pairs = [_pair(number, result) for number, result in enumerate(results)]
    if not pairs:
        raise ValueError(f"{_WHERE}: 'results' must hold at least one result; got none.")
    if len({len(ids) for ids, _ in pairs}) > 1:
        raise ValueError(
            f"{_WHERE}: 'results' must all have the same number of queries; got "
            f"{', '.join(str(len(ids)) for ids, _ in pairs)}."
        )
    widest = max(ids.shape[1] for ids, _ in pairs)
    k = widest if k is None else integer(_WHERE, "k", k, minimum=1)
    ids = np.concatenate([pair[0] for pair in pairs], axis=1)
    distances = np.concatenate([pair[1] for pair in pairs], axis=1)
    ids, distances = _without_repeated(ids, np.where(ids < 0, np.float32(np.inf), distances))
    # Padding has distance inf, but so may a row that is very far: padding goes behind it.
    order = np.lexsort((ids, ids < 0, distances), axis=1)[:, :k]
    merged = np.full((len(ids), k), -1, np.int64)
    nearest = np.full((len(ids), k), np.inf, np.float32)
    merged[:, : order.shape[1]] = np.take_along_axis(ids, order, axis=1)
    nearest[:, : order.shape[1]] = np.take_along_axis(distances, order, axis=1)
    return SearchResult(merged, nearest, (merged >= 0).sum(axis=1))


def _pair(number: int, result: Any) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    if isinstance(result, SearchResult):
        return result.ids, result.distances
    try:
        given = tuple(result)
    except TypeError:
        given = ()
    if len(given) != 2:
        raise TypeError(
            f"{_WHERE}: 'results' must hold SearchResults or pairs (ids, distances); result "
            f"{number} is {type(result).__name__}."
        )
    ids = to_numpy(given[0], _WHERE, "results")
    distances = to_numpy(given[1], _WHERE, "results")
    if ids.dtype.kind not in "iu" or distances.dtype.kind not in "fiu":
        raise TypeError(
            f"{_WHERE}: 'results' must hold integer ids and numeric distances; result {number} has "
            f"dtypes {ids.dtype} and {distances.dtype}."
        )
    if ids.ndim != 2 or ids.shape != distances.shape:
        raise ValueError(
            f"{_WHERE}: 'results' must hold ids and distances of one shape (n, k); result {number} "
            f"has shapes {ids.shape} and {distances.shape}."
        )
    if ids.dtype == np.uint64 and ids.size and ids.max() > np.uint64((1 << 63) - 1):
        raise ValueError(
            f"{_WHERE}: 'results' must hold ids of int64; result {number} has {ids.max()}."
        )
    if np.isnan(distances).any():
        raise ValueError(
            f"{_WHERE}: 'results' must hold distances that are not NaN; result {number} has NaN."
        )
    with np.errstate(over="ignore"):  # beyond float32 is as far as padding, and before it
        return ids.astype(np.int64, copy=False), distances.astype(np.float32, copy=False)


def _without_repeated(
    ids: NDArray[np.int64], distances: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Turn all but the nearest of equal ids in a row into padding."""
    order = np.lexsort((distances, ids), axis=1)
    sorted_ids = np.take_along_axis(ids, order, axis=1)
    repeated = np.zeros(ids.shape, np.bool_)
    repeated[:, 1:] = (sorted_ids[:, 1:] == sorted_ids[:, :-1]) & (sorted_ids[:, 1:] >= 0)
    if not repeated.any():
        return ids, distances
    where = np.zeros(ids.shape, np.bool_)
    np.put_along_axis(where, order, repeated, axis=1)
    return np.where(where, -1, ids), np.where(where, np.float32(np.inf), distances)
