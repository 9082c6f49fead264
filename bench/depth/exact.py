# SPDX-License-Identifier: Apache-2.0
"""Float64 depths of some rows of a problem, in chunks: what every contestant is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_CHUNK = 128


@dataclass(frozen=True, eq=False)
class Problem:
    """Depths of each row of `x` in `corpus`; without `corpus`, leave-one-out in `x` itself."""

    metric: str
    x: Any
    corpus: Any = None
    directions: Any = None  # (P, d) unit rows, float32, for the metrics over directions

    @property
    def reference(self) -> Any:
        """The rows that the means are over."""
        return self.x if self.corpus is None else self.corpus


def depths(problem: Problem, rows: NDArray[np.int64]) -> Floats:
    """Return the depths of these rows of `x`."""
    if problem.directions is not None:
        return _directional(problem, rows)
    x, corpus = problem.x[rows].astype(np.float64), problem.reference.astype(np.float64)
    if problem.metric in ("cosine", "chord", "arc"):
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        corpus /= np.linalg.norm(corpus, axis=1, keepdims=True)
    result = np.empty(len(rows))
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        own = rows[part] if problem.corpus is None else None
        result[part] = _pairwise(problem.metric, x[part], corpus, own)
    return result


def _pairwise(metric: str, x: Floats, corpus: Floats, own: NDArray[np.int64] | None) -> Floats:
    products = x @ corpus.T
    squares = (x**2).sum(1)[:, None] + (corpus**2).sum(1)[None] - 2 * products
    near_row, near_column = np.nonzero(squares < 1e-3)  # where the subtraction has cancelled
    squares[near_row, near_column] = ((x[near_row] - corpus[near_column]) ** 2).sum(1)
    distances = np.sqrt(squares, out=squares)
    count = len(corpus) - (own is not None)
    if own is not None:
        distances[np.arange(len(x)), own] = 0.0
    if metric == "spatial":
        inverse = np.divide(1.0, distances, out=np.zeros_like(distances), where=distances > 0)
        mean = (x * inverse.sum(1)[:, None] - inverse @ corpus) / count
        depth: Floats = 1 - np.linalg.norm(mean, axis=1)
        return depth
    if metric == "l2":
        return np.asarray(1 / (1 + distances.sum(1) / count))
    if metric == "cosine":
        return np.asarray(2 - (distances**2).sum(1) / 2 / count)
    if metric == "chord":
        return np.asarray(2 - distances.sum(1) / count)
    return np.asarray(np.pi - (2 * np.arcsin(np.minimum(1, distances / 2))).sum(1) / count)


def _directional(problem: Problem, rows: NDArray[np.int64]) -> Floats:
    """Walk over the directions one chunk at a time; ties count to both tails."""
    corpus, x = problem.corpus.astype(np.float64), problem.x[rows].astype(np.float64)
    best = np.full(len(rows), np.inf)
    total = np.zeros(len(rows))
    farthest = np.zeros(len(rows))
    for start in range(0, len(problem.directions), _CHUNK):
        along = problem.directions[start : start + _CHUNK].astype(np.float64)
        for own, values in zip(along @ x.T, np.sort(along @ corpus.T, axis=1), strict=True):
            if problem.metric == "projection":
                centre = np.median(values)
                farthest = np.maximum(
                    farthest, np.abs(own - centre) / np.median(np.abs(values - centre))
                )
                continue
            below = np.searchsorted(values, own, side="right")
            above = len(values) - np.searchsorted(values, own, side="left")
            tail = np.minimum(below, above) / len(values)
            best = np.minimum(best, tail)
            total += tail
    if problem.metric == "projection":
        return np.asarray(1 / (1 + farthest))
    return best if problem.metric == "halfspace" else total / len(problem.directions)


def sampled_rows(count: int, pairs_allowed: int, corpus_rows: int) -> NDArray[np.int64]:
    """Return the rows whose error is measured: all, or the first 16 and rows spread evenly."""
    wanted = max(64, pairs_allowed // max(1, corpus_rows))
    if count <= wanted:
        return np.arange(count)
    spread = np.linspace(0, count - 1, wanted).astype(np.int64)
    return np.unique(np.concatenate([np.arange(16), spread]))
