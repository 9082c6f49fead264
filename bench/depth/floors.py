# SPDX-License-Identifier: Apache-2.0
"""What no implementation can be expected to beat, as functions to time beside the others.

Each floor is named after what it does; a problem's targets are ratios to it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np

from bench.depth.exact import Problem
from bench.timing import Contestant

PRODUCT, READ, SORT, SELECT = "SGEMM", "read", "SGEMM + sort", "SGEMM + select"


@lru_cache(maxsize=1)
def _matrix(rows: int, columns: int) -> Any:
    """Return memory whose pages are in place; the last one made is kept."""
    return np.ones((rows, columns), np.float32)


def _halves(threads: int, rows: Any) -> list[Any]:
    return np.array_split(rows, threads)


def product(problem: Problem) -> Contestant:
    """The product of x and the corpus, stored."""
    # A copy for leave-one-out: of a matrix and itself NumPy computes half the product.
    right = problem.x.copy() if problem.corpus is None else problem.corpus
    out = _matrix(len(problem.x), len(right))
    return Contestant(PRODUCT, "floor", lambda: np.matmul(problem.x, right.T, out=out))


def reads(problem: Problem, threads: int, cache_bytes: int) -> list[Contestant]:
    """Reading x and the corpus once each in several ways; x alone twice where no cache holds it."""
    arrays = [problem.x.reshape(-1)]
    if problem.corpus is not None:
        arrays.append(problem.corpus.reshape(-1))
    elif problem.x.nbytes > cache_bytes:
        arrays *= 2
    workers = ThreadPoolExecutor(threads)  # its threads wait without spinning

    def dots() -> None:
        for array in arrays:
            np.dot(array, array)

    def sums() -> None:
        for array in arrays:
            if threads == 1:
                np.add.reduce(array.view(np.uint64))
            else:
                list(workers.map(np.add.reduce, _halves(threads, array.view(np.uint64))))

    def largest() -> None:
        for array in arrays:
            if threads == 1:
                np.maximum.reduce(array)
            else:
                list(workers.map(np.maximum.reduce, _halves(threads, array)))

    return [
        Contestant(f"{READ} ({name})", "floor", run)
        for name, run in (("dot", dots), ("sum", sums), ("max", largest))
    ]


def projections(problem: Problem, threads: int) -> Contestant:
    """Projecting x and the corpus, and sorting (or selecting twice in) each direction's values."""
    along = problem.directions.astype(np.float32)
    own = np.ones((len(along), len(problem.x)), np.float32)
    values = np.ones((len(along), len(problem.corpus)), np.float32)
    middle = values.shape[1] // 2
    select = problem.metric == "projection"
    workers = ThreadPoolExecutor(threads)

    def order(part: Any) -> None:
        if not select:
            part.sort(axis=1)
            return
        part.partition(middle, axis=1)
        part -= part[:, middle : middle + 1]
        np.abs(part, out=part)
        part.partition(middle, axis=1)

    def run() -> None:
        np.matmul(along, problem.x.T, out=own)
        np.matmul(along, problem.corpus.T, out=values)
        if threads == 1:
            order(values)
        else:
            list(workers.map(order, _halves(threads, values)))

    return Contestant(SELECT if select else SORT, "floor", run)


def floors(problem: Problem, threads: int, cache_bytes: int) -> list[Contestant]:
    """Return the floors of a problem; where there are several, the fastest one counts."""
    if problem.metric == "cosine":
        return reads(problem, threads, cache_bytes)
    if problem.directions is not None:
        return [projections(problem, threads)]
    return [product(problem)]
