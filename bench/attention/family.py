# SPDX-License-Identifier: Apache-2.0
"""Attention's part in a run of the bench. Its peers are Torch's: without Torch there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.attention import memory as peak
from bench.attention import overhead as calls
from bench.attention.cases import Case, cases_of
from bench.attention.pooling import PoolingTask
from bench.attention.tasks import AttentionTask, MeanTask, RaggedTask, TorchTask

__all__ = ["cases_of", "memory", "overhead", "prepare"]

TASKS: dict[str, Callable[[Case], TorchTask]] = {
    "attention": AttentionTask,
    "pooling": PoolingTask,
    "mean": MeanTask,
    "ragged": RaggedTask,
}


def prepare(case: Case, mode: str) -> TorchTask:
    """Make the data of a case and its right answer."""
    return TASKS[case.what](case)


def overhead(mode: str) -> list[dict[str, Any]]:
    """Return what calls cost that have next to nothing to compute."""
    return calls.measure(2 if mode == "smoke" else 15)


def memory(mode: str, threads: list[int], show: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return the memory that forward and backward take beyond their inputs."""
    return peak.measure(mode, max(threads), show)
