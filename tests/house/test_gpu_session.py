# SPDX-License-Identifier: Apache-2.0
"""The driver of tests on a GPU: what hangs or ends its process costs one test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.gpu_session import summary

ROOT = Path(__file__).resolve().parents[2]

TESTS = '''
import os, sys, time, types
import pytest

class Dead:
    """Torch without a context that works."""
    @staticmethod
    def is_initialized(): return True
    @staticmethod
    def synchronize(): raise RuntimeError("an illegal memory access was encountered")

def test_first(): pass
def test_wrong(): assert 1 + 1 == 3
def test_context(monkeypatch):
    sys.modules["torch"] = types.SimpleNamespace(cuda=Dead)
    assert False, "a wrong answer"
def test_after_it(): assert "torch" not in sys.modules
def test_hang(): time.sleep(60)
def test_crash(): os.abort()
def test_skipped(): pytest.skip("not here")
def test_last(): pass
'''


def run(folder: Path, *options: str, seconds: str = "60") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "support.gpu_session", "--seconds", seconds, *options]
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [*command, "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_test_that_hangs_or_crashes_is_one_test(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS, encoding="ascii")
    done = run(tmp_path, "--test-seconds", "4")
    assert done.returncode == 1, done.stdout + done.stderr
    *lost, last = done.stdout.rstrip().splitlines()[-5:]
    assert last == "3 passed, 2 failed, 2 hung or crashed, 1 skipped, 0 not begun"
    assert [line.rpartition("::")[2] for line in lost] == [
        "test_wrong", "test_context", "test_hang", "test_crash",
    ]  # fmt: skip
    assert "time.sleep(60)" not in done.stdout and "in test_hang" in done.stderr
    assert "no working CUDA context is left" in done.stderr
    done = run(tmp_path, "-k", "first or last")
    assert done.returncode == 0
    assert "2 passed, 0 failed, 0 hung or crashed, 0 skipped, 0 not begun" in done.stdout


@pytest.mark.slow
def test_time_that_is_up_and_errors_of_a_tool_are_failures(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS, encoding="ascii")
    tool = tmp_path / "tool"
    tool.write_text('#!/bin/sh\n"$@" || exit\nexit 9\n', encoding="ascii")
    tool.chmod(0o755)
    done = run(tmp_path, "--under", str(tool), "-k", "first")
    assert done.returncode == 1 and "errors were found, see above" in done.stdout
    done = run(tmp_path, "-k", "hang or last", "--test-seconds", "50", seconds="17")
    assert done.returncode == 1
    assert "the time is up" in done.stdout and "1 hung or crashed" in done.stdout


@pytest.mark.parametrize("facts", [[], [{"collected": 0}, {"finished": True}]])
def test_nothing_is_no_success(facts: list[dict[str, object]]) -> None:
    assert not summary(facts)[1]
