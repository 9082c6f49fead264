# SPDX-License-Identifier: Apache-2.0
"""Contestants on a device, timed in turns by the device's own clock."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch._dynamo

# A sample shorter than this is repeated between one pair of events.
_SHORTEST_SAMPLE = 2e-3
_WARM_UP_SECONDS = 0.1
_SAMPLED_SECONDS = 3.0  # of all samples of a contestant; but two are always taken
# Peers beyond these are out, so that none takes the time of the other cases.
_LONGEST_FIRST, _LONGEST = 60.0, 2.0  # seconds of a call: the first, which may compile; a later one


@dataclass(frozen=True)
class Contestant:
    """`call(turn)` runs `calls` times on the inputs of that turn, and returns the answer."""

    name: str
    call: Callable[[int], Any]
    role: str = "peer"  # "ours", "peer", or "floor": what the hardware allows, measured
    calls: int = 1
    comparable: bool = True  # whether the answer has an error


@dataclass
class Line:
    """What was measured of one contestant."""

    name: str
    role: str
    seconds: float | None = None  # the median of the samples
    spread: float | None = None  # (third - first quartile) / median
    error: float | None = None
    failed: str | None = None


class DeadDeviceError(RuntimeError):
    """The process has no working context left; `lines` are what was known until then."""

    def __init__(self, words: str, lines: list[Line]) -> None:
        super().__init__(words)
        self.lines = lines


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


def replayed(call: Callable[[int], Any], calls: int = 1) -> Callable[[int], Any]:
    """Return `calls` of `call`, on its first turn, as one CUDA graph: no time of the host is in it.

    Outputs of the last are returned, those of the others are let go inside the graph.
    """
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
            # Peers' libraries have threads, which may do meanwhile what a capture must not.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                for _ in range(calls):
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
        with _failures_of(line, lines, device):
            answer = _first_answer(one, device)
            if error_of is not None and one.role != "floor" and one.comparable:
                line.error = error_of(answer)
            del answer
            repeats, each = _repeats(one, device)
            most = min(samples, max(2, int(_SAMPLED_SECONDS / (repeats * each))))
            running.append((one, line, repeats, most, []))
    for number in range(samples):
        for one, line, repeats, most, seconds in running:
            if number < most and line.failed is None:
                with _failures_of(line, lines, device):
                    seconds.append(elapsed(one.call, repeats, device, number * repeats))
    for one, line, _, _, seconds in running:
        if line.failed is not None:
            continue
        line.seconds = statistics.median(seconds) / one.calls
        if len(seconds) > 3:
            first, _, third = statistics.quantiles(seconds, n=4)
            line.spread = (third - first) / (line.seconds * one.calls)
    return lines


def check_device(device: torch.device, words: str, lines: list[Line]) -> None:
    """Raise DeadDeviceError where nothing can be computed any more."""
    if device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
        torch.ones(1, device=device).item()
        torch.cuda.empty_cache()  # which one that failed for want of memory has left
    except Exception as error:
        raise DeadDeviceError(words, lines) from error


@contextlib.contextmanager
def _failures_of(line: Line, lines: list[Line], device: torch.device) -> Iterator[None]:
    """Note what a contestant fails of: memory, a compiler or an operator that is not there."""
    try:
        yield
    except Exception as error:
        line.failed = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    if line.failed is not None:
        check_device(device, f"{line.name}: {line.failed}", lines)


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


def _repeats(one: Contestant, device: torch.device) -> tuple[int, float]:
    """Warm up; return how many calls make a sample, and the seconds of one."""
    start, calls, each = time.perf_counter(), 0, 0.0
    while calls == 0 or (time.perf_counter() - start < _WARM_UP_SECONDS and calls < 50):
        each = max(elapsed(one.call, 1, device), 1e-7)
        calls += 1
        _check_time(one, each, _LONGEST)
    return max(1, min(200, round(_SHORTEST_SAMPLE / each))), each
