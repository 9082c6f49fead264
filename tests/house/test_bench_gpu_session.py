# SPDX-License-Identifier: Apache-2.0
"""What the bench for GPUs writes where cases fail, hang or crash, and what the page makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[2]

# A family in the place of depth's, whose cases do what GPUs do.
FAMILY = """
import os, sys, time
from dataclasses import dataclass
import bench.gpu.depth as family
from bench.gpu.timing import Contestant, DeadDeviceError

@dataclass(frozen=True)
class Case:
    what: str
    longest: float = 90.0
    @property
    def name(self): return self.what

class Task:
    flops = bytes = 1.0
    by_bytes, limit = True, 0.5
    def __init__(self, case, device):
        self.case = case
        if case.what == "memory": raise MemoryError("too little")
        if case.what == "dead": raise DeadDeviceError("gone", [])
    def error(self, answer): return answer
    def contestants(self):
        yield Contestant("embedcore", self.ours, "ours")
        yield Contestant("peer", self.peer)
    def ours(self, turn):
        what = self.case.what
        if what == "hang": time.sleep(60)
        if what == "crash": os.abort()
        return 1.0 if what == "wrong" else 0.1
    def peer(self, turn):
        if self.case.what == "peer": raise RuntimeError("not here")
        return 0.1

names = "good memory hang peer crash dead wrong last".split()
family.cases = lambda smoke: [Case(name, 5.0) for name in names]
family.Task = Task
if __name__ == "__main__":
    from bench.gpu.__main__ import main
    raise SystemExit(main())
