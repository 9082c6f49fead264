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


@pytest.fixture(params=["depth", "attention", "ann"])
def family(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return import_module(f"bench.gpu.{request.param}")


@pytest.mark.parametrize("number", range(3))
def test_contestants_agree_with_float64(family: Any, number: int) -> None:
    measure = import_module("bench.gpu.timing").measure
    device = torch.device("cpu")
    task = family.Task(family.cases(smoke=True)[number], device)
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


@pytest.mark.parametrize(("first", "later"), [(0.1, 0.0), (0.0, 0.1)])
def test_slow_peers_are_out(first: float, later: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    timing = import_module("bench.gpu.timing")
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


@pytest.mark.parametrize("columns", [1, 3, 700, 2000, 512 * 9])
@pytest.mark.parametrize("k", [1, 3, 10])
def test_greatest_by_groups(columns: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    greatest = import_module("bench.gpu.ann").greatest
    scores = np.random.default_rng(0).standard_normal((4, columns)).astype(np.float16)
    places = greatest(np, scores, k)
    right = -np.sort(-scores, axis=1)[:, :k]
    found = np.take_along_axis(scores, places, axis=1)
    np.testing.assert_array_equal(-np.sort(-found, axis=1), right)
    assert all(len(set(row)) == min(k, columns) for row in places.tolist())
