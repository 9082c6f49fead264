# SPDX-License-Identifier: Apache-2.0
"""Contestants of one problem, timed in turns: a slow moment of the machine hits them all."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# A sample shorter than this is repeated inside one pair of clock readings.
SHORTEST_SAMPLE = 0.004
# Where BLAS and OpenMP threads still spin after a call, they would slow the next contestant.
SETTLE_SECONDS = 0.03
# Sleeping processors take milliseconds to wake: calls shorter than this run for a while first.
WOKEN_BELOW = 0.1
WAKING_SECONDS = 0.02
SETTLE_ABOVE = 0.002
# Bytes written between cold samples: more than the last cache of the machines that this runs on.
EVICTED_BYTES = 160 << 20


@dataclass(frozen=True)
class Contestant:
    """One way to solve a problem, or one floor that no way can be expected to beat.

    A contestant too slow for the whole problem computes the first rows alone and sets `scale`, the
    factor to the whole: its time is extrapolated and it is timed once. A floor too short for the
    clock does the work several times, with a `scale` below 1.
    """

    name: str
    role: str  # "ours", "peer" or "floor"
    run: Callable[[], Any]
    scale: float = 1.0
    comparable: bool = True  # False: random choices of its own, so there is no error to state

    @property
    def extrapolated(self) -> bool:
        """Whether the time is computed from part of the problem."""
        return self.scale > 1.0


@dataclass
class Samples:
    """Seconds for the whole problem, one number a round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def seconds(self) -> float:
        """Return the median wall time."""
        return statistics.median(self.wall)

    def cpu_seconds(self) -> float:
        """Return the median processor time."""
        return statistics.median(self.cpu)

    def ratio_to(self, other: Samples) -> float:
        """Return the median over the rounds of own time / the other's in the same round."""
        if len(self.wall) != len(other.wall):
            return self.seconds() / other.seconds()
        return statistics.median(a / b for a, b in zip(self.wall, other.wall, strict=True))


@contextmanager
def thread_limit(threads: int) -> Iterator[None]:
    """Give embedcore, BLAS, OpenMP and Torch the same number of threads."""
    import embedcore

    with embedcore.threads(threads), _pool_limit(threads), _torch_limit(threads):
        yield


@contextmanager
def _pool_limit(threads: int) -> Iterator[None]:
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with threadpool_limits(threads):
        yield


@contextmanager
def _torch_limit(threads: int) -> Iterator[None]:
    torch = optional("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def optional(module: str) -> Any:
    """Return a module that may be missing, or None."""
    import importlib

    try:
        return importlib.import_module(module)
    except Exception:  # an installed package may fail in any way of its own
        return None


class Evictor:
    """Empties the caches by writing a large array."""

    def __init__(self) -> None:
        self._bytes = np.zeros(EVICTED_BYTES // 8)

    def __call__(self) -> None:
        self._bytes += 1.0


def interleave(
    contestants: Sequence[Contestant],
    first_seconds: dict[str, float],
    *,
    rounds: int,
    cold: bool = False,
    settle: bool = True,
) -> dict[str, Samples]:
    """Time every contestant `rounds` times in turns; each round starts with another one.

    `first_seconds`: times of earlier calls, which decide how often a short call is repeated.
    """
    samples = {contestant.name: Samples() for contestant in contestants}
    evict = Evictor() if cold else None
    for turn in range(rounds):
        start = turn % max(1, len(contestants))
        for contestant in [*contestants[start:], *contestants[:start]]:
            kept = samples[contestant.name]
            if contestant.extrapolated and kept.wall:
                continue
            first = first_seconds[contestant.name]
            # One round alone shows that all works, and measures nothing.
            once = cold or rounds == 1
            repeats = 1 if once else max(1, math.ceil(SHORTEST_SAMPLE / max(first, 1e-7)))
            if evict is not None:
                evict()
            elif not once and first < WOKEN_BELOW:
                _wake(contestant.run)
            wall, cpu = _one_sample(contestant.run, repeats)
            kept.wall.append(wall * contestant.scale)
            kept.cpu.append(cpu * contestant.scale)
            if settle and wall * repeats > SETTLE_ABOVE:
                time.sleep(SETTLE_SECONDS)
    return samples


def _wake(run: Callable[[], Any]) -> None:
    """Run for a while, so that the threads of a contestant and their processors are awake."""
    end = time.perf_counter() + WAKING_SECONDS
    while time.perf_counter() < end:
        run()


def _one_sample(run: Callable[[], Any], repeats: int) -> tuple[float, float]:
    cpu_start, start = time.process_time(), time.perf_counter()
    for _ in range(repeats):
        run()
    wall = (time.perf_counter() - start) / repeats
    return wall, (time.process_time() - cpu_start) / repeats


def time_first(run: Callable[[], Any]) -> tuple[Any, float]:
    """Call twice; return the result and the time of the second call, which finds all in place."""
    start = time.perf_counter()
    result = run()
    first = time.perf_counter() - start
    if first > 0.5:
        return result, first
    start = time.perf_counter()
    run()
    return result, time.perf_counter() - start