"""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: import_module(f"bench.gpu.{name}")


@pytest.mark.slow
def test_each_case_is_recorded_whatever_becomes_of_it(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "patched.py").write_text(FAMILY, encoding="ascii")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path)]))
    command = [sys.executable, "-m", "patched", "--device", "cpu", "--cases", "", "--samples", "2"]
    file = tmp_path / "out" / "gpu-depth-smoke.json"
    right = bench("__main__").run_processes(
        "depth", [*command, "--smoke"], file, time.time() + 100.0
    )
    result = json.loads(file.read_text(encoding="ascii"))
    cases = {case["name"]: case for case in result["cases"]}
    assert not right and result["left_out"] == [] and "running" not in result
    assert list(cases) == ["good", "memory", "hang", "peer", "crash", "dead", "wrong", "last"]
    assert {name for name, case in cases.items() if case["right"]} == {"good", "peer", "last"}
    assert cases["memory"]["failed"] == "MemoryError: too little"
    assert "its process ended with 1:" in cases["hang"]["failed"]
    assert "its process ended with -6:" in cases["crash"]["failed"]
    assert cases["dead"]["failed"] == "the device is dead: gone"
    assert cases["peer"]["lines"][1]["failed"] == "RuntimeError: not here"
    file.rename(file.with_name("gpu-depth.json"))
    text = bench("page").gpu_text(tmp_path)
    assert any("its process ended with -6" in line for line in text)


@pytest.mark.slow
def test_a_run_of_one_case(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.gpu", "--smoke", "--device", "cpu", "--samples", "2"]
    done = subprocess.run(
        [*command, "--family", "ann", "--cases", "^5 in 400.*one filter", "--suffix", "part",
         "--output", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "cpu" / "gpu-ann-part-smoke.json").read_text(encoding="ascii"))
    assert len(result["cases"]) == 2 and all(case["right"] for case in result["cases"])
    assert result["cases"][0]["facts"]["share"] == 1.0
    assert {"record", "floors"} <= set(result)


def line(name: str, role: str, seconds: float | None, error: float | None = 0.0) -> dict[str, Any]:
    return {"name": name, "role": role, "seconds": seconds, "error": error, "failed": None,
            "spread": None}  # fmt: skip


def case_of(case: Any, *lines: dict[str, Any], **facts: Any) -> dict[str, Any]:
    session = import_module("bench.gpu.session")
    named = {"name": case.name, "facts": session._facts(case), "lines": list(lines)}
    sizes = {"flops": getattr(case, "flops", 1.0), "bytes": getattr(case, "bytes", 1.0)}
    return {**named, **sizes, "by_bytes": True, "right": True, **facts}


@pytest.mark.parametrize("family", ["attention", "depth", "ann"])
def test_targets_that_nothing_was_measured_of(bench: Any, family: str) -> None:
    rows = bench("targets").target_rows(family, [])
    assert len(rows) >= 7
    assert all(row[2] == "not measured" and row[3] == "" for row in rows)


def test_targets_of_search(bench: Any, tmp_path: Path) -> None:
    ann = bench("ann")
    cases = []
    for case in ann.cases(smoke=False):
        if case.what == "build":
            lines = [line("embedcore, cuda", "ours", 3.0, 0.05)]
            lines.append(line("embedcore, CPU, 16 threads", "peer", 33.0, 0.05))
        else:
            lines = [line("embedcore", "ours", 50e-6 if case.batch == 1 else 4e-3, 0.02)]
            lines.append(line("embedcore, exact", "ours", 5e-3))
            if case.batch == 1:
                lines.append(line("embedcore, replayed from a graph", "ours", 40e-6))
            if not case.linked:
                lines += [line("Torch", "peer", 24e-3), line("quick", "peer", 1e-3, 0.2)]
        cases.append(case_of(case, *lines))
    result = {"family": "ann", "record": {"device": "x"}, "cases": cases,
              "floors": {"bfloat16_tflop_per_s": 600.0}}  # fmt: skip
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "gpu-ann.json").write_text(json.dumps(result), encoding="ascii")
    text = "\n".join(bench("page").gpu_text(tmp_path))
    for words in (
        "one filter, 0.01% pass | > 1 x | 6.00 x (Torch; embedcore) | yes",
        "a filter for each query, 100.00% pass | > 1 x | 6.00 x (Torch; embedcore) | yes",
        "geometric mean, one filter | >= 5.00 x | 6.00 x (6 of 6 selectivities) | yes",
        "matrix rate, default | >= 0.60 x | 0.66 x",
        "matrix rate, exact=True | >= 0.60 x | 0.52 x",
        "recall at the default, over selectivities | >= 0.930 | 0.980",
        "build by the device | >= 10.00 x | 11.00 x",
        "10 % pass, called | <= 8e-05 s | 5e-05 s",
        "10 % pass, graph replays | <= 8e-05 s | 4e-05 s",
    ):
        assert words in text, words
    assert "not measured" not in text


def test_targets_of_attention(bench: Any) -> None:
    cases = []
    for case in bench("attention").cases(smoke=False):
        seconds = case.bytes / 4.3e12
        lines = [line("embedcore", "ours", seconds), line("Torch eager", "peer", 3 * seconds)]
        lines += [line("all tokens read once, Torch", "floor", 0.99 * seconds, None)]
        lines += [line("all tokens read, then copied, Triton", "floor", 0.9 * seconds, None)]
        if case.rivals:
            lines.append(line("Torch, compiled", "peer", 1.7 * seconds))
        if case.form == "pooling":
            lines.append(line("nn.MultiheadAttention", "peer", 12 * seconds))
        if case.sequences == 1:
            lines.append(line("embedcore, replayed from a graph", "ours", 5e-6))
        extra = {"extra_bytes": 1.0, "extra_limit_bytes": 1.1} if case.way == "both" else {}
        cases.append(case_of(case, *lines, **extra))
    rows = {row[0]: row for row in bench("targets").target_rows("attention", cases)}
    assert len(rows) == 12
    missed = [name for name, row in rows.items() if row[3] != "yes"]
    assert missed == ["torch.compile over embedcore"]
    assert rows[missed[0]][2].startswith("1.70 x")
    assert rows["forward, m 64"][2].startswith("4.30 TB/s")
    cases[0]["lines"][0]["seconds"] = None  # a case that failed is a miss
    rows = {row[0]: row for row in bench("targets").target_rows("attention", cases)}
    name = "forward, m <= 32, H >= 200 MB, of a kernel that only reads"
    assert rows[name][3] == "NO" and "1 failed" in rows[name][2]


def test_targets_of_depth(bench: Any) -> None:
    cases = []
    for case in bench("depth").cases(smoke=False):
        floor = case.flops / 600e12
        seconds = (
            case.bytes / 4.1e12 if case.metric == "cosine" else floor / (1.9 - 0.9 * (case.m > 0))
        )
        lines = [line("embedcore", "ours", seconds), line("product alone", "floor", floor, None)]
        if case.n <= 4096:
            lines.append(line("embedcore, replayed from a graph", "ours", 2e-5))
        if case.metric != "cosine":
            lines.append(line("Torch, chunks", "peer", 3 * seconds))
        if case.rivals:
            lines.append(line("Torch, chunks, compiled", "peer", 1.4 * seconds))
        cases.append(case_of(case, *lines, floors={"copy_gb_per_s": 4300.0}))
    rows = {row[0]: row for row in bench("targets").target_rows("depth", cases)}
    assert len(rows) == 7
    missed = [name for name, row in rows.items() if row[3] != "yes"]
    assert missed == [
        "strict float32 arc over the float32 product",
        "Torch, chunks, the quicker way, over embedcore in their own corpus",
    ]
    assert rows[missed[0]][2].startswith("1.00 x")
