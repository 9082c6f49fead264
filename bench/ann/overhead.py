# SPDX-License-Identifier: Apache-2.0
"""What a search for one query costs, from Python, on few rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from embedcore import ann
from embedcore.ann import field

from bench.timing import Contestant, interleave, thread_limit

ROWS, DIM, K = 200, 32, 10
FIRST_SECONDS = 20e-6  # about what a call takes; a sample repeats it accordingly


def measure(rounds: int = 15) -> list[dict[str, Any]]:
    """Return seconds of a call of each kind, all in turns."""
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((ROWS, DIM), dtype=np.float32)
    index = ann.Index(DIM, metric="cosine", threads=1)
    index.add(rows, attributes={"n": np.arange(ROWS)})
    query, where = rows[:1], field("n") < 20
    compiled, ids, mask = index.compile(where), np.arange(20), np.arange(ROWS) < 20
    calls = {
        "no filter": lambda: index.search(query, K),
        "compiled filter": lambda: index.search(query, K, where=compiled),
        "expression": lambda: index.search(query, K, where=where),
        "expression, made anew": lambda: index.search(query, K, where=field("n") < 20),
        "20 ids": lambda: index.search(query, K, where=ids),
        "mask": lambda: index.search(query, K, where=mask),
    }
    with thread_limit(1):
        contestants = [Contestant(kind, "ours", run) for kind, run in calls.items()]
        first = dict.fromkeys(calls, FIRST_SECONDS)
        samples = interleave(contestants, first, rounds=rounds, settle=False)
    return [{"kind": kind, "seconds": kept.seconds()} for kind, kept in samples.items()]
