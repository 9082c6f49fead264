# SPDX-License-Identifier: Apache-2.0
"""The same cases under pytest-benchmark: a group for each case and number of threads.

EMBEDCORE_BENCH_MODE=quick pytest bench --benchmark-group-by=group -k "arc and float32"
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest

pytest.importorskip("pytest_benchmark")

from bench import families, machine
from bench.families import Task
from bench.session import WRONG_FACTOR
from bench.timing import thread_limit

MODE = os.environ.get("EMBEDCORE_BENCH_MODE", "smoke")
THREADS = sorted({1, min(2, machine.cores())})


def _parameters() -> Iterator[Any]:
    """Yield family, case, threads and contestant; a small copy of the case tells who takes part."""
    for name in families.NAMES:
        family = families.family(name)
        for case in (case.uncompiled() for case in family.cases_of(MODE)):
            task = family.prepare(case.small(), MODE)
            for threads in THREADS:
                for one in task.contestants(threads):
                    title = f"{case.name}-{threads}-{one.name}"
                    yield pytest.param(name, case, threads, one.name, id=title)


@lru_cache(maxsize=1)
def _task(family: str, case: Any) -> Task:
    return families.family(family).prepare(case, MODE)


@pytest.mark.parametrize(("family", "case", "threads", "name"), list(_parameters()))
def test_contestant(family: str, case: Any, threads: int, name: str, benchmark: Any) -> None:
    """Check the answer, then time it."""
    task = _task(family, case)
    benchmark.group = f"{case.name}, {threads} thread(s)"
    with thread_limit(threads), task.conditions():
        one = next(found for found in task.contestants(threads) if found.name == name)
        answer = one.run()
        if one.role != "floor" and one.comparable:
            error = task.error(answer)
            benchmark.extra_info["error"] = error
            if one.role == "ours":
                assert error <= WRONG_FACTOR * task.error_limit(name, {})
        benchmark.extra_info["scale"] = one.scale
        benchmark.pedantic(one.run, rounds=max(1, task.rounds(1.0)), warmup_rounds=0)
