# SPDX-License-Identifier: Apache-2.0
"""Right answers: float32 products of blocks choose candidates, float64 decides among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.ann.columns import Columns, Tree

_BLOCK = 64  # queries whose products are in memory at once
_SPARE = 16  # candidates beyond k: more than float32 can misplace
_TIE = 1e-6  # products that far below the last right one count as equal to it


@dataclass(frozen=True, eq=False)
class Truth:
    """The nearest passing rows of each query, by inner product of the stored rows."""

    ids: NDArray[np.int64]  # (q, k), -1 where fewer pass
    scores: NDArray[np.float64]  # (q, k)
    passing: NDArray[np.int64]  # (q,)

    @classmethod
    def of(
        cls,
        base: NDArray[np.float32],
        queries: NDArray[np.float32],
        columns: Columns,
        trees: Sequence[Tree],
        k: int,
    ) -> Truth:
        """Search all passing rows of every query."""
        count = len(queries)
        found = cls(
            np.full((count, k), -1, np.int64),
            np.full((count, k), -np.inf),
            np.zeros(count, np.int64),
        )
        for start in range(0, count, _BLOCK):
            block = queries[start : start + _BLOCK]
            products = block @ base.T
            for row, scores in enumerate(products):
                i = start + row
                passing = np.flatnonzero(columns.mask(trees[i]))
                best, exact = _nearest(base, block[row], passing, scores, k)
                found.ids[i, : len(best)], found.scores[i, : len(best)] = best, exact
                found.passing[i] = len(passing)
        return found

    def wanted(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many results each of these queries must have."""
        return np.minimum(self.ids.shape[1], self.passing[rows])


def _nearest(
    base: NDArray[np.float32],
    query: NDArray[np.float32],
    passing: NDArray[np.int64],
    scores: NDArray[np.float32],
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    some = min(len(passing), k + _SPARE)
    if some < len(passing):
        nearest = np.argpartition(-scores[passing], some - 1)[:some]
        passing = passing[nearest]
    exact = base[passing].astype(np.float64) @ query.astype(np.float64)
    order = np.lexsort((passing, -exact))[:k]
    return passing[order], exact[order]


@dataclass(frozen=True)
class Quality:
    """How good answers are."""

    recall: float
    underfull: int  # queries with fewer results than there must be
    failing: int  # results that do not pass, or twice


def quality(
    truth: Truth,
    rows: NDArray[np.int64],
    answers: NDArray[np.int64],
    base: NDArray[np.float32],
    queries: NDArray[np.float32],
    columns: Columns,
    trees: Sequence[Tree],
) -> Quality:
    """Return the quality of answers (len(rows), k) to the queries `rows`; ties are right too."""
    hits = underfull = failing = 0
    wanted = truth.wanted(rows)
    for i, answer, least in zip(rows, answers, wanted, strict=True):
        given = answer[answer >= 0]
        own = np.unique(given)
        passing = own[columns.mask(trees[i])[own]]
        failing += len(given) - len(passing)
        underfull += len(given) < least
        scores = base[passing].astype(np.float64) @ queries[i].astype(np.float64)
        if least:
            hits += min(int(least), int((scores >= truth.scores[i, least - 1] - _TIE).sum()))
    return Quality(hits / max(1, int(wanted.sum())), int(underfull), int(failing))
