# SPDX-License-Identifier: Apache-2.0
"""Searches of the tests on a device: their worlds, filters and costs."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from embedcore import ann
from embedcore.ann._device_costs import POOLS, Plan

from .ann import World, make_world

METRICS = ("cosine", "ip", "l2")
K = 10
ROWS = 700

Array = np.ndarray[Any, Any]


@functools.cache
def world_of(metric: str = "cosine", dtype: str = "float32") -> World:
    return make_world(metric, dtype, rows=ROWS, columns=41)


def first(count: int) -> tuple[Any, ...]:
    return ("<", "rank", count)


def found(kind: Any, index: Any, queries: Array, k: int = K, **options: Any) -> ann.SearchResult:
    """Search on the device; return the result on the host."""
    hits = index.search(kind.to_device(queries), k, **options)
    return ann.SearchResult(*map(kind.to_host, (hits.ids, hits.distances, hits.counts)))


class Walks:
    """Costs by which everything walks that can."""

    def plan(self, queries: int, tiles: int, k: int, recall: float) -> Plan:
        base = next(pool for pool in POOLS if pool >= max(k, 64))
        return Plan(base, (0, 0, 0, 0))


@functools.cache
def built_world(metric: str) -> World:
    return make_world(metric, rows=2300, columns=24, queries=6)
