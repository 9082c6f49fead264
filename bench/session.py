# SPDX-License-Identifier: Apache-2.0
"""One run of the bench: checks every answer, times in turns, and keeps all figures."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from bench import machine
from bench.families import Case, Family, Task
from bench.timing import Contestant, Samples, interleave, optional, thread_limit, time_first

SCHEMA = 2
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
    name: str,
    family: Family,
    mode: str,
    only: str,
    threads: list[int],
    show_case: Callable[[dict[str, Any]], str],
) -> dict[str, Any]:
    """Run a mode; what was measured before Ctrl-C or a failure is returned, "interrupted" set."""
    started = time.time()
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "family": name,
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
    cases = family.cases_of(mode, only)
    steps = sum(len(case.threads_of(threads)) for case in cases)
    with _bar(steps + 3) as bar:
        try:
            _run_all(result, family, cases, bar, show_case)
        except KeyboardInterrupt:
            result["interrupted"] = True
        except Exception:  # a peer's, which may have been Ctrl-C before it got there
            traceback.print_exc()
            result["interrupted"] = True
    result["seconds"] = time.time() - started
    return result


def _run_all(
    result: dict[str, Any],
    family: Family,
    cases: list[Case],
    bar: Bar,
    show_case: Callable[[dict[str, Any]], str],
) -> None:
    mode, threads = result["mode"], result["threads"]
    bar.show("floors of the machine")
    small = {"size_bytes": 1 << 20, "repeats": 2} if mode == "smoke" else {}
    result["floors"] = machine.measure_floors(**small)
    bar.advance()
    bar.show("call overhead")
    result["overhead"] = family.overhead(mode)
    bar.advance()
    result["memory"] = family.memory(mode, threads, bar.show)
    bar.advance()
    for case in cases:
        task = family.prepare(case, mode)
        for count in case.threads_of(threads):
            bar.show(f"{case.name}, {count} thread(s)")
            with thread_limit(count), task.conditions():
                found = _run_case(case, task, count)
            result["cases"].append(found)
            bar.write(show_case(found))
            bar.advance()
        del task  # its memory must be free before the next one is made


def _run_case(case: Case, task: Task, threads: int) -> dict[str, Any]:
    lines: dict[str, dict[str, Any]] = {}
    answered, first = [], {}
    for contestant in task.contestants(threads):
        line: dict[str, Any] = {
            "name": contestant.name,
            "role": contestant.role,
            "extrapolated": contestant.extrapolated,
            "error": None,
        }
        lines[contestant.name] = line
        answer = None  # the one before may be large
        try:
            answer, first[contestant.name] = time_first(contestant.run)
        except Exception as problem_found:  # one peer's failure must not stop the others
            line["failed"] = f"{type(problem_found).__name__}: {problem_found}"
            continue
        if contestant.role != "floor" and contestant.comparable:
            line["error"] = task.error(answer)
        answered.append(contestant)
    right = [one for one in answered if one.role != "ours" or _is_right(one.name, task, lines)]
    rounds = task.rounds(sum(first[one.name] for one in right))
    samples = interleave(right, first, rounds=rounds, cold=case.cold, settle=threads > 1)
    _compare(right, samples, lines, task)
    return {
        "name": case.name,
        "cold": case.cold,
        "threads": threads,
        **task.facts,
        "lines": list(lines.values()),
    }


def _is_right(name: str, task: Task, lines: dict[str, Any]) -> bool:
    """State the limits of one of our own; tell whether its answer lies within reach of them."""
    limit, line = task.error_limit(name, lines), lines[name]
    line |= {"error_limit": limit, "target": task.target(name)}
    if line["error"] <= WRONG_FACTOR * limit:
        return True
    line["failed"] = f"wrong answer: off by {line['error']:.1e}"
    return False


def _slowest_floor(right: list[Contestant], samples: dict[str, Samples]) -> str | None:
    """Return the floor that counts: the slowest of all kinds, of a kind the fastest way.

    A floor's name is its kind and, in parentheses, the way.
    """
    ways: dict[str, list[str]] = {}
    for one in right:
        if one.role == "floor":
            ways.setdefault(one.name.split(" (")[0], []).append(one.name)

    def seconds(name: str) -> float:
        return samples[name].seconds()

    return max((min(names, key=seconds) for names in ways.values()), key=seconds, default=None)


def _compare(
    right: list[Contestant], samples: dict[str, Samples], lines: dict[str, Any], task: Task
) -> None:
    """Add times, the ratio to the floor that counts and, for our own, those to the peers."""
    floor = _slowest_floor(right, samples)
    equal = task.equal_error(lines)
    peers = [one.name for one in right if one.role == "peer"]
    for one in right:
        line, own = lines[one.name], samples[one.name]
        line |= {"seconds": own.seconds(), "cpu_seconds": own.cpu_seconds(), "samples": own.wall}
        if floor is not None:
            line |= {"floor": floor, "ratio_to_floor": own.ratio_to(samples[floor])}
        if one.role != "ours":
            continue
        if line["target"] is not None and floor is not None:
            line["met"] = line["ratio_to_floor"] <= line["target"]
        largest = max(equal, 2 * line["error"])
        fair = [name for name in peers if (lines[name]["error"] or 0.0) <= largest]
        if fair:
            best = min(fair, key=lambda name: samples[name].seconds())
            line |= {"best_peer": best, "ratio_to_peer": own.ratio_to(samples[best])}
        line["times_faster"] = {name: 1 / own.ratio_to(samples[name]) for name in peers}
        line["goals"] = _goals(task.goals(one.name), line["times_faster"])
    for name in peers if any(one.role == "ours" for one in right) else ():
        lines[name]["beaten"] = _beaten(lines[name], lines.values(), equal)


def _goals(wanted: dict[str, float], faster: dict[str, float]) -> list[dict[str, Any]]:
    """Hold the least of the factors over the peers of a prefix against what was wanted."""
    found = []
    for prefix, factor in wanted.items():
        factors = [value for name, value in faster.items() if name.startswith(prefix)]
        if factors:
            least = min(factors)
            met = least >= factor
            found.append({"peer": prefix, "wanted": factor, "measured": least, "met": met})
    return found


def _beaten(peer: Any, lines: Iterable[dict[str, Any]], equal: float) -> bool:
    """Tell whether one of our own is faster at equal or better error."""
    allowed = np.inf if peer["error"] is None else max(equal, peer["error"])
    return any(
        line["role"] == "ours"
        and "seconds" in line
        and line["error"] <= allowed
        and line["seconds"] < peer["seconds"]
        for line in lines
    )
