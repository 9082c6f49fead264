# SPDX-License-Identifier: Apache-2.0
"""What searches cost on a device, measured there, and what follows for a search."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

TILE = 128  # queries that a scan takes at once
POOLS = (64, 128, 256, 512)  # rows that walks may keep
WIDENINGS = 4  # of pools, twice as wide each, where fewer rows pass
NEVER = (1 << 63) - 1
_K = 10  # that recalls are measured with
_REPEATS = 3

Ints = NDArray[np.int64]


class Plan(NamedTuple):
    """When queries walk, as the kernels take it; base 0: never."""

    base: int
    least: tuple[int, int, int, int]


SCAN = Plan(0, (NEVER, NEVER, NEVER, NEVER))


@dataclass(frozen=True)
class Costs:
    """Seconds of scans and walks, and the recall of walks where all rows pass; none of no walks."""

    rows: int  # living
    call: float  # of a scan of no rows
    tile: float  # of all rows, for a tile of queries
    next_tile: float  # for each further one
    recalls: tuple[float, ...]  # of each pool
    one: tuple[float, ...]  # a walk alone
    each: tuple[float, ...]  # each further one

    def plan(self, queries: int, tiles: int, k: int, recall: float) -> Plan:
        """Return when queries should walk that a scan would take in so many tiles."""
        wanted = [i for i, found in enumerate(self.recalls) if found >= recall]
        # What it takes grows with k no faster than k, as far as known.
        least = POOLS[wanted[0]] * max(1.0, k / _K) if wanted else math.inf
        base = next((pool for pool in POOLS if pool >= least), 0)
        if base == 0:
            return SCAN
        scan = self.tile + (tiles - 1) * self.next_tile
        limits = []
        for pool in (base << i for i in range(WIDENINGS)):
            if pool not in POOLS:
                limits.append(NEVER)
                continue
            share = (self.walk_seconds(queries, pool) - self.call) / max(scan, 1e-12)
            limits.append(NEVER if share >= 1.0 else max(0, math.ceil(share * self.rows)))
        return Plan(base, (limits[0], limits[1], limits[2], limits[3]))

    def scan_seconds(self, tiles: int, share: float = 1.0) -> float:
        """Return what a scan takes of a share of the rows, for so many tiles."""
        return self.call + (self.tile + max(0, tiles - 1) * self.next_tile) * share

    def walk_seconds(self, queries: int, pool: int) -> float:
        """Return what walks take that keep so many rows."""
        i = POOLS.index(pool)
        return self.one[i] + (queries - 1) * self.each[i]


def by_effort(effort: int, k: int) -> Plan:
    """Return the plan by which walks keep so many rows, wherever more rows than that pass."""
    most = max(effort, k)
    base = next((pool for pool in POOLS if pool >= most), 0)
    if base == 0:
        return SCAN
    limits = [most + 1 if base << i in POOLS else NEVER for i in range(WIDENINGS)]
    return Plan(base, (limits[0], limits[1], limits[2], limits[3]))


# Answers for so many of the sample's queries, by a plan and among no rows or all, waited for.
Run = Callable[[int, Plan, bool], Any]


def measured(rows: int, sample: int, run: Run, walks: bool = True) -> Costs:
    """Measure searches for `sample` queries that are rows of the index, with or without walks.

    `run(count, plan, among_all)` searches for the first so many and returns their ids; it waits.
    """

    def seconds(count: int, plan: Plan, among_all: bool = True) -> float:
        run(count, plan, among_all)  # loads kernels, fills caches
        best = math.inf
        for _ in range(_REPEATS):
            start = time.perf_counter()
            run(count, plan, among_all)
            best = min(best, time.perf_counter() - start)
        return best

    if sample == 0:
        return Costs(0, 0.0, 0.0, 0.0, (), (), ())
    call = seconds(1, SCAN, among_all=False)
    tile, many = seconds(1, SCAN), seconds(sample, SCAN)
    tiles = -(-sample // TILE)
    recalls, one, each = [], [], []
    right = run(sample, SCAN, True)
    for pool in POOLS if walks else ():
        walk = Plan(pool, (0, NEVER, NEVER, NEVER))
        recalls.append(_recall(run(sample, walk, True), right))
        one.append(seconds(1, walk))
        each.append(max(0.0, seconds(sample, walk) - one[-1]) / max(1, sample - 1))
    return Costs(
        rows,
        call,
        max(0.0, tile - call),
        max(0.0, many - tile) / (tiles - 1) if tiles > 1 else max(0.0, many - call),
        tuple(recalls),
        tuple(one),
        tuple(each),
    )


def _recall(found: Ints, right: Ints) -> float:
    """Return how many of the right ids were found, but for the row itself, which comes first."""
    hits = (found[:, :, None] == right[:, None, 1:]).any(axis=1)
    return float(hits.mean())
