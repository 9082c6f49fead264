# SPDX-License-Identifier: Apache-2.0
"""Depth's part in a run of the bench."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench import machine
from bench.depth import exact
from bench.depth import memory as peak
from bench.depth import overhead as calls
from bench.depth.cases import Case, cases_of, contestants
from bench.families import Task
from bench.timing import Contestant

__all__ = ["cases_of", "memory", "overhead", "prepare"]

ROUNDS = {"smoke": 1, "quick": 3, "full": 3}
CHECKED_PAIRS = {"smoke": 10_000, "quick": 4_000_000, "full": 16_000_000}


class DepthTask(Task):
    """A depth of the rows of x in a corpus; some rows are checked."""

    def __init__(self, case: Case, mode: str) -> None:
        self._case, self._rounds = case, ROUNDS[mode]
        self._problem = case.problem()
        self._rows = exact.sampled_rows(case.n, CHECKED_PAIRS[mode], len(self._problem.reference))
        self._wanted = exact.depths(self._problem, self._rows)
        self.facts = {
            **{name: getattr(case, name) for name in ("metric", "n", "m", "d", "data")},
            "checked_rows": len(self._rows),
        }

    def contestants(self, threads: int) -> list[Contestant]:
        return contestants(self._case, self._problem, threads, machine.cache_bytes())

    def error(self, answer: Any) -> float:
        """Return the largest error in the rows that were checked and computed."""
        depths = np.asarray(answer, dtype=np.float64)
        known = self._rows < len(depths)
        return float(np.abs(depths[self._rows[known]] - self._wanted[known]).max())

    def error_limit(self, name: str, lines: dict[str, Any]) -> float:
        return self._case.error_limit(name.split()[-1], len(self._problem.reference))

    def equal_error(self, lines: dict[str, Any]) -> float:
        """Return the limit for float32: errors up to there count as equal."""
        return self._case.error_limit("float32", len(self._problem.reference))

    def rounds(self, turn_seconds: float) -> int:
        return self._rounds

    def target(self, name: str) -> float | None:
        return self._case.targets.get(name.split()[-1])


def prepare(case: Case, mode: str) -> DepthTask:
    """Make the data of a case and its right answer."""
    return DepthTask(case, mode)


def overhead(mode: str) -> list[dict[str, Any]]:
    """Return what calls cost that have next to nothing to compute."""
    return calls.measure(20, 2) if mode == "smoke" else calls.measure()


def memory(mode: str, threads: list[int], show: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return the memory that calls take beyond their inputs."""
    counts = sorted({1, max(threads)}) if mode == "full" else [max(threads)]
    return [entry for count in counts for entry in peak.measure(mode, count, show)]
