# SPDX-License-Identifier: Apache-2.0
"""embedcore's own index of a data set, as its user gets it: no setting but the recall."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from embedcore import ann

from bench.ann.columns import attributes, expression
from bench.ann.data import Dataset
from bench.ann.peers.base import Ids
from bench.ann.sweep import Cell, K

NAME = "embedcore"
# What is asked for where a cell needs more than its own recall says, in this order.
RECALLS = (0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.992, 0.994, 0.996, 0.998, 0.999)
CURVE = (0.7, 0.8, 0.9, *RECALLS)  # what the figure shows
_EXPLAINED = 24  # queries of a cell whose plans are looked at


@dataclass(frozen=True, eq=False)
class Built:
    """An index and the seconds that making it took."""

    index: Any
    seconds: float


def new_index(dim: int, threads: int) -> Any:
    """Return an empty index."""
    return ann.Index(dim, metric="cosine", threads=threads)


def build(dataset: Dataset, threads: int) -> Built:
    """Add all rows with their attributes, and put them in order."""
    table = attributes(dataset.columns)
    start = time.perf_counter()
    index = new_index(dataset.dim, threads)
    index.add(dataset.base, attributes=table)
    index.compact()
    return Built(index, time.perf_counter() - start)


@lru_cache(maxsize=1)
def built(dataset: Dataset, threads: int) -> Built:
    """Return the index of a data set; the last one is kept."""
    return build(dataset, threads)


def searcher(
    index: Any, cell: Cell, recall: float, threads: int, expressions: bool
) -> Callable[[], Ids]:
    """Return a search of a whole cell, filters compiled here or evaluated in it."""
    queries = cell.queries
    where = [expression(tree) for tree in cell.trees]
    if all(one is None for one in where):
        filters: Any = None
    elif expressions:
        filters = where
    else:
        filters = [None if one is None else index.compile(one) for one in where]

    def run() -> Ids:
        found: Ids = index.search(queries, K, where=filters, recall=recall, threads=threads).ids
        return found

    return run


def plans(index: Any, cell: Cell, recall: float) -> dict[str, int]:
    """Return how often the planner chose what, for some queries of a cell."""
    rows = np.linspace(0, len(cell.rows) - 1, min(_EXPLAINED, len(cell.rows))).astype(int)
    queries, trees = cell.queries, cell.trees
    found = Counter(
        str(index.explain(queries[i], K, where=expression(trees[i]), recall=recall)["plan"])
        for i in rows
    )
    return dict(found.most_common())
