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
from bench.depth import exact
from bench.depth.cases import Case, cases_of, contestants
from bench.session import CHECKED_PAIRS, ROUNDS, WRONG_FACTOR, error_of
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
def _checked(case: Case) -> tuple[exact.Problem, Any, Any]:
    problem = case.problem()
    rows = exact.sampled_rows(case.n, CHECKED_PAIRS[MODE], len(problem.reference))
    return problem, rows, exact.depths(problem, rows)


@pytest.mark.parametrize(("case", "threads", "name"), list(_parameters()))
def test_depth(case: Case, threads: int, name: str, benchmark: Any) -> None:
    """Check the answer, then time it."""
    problem, rows, wanted = _checked(case)
    benchmark.group = f"{case.name}, {threads} thread(s)"
    with thread_limit(threads):
        found = contestants(case, problem, threads, CACHE)
        one = next(contestant for contestant in found if contestant.name == name)
        answer = one.run()
        if one.role != "floor" and one.comparable:
            error = error_of(answer, rows, wanted)
            benchmark.extra_info["error"] = error
            if one.role == "ours":
                limit = case.error_limit(name.split()[-1], len(problem.reference))
                assert error <= WRONG_FACTOR * limit
        benchmark.extra_info["scale"] = one.scale
        benchmark.pedantic(one.run, rounds=ROUNDS[MODE], warmup_rounds=0)
