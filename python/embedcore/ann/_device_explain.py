# SPDX-License-Identifier: Apache-2.0
"""How searches on a device were answered, in the form of the CPU's `explain`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._device_costs import TILE, Costs
from ._device_search import Asked

_WALK, _LIST, _BITS = range(3)  # what found an answer, as the C ABI says


def explained(
    found: NDArray[np.int64], asked: Asked, live: int, entries: int, costs: Costs
) -> list[dict[str, Any]]:
    """Return what is known of each query; found: (n, 5), as the C ABI has it."""
    return [_one(row, asked, live, entries, costs) for row in found.tolist()]


def _one(row: list[int], asked: Asked, live: int, entries: int, costs: Costs) -> dict[str, Any]:
    passing, pool, met, way, measured = row
    queries = asked.matrix[1]
    share = passing / max(1, live)
    scanned = {_WALK: 0, _LIST: passing, _BITS: live}[way]
    if pool:
        seconds = costs.walk_seconds(queries, pool)
    elif way == _BITS:
        seconds = costs.scan_seconds(-(-queries // TILE))
    else:
        seconds = costs.scan_seconds(asked.tiles, share)
    return {
        "plan": _name(passing, pool, way),
        "passing": passing,
        "live": live,
        "share": share,
        "estimated_seconds": seconds / queries,
        "pool": pool,
        "codes_scored": scanned + (met + entries if pool else 0),
        "rescored": measured,
        "gave_up": pool > 0 and way != _WALK,
    }


def _name(passing: int, pool: int, way: int) -> str:
    if passing == 0:
        return "empty"
    if pool:
        return "graph"
    return "bits" if way == _BITS else "list"
