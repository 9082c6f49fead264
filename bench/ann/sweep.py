# SPDX-License-Identifier: Apache-2.0
"""Which setting of each peer is quickest at a recall, found cell by cell."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.ann import exact
from bench.ann.data import Dataset
from bench.ann.peers import Allowed, Peer, installed
from bench.ann.peers.base import Ids, Setting, all_equal

K = 10
HIGHEST = 0.99  # the largest recall that a peer is tuned for
ENOUGH = 0.998  # what ends the sweep of a peer
# A sweep ends at a setting this many times slower than the best way to HIGHEST so far.
HOPELESS = 3.0
LONGEST = 4.0  # seconds; what would need more for a cell is not tried
_PROBES = 8  # queries that tell how long a whole cell takes


@dataclass(frozen=True, eq=False)
class Cell:
    """Queries of a workload whose filters pass a share of the rows in one band."""

    dataset: Dataset
    workload: str
    band: int
    rows: NDArray[np.int64]

    @cached_property
    def queries(self) -> NDArray[np.float32]:
        """Return the query vectors."""
        return np.ascontiguousarray(self.dataset.queries[self.rows])

    @property
    def trees(self) -> list[Any]:
        """Return the filters."""
        filters = self.dataset.filters[self.workload]
        return [filters[i] for i in self.rows]

    @cached_property
    def allowed(self) -> list[Allowed]:
        """Return what passes."""
        return [Allowed(self.dataset.columns, tree) for tree in self.trees]

    @cached_property
    def _part(self) -> dict[int, Cell]:
        return {}

    def first(self, count: int) -> Cell:
        """Return a cell of the first queries; kept."""
        if count not in self._part:
            rows = self.rows[:count]
            self._part[count] = Cell(self.dataset, self.workload, self.band, rows)
        return self._part[count]

    def quality(self, answers: Ids) -> exact.Quality:
        """Return how good answers are."""
        data = self.dataset
        return exact.quality(
            data.truth(self.workload, K), self.rows, answers, data.base, data.queries,
            data.columns, data.filters[self.workload],
        )  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One setting of a peer in a cell."""

    peer: Peer
    setting: Setting
    recall: float
    seconds: float

    @property
    def setting_text(self) -> str:
        """Return the setting in words."""
        words = (f"{name} {value}" for name, value in self.setting.items())
        return ", ".join(words)

    @property
    def title(self) -> str:
        """Return the peer and its setting."""
        return f"{self.peer.name} ({self.setting_text})"

    def searcher(
        self, cell: Cell, threads: int = 1, expressions: bool = False
    ) -> Callable[[], Ids]:
        """Return a search of the whole cell with the setting."""
        return searcher(self.peer, cell, self.setting, threads, expressions)

    def again(self, cell: Cell, threads: int, expressions: bool) -> Point:
        """Return the point with its time on other terms."""
        seconds = timed(self.searcher(cell, threads, expressions))[1]
        return replace(self, seconds=seconds)


def searcher(
    peer: Peer, cell: Cell, setting: Setting, threads: int, expressions: bool = False
) -> Callable[[], Ids]:
    """Return a search of the whole cell, filters prepared here or evaluated in it."""
    queries, allowed = cell.queries, cell.allowed
    if all_equal(allowed) and peer.plain(queries[:1], K, setting, threads) is not None:

        def plain() -> Ids:
            found = peer.plain(queries, K, setting, threads)
            assert found is not None
            return found

        return plain
    if expressions:
        trees = cell.trees
        return lambda: peer.search_expressions(queries, trees, K, setting, threads)
    prepared = [peer.prepare(one, setting) for one in allowed]
    return lambda: peer.search(queries, prepared, K, setting, threads)


def timed(run: Callable[[], Ids], times: int = 2) -> tuple[Ids, float]:
    """Return what a search finds, and the seconds of its quickest run."""
    best = np.inf
    for _ in range(times):
        start = time.perf_counter()
        answers = run()
        best = min(best, time.perf_counter() - start)
    return answers, best


def _estimated(peer: Peer, cell: Cell, setting: Setting, threads: int) -> float:
    """Return about how many seconds a cell takes, from its first queries."""
    first = cell.first(_PROBES)
    seconds = timed(searcher(peer, first, setting, threads))[1]
    return seconds * len(cell.rows) / len(first.rows)


def sweep(cell: Cell, peers: Sequence[Peer], threads: int = 1) -> Iterator[Point]:
    """Yield every setting that was tried; those of exact peers, which come first, set the pace."""
    pace = np.inf
    for peer in peers:
        for setting in peer.settings():
            if _estimated(peer, cell, setting, threads) > min(LONGEST, HOPELESS * pace):
                if peer.rising:
                    break
                continue
            answers, seconds = timed(searcher(peer, cell, setting, threads))
            recall = cell.quality(answers).recall
            yield Point(peer, setting, recall, seconds)
            if recall >= HIGHEST:
                pace = min(pace, seconds)
            if peer.rising and recall >= ENOUGH:
                break


def best_points(points: Sequence[Point], recall: float) -> list[Point]:
    """Return the quickest setting of each peer that reaches a recall, the quickest peer first."""
    found: dict[str, Point] = {}
    for point in points:
        if point.recall < recall:
            continue
        name = point.peer.name
        if name not in found or point.seconds < found[name].seconds:
            found[name] = point
    return sorted(found.values(), key=lambda point: point.seconds)


@lru_cache(maxsize=1)
def built(dataset: Dataset, threads: int, slow: bool) -> dict[str, tuple[Peer, float]]:
    """Return the peers built for a data set, and the seconds that took; the last ones are kept."""
    found: dict[str, tuple[Peer, float]] = {}
    for kind in installed():
        fits = len(dataset.base) <= kind.largest and dataset.dim <= kind.widest
        if not fits or (kind.slow_build and not slow):
            continue
        start = time.perf_counter()
        peer = kind(dataset.base, dataset.columns, threads)
        found[peer.name] = peer, time.perf_counter() - start
    return found
