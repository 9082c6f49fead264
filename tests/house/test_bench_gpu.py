# SPDX-License-Identifier: Apache-2.0
"""The bench of the kernels for GPUs, on the CPU: every contestant's answer is right."""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[2]
CASES = [(family, i) for family, count in (("depth", 3), ("attention", 5), ("ann", 6))
         for i in range(count)]  # fmt: skip


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: import_module(f"bench.gpu.{name}")


@pytest.mark.parametrize(("name", "number"), CASES)
def test_contestants_agree_with_float64(bench: Any, name: str, number: int) -> None:
    measure, family = bench("timing").measure, bench(name)
    device = torch.device("cpu")
    cases = family.cases(smoke=True)
    assert len(cases) == sum(1 for one, _ in CASES if one == name)
    task = family.Task(cases[number], device)
    if hasattr(task, "measured"):
        lines = task.measured(100.0)
    else:
        # Compiled ones are those before them, once more.
        plain = [one for one in task.contestants() if "compiled" not in one.name]
        lines = measure(plain, device, samples=1, error_of=task.error)
    assert [line.failed for line in lines if line.failed is not None] == []
    assert [line.role for line in lines].count("ours") == 1
    for line in lines:
        assert line.seconds > 0.0
        if line.role == "ours":
            assert line.error <= task.limit
        elif line.role == "peer":
            assert line.error < 2e-2  # of rounding, which ours has less of


@pytest.mark.parametrize("name", ["depth", "attention", "ann"])
def test_names_of_cases_are_different(bench: Any, name: str) -> None:
    names = [case.name for case in bench(name).cases(smoke=False)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("first", "later"), [(0.1, 0.0), (0.0, 0.1)])
def test_slow_peers_are_out(
    bench: Any, first: float, later: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing = bench("timing")
    monkeypatch.setattr(timing, "_LONGEST_FIRST", 0.05)
    monkeypatch.setattr(timing, "_LONGEST", 0.05)
    calls = dict.fromkeys(("ours", "peer"), 0)

    def contestant(role: str) -> Any:
        def call(turn: int) -> None:
            time.sleep(later if calls[role] else first)
            calls[role] += 1

        return timing.Contestant(role, call, role)

    lines = timing.measure([*map(contestant, calls)], torch.device("cpu"), samples=2)
    assert lines[0].failed is None and lines[0].seconds is not None
    assert lines[1].seconds is None and str(lines[1].failed).startswith("TimeoutError: a call took")
    assert calls["peer"] == (1 if first else 2)


def test_who_fails_while_timed_is_out_and_calls_share_a_time(bench: Any) -> None:
    timing = bench("timing")
    calls = 0

    def failing(turn: int) -> None:
        nonlocal calls
        calls += 1
        if turn:
            raise MemoryError("no more")

    def sleeping(turn: int) -> None:
        time.sleep(0.02)

    lines = timing.measure(
        [timing.Contestant("a", failing), timing.Contestant("b", sleeping, "ours", 10)],
        torch.device("cpu"),
        samples=3,
    )
    assert lines[0].failed == "MemoryError: no more" and lines[0].seconds is None
    assert lines[1].failed is None and 0.002 <= lines[1].seconds < 0.01


def test_a_dead_device_ends_the_case(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    timing = bench("timing")

    def dead(device: Any, words: str, lines: list[Any]) -> None:
        raise timing.DeadDeviceError(words, lines)

    def failing(turn: int) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(timing, "check_device", dead)
    contestants = [timing.Contestant("embedcore", failing, "ours"), timing.Contestant("b", failing)]
    with pytest.raises(timing.DeadDeviceError, match=r"^embedcore: RuntimeError: an") as end:
        timing.measure(contestants, torch.device("cpu"), samples=1)
    assert [line.failed is None for line in end.value.lines] == [False, True]


@pytest.mark.parametrize("columns", [1, 3, 700, 2000, 512 * 9])
@pytest.mark.parametrize("k", [1, 3, 10])
def test_greatest_by_groups(bench: Any, columns: int, k: int) -> None:
    greatest = bench("ann_peers").greatest
    scores = np.random.default_rng(0).standard_normal((4, columns)).astype(np.float16)
    places = greatest(np, scores, k)
    right = -np.sort(-scores, axis=1)[:, :k]
    found = np.take_along_axis(scores, places, axis=1)
    np.testing.assert_array_equal(-np.sort(-found, axis=1), right)
    assert all(len(set(row)) == min(k, columns) for row in places.tolist())


def test_what_does_not_pass_is_not_measured_anew(bench: Any) -> None:
    scores = torch.tensor([[1.0, float("-inf"), float("-inf"), 0.5]])
    rows = torch.tensor([[1.0], [9.0], [8.0], [0.5]])
    places = bench("ann_peers")._best(scores, torch.ones(1, 1), rows, 2)
    assert places.tolist() == [[0, 3]]
