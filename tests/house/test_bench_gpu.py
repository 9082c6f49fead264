# SPDX-License-Identifier: Apache-2.0
"""The bench of the kernels for GPUs, on the CPU: every contestant's answer is right."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

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
