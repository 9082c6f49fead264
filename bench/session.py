# SPDX-License-Identifier: Apache-2.0
"""One run of the bench: checks every answer, times in turns, and keeps all figures."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from bench import machine
from bench.depth import exact, memory, overhead
from bench.depth.cases import Case, cases_of, contestants
from bench.timing import Contestant, Samples, interleave, optional, thread_limit, time_first

SCHEMA = 1
ROUNDS = {"smoke": 1, "quick": 3, "full": 3}
CHECKED_PAIRS = {"smoke": 10_000, "quick": 4_000_000, "full": 16_000_000}
# An answer this many times beyond its limit is wrong, not inexact, and is not timed.
WRONG_FACTOR = 10.0


class Bar:
    """A progress bar on a terminal where tqdm is installed; nothing elsewhere."""

    def __init__(self, total: int) -> None:
        tqdm = optional("tqdm")
        shown = tqdm is not None and sys.stderr.isatty()
        self._bar = tqdm.tqdm(total=total, leave=False) if shown else None

    def show(self, title: str) -> None:
        """Name the step that begins."""
        if self._bar is not None:
            self._bar.set_description(title)

    def advance(self) -> None:
        """Count a step."""
        if self._bar is not None:
            self._bar.update()

    def write(self, text: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        else:
            print(text, flush=True)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


@contextmanager
def _bar(total: int) -> Iterator[Bar]:
    bar = Bar(total)
    try:
        yield bar
    finally:
        bar.close()


def run(
    mode: str, only: str, threads: list[int], show_case: Callable[[dict[str, Any]], str]
) -> dict[str, Any]:
    """Run a mode; what was measured before Ctrl-C is returned, with "interrupted" set."""
    started = time.time()
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "mode": mode,
        "interrupted": False,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "machine": machine.record(),
        "threads": threads,
        "floors": {},
        "cases": [],
        "overhead": [],
        "memory": [],
    }
    cases = cases_of(mode, only)
    steps = sum(len(threads) if case.peers else 1 for case in cases)
    with _bar(steps + 3) as bar:
        try:
            _run_all(result, cases, bar, show_case)
        except KeyboardInterrupt:
            result["interrupted"] = True
    result["seconds"] = time.time() - started
    return result


def _run_all(
    result: dict[str, Any], cases: list[Case], bar: Bar, show_case: Callable[[dict[str, Any]], str]
) -> None:
    mode = result["mode"]
    bar.show("floors of the machine")
    small = {"size_bytes": 1 << 20, "repeats": 2} if mode == "smoke" else {}
    result["floors"] = machine.measure_floors(**small)
    bar.advance()
    bar.show("call overhead")
    result["overhead"] = overhead.measure(*((20, 2) if mode == "smoke" else ()))
    bar.advance()
    for case in cases:
        problem = case.problem()
        rows = exact.sampled_rows(case.n, CHECKED_PAIRS[mode], len(problem.reference))
        wanted = exact.depths(problem, rows)
        # Without peers it is the error that counts, and that does not depend on the threads.
        for count in result["threads"] if case.peers else [max(result["threads"])]:
            bar.show(f"{case.name}, {count} thread(s)")
            with thread_limit(count):
                found = _run_case(case, problem, count, rows, wanted, mode)
            result["cases"].append(found)
            bar.write(show_case(found))
            bar.advance()
    for count in (
        sorted({1, max(result["threads"])}) if mode == "full" else [max(result["threads"])]
    ):
        result["memory"] += memory.measure(mode, count, bar.show)
    bar.advance()


def _run_case(
    case: Case, problem: exact.Problem, threads: int, rows: Any, wanted: Any, mode: str
) -> dict[str, Any]:
    right, lines, first = [], [], {}
    for contestant in contestants(case, problem, threads, machine.cache_bytes()):
        line: dict[str, Any] = {
            "name": contestant.name,
            "role": contestant.role,
            "extrapolated": contestant.extrapolated,
            "error": None,
        }
        lines.append(line)
        try:
            answer, first[contestant.name] = time_first(contestant.run)
        except Exception as problem_found:  # one peer's failure must not stop the others
            line["failed"] = f"{type(problem_found).__name__}: {problem_found}"
            continue
        if contestant.role != "floor" and contestant.comparable:
            line["error"] = error_of(answer, rows, wanted)
        if contestant.role == "ours":
            precision = contestant.name.split()[-1]
            limit = case.error_limit(precision, len(problem.reference))
            line |= {"error_limit": limit, "target": case.targets.get(precision)}
            if not line["error"] <= WRONG_FACTOR * limit:
                line["failed"] = f"wrong answer: off by {line['error']:.1e}"
                continue
        right.append(contestant)
    samples = interleave(right, first, rounds=ROUNDS[mode], cold=case.cold, settle=threads > 1)
    # Errors up to the limit for float32 count as equal.
    _compare(right, samples, lines, case.error_limit("float32", len(problem.reference)))
    return {
        "name": case.name,
        "metric": case.metric,
        "n": case.n,
        "m": case.m,
        "d": case.d,
        "data": case.data,
        "cold": case.cold,
        "threads": threads,
        "checked_rows": len(rows),
        "lines": lines,
    }


def error_of(answer: Any, rows: Any, wanted: Any) -> float:
    """Return the largest error in the rows that were checked and computed."""
    depths = np.asarray(answer, dtype=np.float64)
    known = rows < len(depths)
    return float(np.abs(depths[rows[known]] - wanted[known]).max())


def _compare(
    right: list[Contestant], samples: dict[str, Samples], lines: list[Any], equal: float
) -> None:
    """Add times, the ratio to the fastest floor and, for our own, that to the best peer."""
    by_name = {line["name"]: line for line in lines}
    floors = [one.name for one in right if one.role == "floor"]
    floor = min(floors, key=lambda name: samples[name].seconds(), default=None)
    for one in right:
        line, own = by_name[one.name], samples[one.name]
        line |= {"seconds": own.seconds(), "cpu_seconds": own.cpu_seconds(), "samples": own.wall}
        if floor is not None:
            line |= {"floor": floor, "ratio_to_floor": own.ratio_to(samples[floor])}
        if one.role != "ours":
            continue
        if line["target"] is not None and floor is not None:
            line["met"] = line["ratio_to_floor"] <= line["target"]
        largest = max(equal, 2 * line["error"])
        peers = [
            other.name
            for other in right
            if other.role == "peer" and (by_name[other.name]["error"] or 0.0) <= largest
        ]
        if peers:
            best = min(peers, key=lambda name: samples[name].seconds())
            line |= {"best_peer": best, "ratio_to_peer": own.ratio_to(samples[best])}
    for one in right if any(one.role == "ours" for one in right) else ():
        if one.role == "peer":
            by_name[one.name]["beaten"] = _beaten(by_name[one.name], lines, equal)


def _beaten(peer: Any, lines: list[Any], equal: float) -> bool:
    """Tell whether one of our own is faster at equal or better error."""
    allowed = np.inf if peer["error"] is None else max(equal, peer["error"])
    return any(
        line["role"] == "ours"
        and "seconds" in line
        and line["error"] <= allowed
        and line["seconds"] < peer["seconds"]
        for line in lines
    )
