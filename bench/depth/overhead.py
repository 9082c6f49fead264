# SPDX-License-Identifier: Apache-2.0
"""What one call costs when there is next to nothing to compute."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from embedcore import depth

from bench.depth.data import anisotropic
from bench.timing import optional, thread_limit

SHAPE = (8, 8, 384)
TARGET_SECONDS = 10e-6


def _per_call(run: Callable[[], Any], calls: int, rounds: int) -> float:
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            run()
        found.append((time.perf_counter() - start) / calls)
    return statistics.median(found)


def measure(calls: int = 2000, rounds: int = 7) -> list[dict[str, Any]]:
    """Return seconds of a call for each metric and kind of array, and of NumPy's one-liner."""
    n, m, d = SHAPE
    rows = anisotropic(n + m, d)
    kinds: dict[str, tuple[Any, Any]] = {"NumPy": (rows[:n], rows[n:])}
    torch = optional("torch")
    if torch is not None:
        kinds["Torch"] = (torch.from_numpy(rows[:n]), torch.from_numpy(rows[n:]))
    records = []
    with thread_limit(1):
        for metric in ("cosine", "arc"):
            expected = depth.score(rows[:n], rows[n:], metric=metric)
            for kind, (x, corpus) in kinds.items():
                got = np.asarray(depth.score(x, corpus, metric=metric))
                if not np.array_equal(got, expected):
                    raise AssertionError(f"{metric} from {kind} differs from NumPy's")
                seconds = _per_call(
                    lambda x=x, corpus=corpus, metric=metric: depth.score(x, corpus, metric=metric),
                    calls,
                    rounds,
                )
                records.append({"metric": metric, "kind": kind, "seconds": seconds})
        x, corpus = kinds["NumPy"]
        plain = _per_call(lambda: 1.0 + (x @ corpus.T).mean(axis=1), calls, rounds)
    records.append({"metric": "cosine", "kind": "NumPy's own arithmetic", "seconds": plain})
    return records
