# SPDX-License-Identifier: Apache-2.0
"""Rows in order of depth, and k of them from each class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import is_torch, to_numpy
from .._check import choose, integer
from ._labels import members_of
from ._score import score
from ._subset import errors_of, rows_numbered_in

STRATEGIES = ("deepest", "outermost", "spread")


def order(
    x: Any,
    corpus: Any = None,
    *,
    metric: str = "cosine",
    k: int | None = None,
    weights: Any = None,
    precision: str = "float32",
    n_directions: int = 1000,
    seed: int = 0,
    shrinkage: float | str = "auto",
    threads: int | None = None,
) -> NDArray[np.int64]:
    """Return the rows of x, deepest first; equal depths in the order of the rows.

    Parameters
    ----------
    x : array, shape (n, d)
        The rows to order.
    corpus : array, shape (m, d), optional
        Where depth is taken. ``None``: each row in the other rows of x.
    metric : str
        The depth, see :func:`score`.
    k : int, optional
        Return the first k indices only, 1 <= k <= n.
    weights, precision, n_directions, seed, shrinkage, threads
        Passed to :func:`score`.

    Returns
    -------
    ndarray of int64, shape (n,) or (k,)

    Raises
    ------
    TypeError, ValueError
        As :func:`score`; k out of range.

    Notes
    -----
    Cost: one call of :func:`score` and one sort.
    """
    x = x if is_torch(x) else to_numpy(x, "depth.order", "x")
    if k is not None:
        k = integer("depth.order", "k", k, minimum=1, maximum=len(x) if x.ndim else None)
    with errors_of("depth.order"):
        depths = score(
            x,
            corpus,
            metric=metric,
            weights=weights,
            precision=precision,
            n_directions=n_directions,
            seed=seed,
            shrinkage=shrinkage,
            threads=threads,
        )
    return _deepest_first(to_numpy(depths))[:k]


def select(
    x: Any,
    labels: Any,
    k: int,
    *,
    strategy: str = "deepest",
    metric: str = "cosine",
    precision: str = "float32",
    n_directions: int = 1000,
    seed: int = 0,
    shrinkage: float | str = "auto",
    threads: int | None = None,
) -> NDArray[np.int64]:
    """Pick k rows of each class by their depth within the class, for instance as examples.

    Parameters
    ----------
    x : array, shape (n, d)
        The rows of all classes.
    labels : array of integers or strings, shape (n,)
        The class of each row.
    k : int
        Rows to take from each class.
    strategy : {"deepest", "outermost", "spread"}
        "deepest": the most typical rows, deepest first. "outermost": the least typical rows,
        outermost first. "spread": rows at evenly spaced ranks from the deepest to the outermost
        row, both included, deepest first; with k = 1 the row of median depth.
    metric : str
        The depth, see :func:`score`.
    precision, n_directions, seed, shrinkage, threads
        Passed to :func:`score`.

    Returns
    -------
    ndarray of int64, shape (C, k)
        Indices into x. Row c is for the c-th of the C classes in sorted order
        (``np.unique(labels)``). Equal depths: the lower index comes first.

    Raises
    ------
    TypeError, ValueError
        As :func:`score`; unknown strategy; a class of fewer than k rows or of one row alone.

    Notes
    -----
    Cost: one call of :func:`score` per class on that class, so that distance metrics pay for pairs
    within classes only.
    """
    where = "depth.select"
    choose(where, "strategy", strategy, STRATEGIES)
    k = integer(where, "k", k, minimum=1)
    x = x if is_torch(x) else to_numpy(x, where, "x")
    if x.ndim != 2:
        raise ValueError(f"{where}: 'x' must be two-dimensional; got shape {tuple(x.shape)}.")
    # One row alone has no other rows to be deep in.
    names, members = members_of(where, "labels", labels, len(x), max(k, 2))
    chosen = np.empty((len(names), k), dtype=np.int64)
    with errors_of(where), rows_numbered_in(x, metric):
        for c, rows in enumerate(members):
            depths = score(
                x[rows],
                metric=metric,
                precision=precision,
                n_directions=n_directions,
                seed=seed,
                shrinkage=shrinkage,
                threads=threads,
            )
            chosen[c] = rows[_take(to_numpy(depths), k, strategy)]
    return chosen


def _deepest_first(depths: NDArray[Any]) -> NDArray[np.int64]:
    return np.argsort(-depths, kind="stable").astype(np.int64)


def _take(depths: NDArray[Any], k: int, strategy: str) -> NDArray[np.int64]:
    if strategy == "outermost":
        return np.argsort(depths, kind="stable")[:k].astype(np.int64)
    ordered = _deepest_first(depths)
    if strategy == "deepest":
        return ordered[:k]
    last = len(ordered) - 1
    if k == 1:
        return ordered[last // 2 : last // 2 + 1]
    # Ranks i * last / (k - 1) rounded half up; k <= last + 1 keeps them distinct.
    ranks = (2 * np.arange(k) * last + (k - 1)) // (2 * (k - 1))
    return ordered[ranks]
