# SPDX-License-Identifier: Apache-2.0
"""The same cases under pytest-benchmark: a group for each case and number of threads.

EMBEDCORE_BENCH_MODE=quick pytest bench --benchmark-group-by=group -k "arc and float32"
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest

pytest.importorskip("pytest_benchmark")

from bench import machine
from bench.depth.cases import Case, cases_of, contestants
from bench.depth.family import ROUNDS, DepthTask, prepare
from bench.session import WRONG_FACTOR
from bench.timing import thread_limit

MODE = os.environ.get("EMBEDCORE_BENCH_MODE", "smoke")
THREADS = sorted({1, min(2, machine.cores())})
CACHE = machine.cache_bytes()


def _parameters() -> Iterator[Any]:
    """Yield case, threads and contestant; a small copy of the case tells who takes part."""
    for case in cases_of(MODE):
        case = replace(case, peers=case.peers - {"compile"})
        small = replace(case, n=4, m=None if case.m is None else 4)
        problem = small.problem()
        for threads in THREADS:
            for one in contestants(small, problem, threads, CACHE):
                yield pytest.param(case, threads, one.name, id=f"{case.name}-{threads}-{one.name}")


@lru_cache(maxsize=1)
def _task(case: Case) -> DepthTask:
    return prepare(case, MODE)


@pytest.mark.parametrize(("case", "threads", "name"), list(_parameters()))
def test_depth(case: Case, threads: int, name: str, benchmark: Any) -> None:
    """Check the answer, then time it."""
    task = _task(case)
    benchmark.group = f"{case.name}, {threads} thread(s)"
    with thread_limit(threads):
        one = next(found for found in task.contestants(threads) if found.name == name)
        answer = one.run()
        if one.role != "floor" and one.comparable:
            error = task.error(answer)
            benchmark.extra_info["error"] = error
            if one.role == "ours":
                assert error <= WRONG_FACTOR * task.error_limit(name, {})
        benchmark.extra_info["scale"] = one.scale
        benchmark.pedantic(one.run, rounds=ROUNDS[MODE], warmup_rounds=0)
