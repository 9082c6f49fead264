# SPDX-License-Identifier: Apache-2.0
"""Contestants on a device, timed in turns by the device's own clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch._dynamo

# A sample shorter than this is repeated between one pair of events.
_SHORTEST_SAMPLE = 2e-3
_WARM_UP_SECONDS = 0.2
# Peers beyond these are out, so that none takes the time of the other cases.
_LONGEST_FIRST, _LONGEST = 60.0, 2.0  # seconds of a call: the first, which may compile; a later one


@dataclass(frozen=True)
class Contestant:
    """`call(turn)` runs once on the inputs of that turn; `least`, seconds, is what bounds it."""

    name: str
    call: Callable[[int], Any]
    role: str = "peer"  # "ours", "peer", or "floor": what the hardware allows, measured


@dataclass
class Line:
    """What was measured of one contestant."""

    name: str
    role: str
    seconds: float | None = None  # the median of the samples
    spread: float | None = None  # (third - first quartile) / median
    error: float | None = None
    failed: str | None = None


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` by way of torch.compile, which is asked at the first call only."""
    found: list[Callable[..., Any]] = []

    def call(*arguments: Any) -> Any:
        if not found:
            # A limit on shapes for each function, beyond which calls would be eager, begins anew.
            torch._dynamo.reset()
            found.append(torch.compile(function, dynamic=False))
        return found[0](*arguments)

    return call


def replayed(call: Callable[[int], Any]) -> Callable[[int], Any]:
    """Return `call` by way of a CUDA graph of its first turn: no time of the host is in it."""
    graphs: list[Any] = []

    def replay(turn: int) -> Any:
        del turn
        if not graphs:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                call(0)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                answer = call(0)
            graphs.extend((graph, answer))
        graphs[0].replay()
        return graphs[1]

    return replay


def elapsed(
    call: Callable[[int], Any], repeats: int, device: torch.device, first: int = 0
) -> float:
    """Return the seconds that one call takes, from `repeats` calls one behind the other."""
    if device.type != "cuda":
        start = time.perf_counter()
        for turn in range(first, first + repeats):
            call(turn)
        return (time.perf_counter() - start) / repeats
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for turn in range(first, first + repeats):
        call(turn)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / repeats


def measure(
    contestants: list[Contestant],
    device: torch.device,
    *,
    samples: int,
    error_of: Callable[[Any], float] | None = None,
) -> list[Line]:
    """Run all once for their answers, then time them in turns; who fails is out, with the reason.

    `error_of` gets the answer of the first turn's inputs, of "ours" and of peers.
    """
    lines = [Line(one.name, one.role) for one in contestants]
    running = []
    for one, line in zip(contestants, lines, strict=True):
        try:
            answer = _first_answer(one, device)
            if error_of is not None and one.role != "floor":
                line.error = error_of(answer)
            del answer
            running.append((one, line, _repeats(one, device), []))
        except Exception as error:  # a peer may lack memory, a compiler or an operator
            line.failed = f"{type(error).__name__}: {error}".splitlines()[0]
    for number in range(samples):
        for one, _, repeats, seconds in running:
            seconds.append(elapsed(one.call, repeats, device, number * repeats))
    for _, line, _, seconds in running:
        line.seconds = statistics.median(seconds)
        if len(seconds) > 3:
            first, _, third = statistics.quantiles(seconds, n=4)
            line.spread = (third - first) / line.seconds
    return lines


def _first_answer(one: Contestant, device: torch.device) -> Any:
    start = time.perf_counter()
    answer = one.call(0)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    _check_time(one, time.perf_counter() - start, _LONGEST_FIRST)
    return answer


def _check_time(one: Contestant, seconds: float, most: float) -> None:
    if one.role == "peer" and seconds > most:
        raise TimeoutError(f"a call took {seconds:.1f} s, more than {most:g}")


def _repeats(one: Contestant, device: torch.device) -> int:
    """Warm up, and return how many calls make a sample."""
    start, calls, each = time.perf_counter(), 0, 0.0
    while calls == 0 or (time.perf_counter() - start < _WARM_UP_SECONDS and calls < 50):
        each = elapsed(one.call, 1, device)
        calls += 1
        _check_time(one, each, _LONGEST)
    return max(1, min(200, round(_SHORTEST_SAMPLE / max(each, 1e-7))))
