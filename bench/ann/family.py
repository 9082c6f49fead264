# SPDX-License-Identifier: Apache-2.0
"""The part of filtered search in a run of the bench."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.ann import measures
from bench.ann import overhead as calls
from bench.ann.cases import Case, cases_of
from bench.ann.tasks import CellTask

__all__ = ["cases_of", "memory", "overhead", "prepare"]


def prepare(case: Case, mode: str) -> CellTask:
    """Make the data of a case and its right answers."""
    return CellTask(case)


def overhead(mode: str) -> list[dict[str, Any]]:
    """Return what a search for one query costs."""
    return calls.measure(2 if mode == "smoke" else 15)


def memory(mode: str, threads: list[int], show: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return what the index takes to build, keep and change."""
    return measures.measure(mode, max(threads), show)
