# SPDX-License-Identifier: Apache-2.0
"""Tests on a GPU whose hangs and dead contexts cost one test each: `.ci/gpu` runs this.

python -m support.gpu_session --seconds 440 [--under "compute-sanitizer ..."] <arguments of pytest>

A kernel that reads where it must not ends its process's CUDA context, and with it all later tests;
one that does not end would take all the time that is left. So this is a plugin of pytest, too: it
notes each test before it begins, and ends the process where a test takes too long or has left no
working context. The driver then starts pytest anew for the tests that have not begun. Those of all
files take turns, so that a run that is cut off has seen some of each. The summary comes last.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_NOTES, _LIMIT = "EMBEDCORE_GPU_NOTES", "EMBEDCORE_GPU_TEST_SECONDS"
_DEAD = 70  # the status of a process without a working context
FOUND = 9  # that of a tool that found errors; no signal, of which Python says -9
_LEAST_SECONDS = 15.0  # that a start of pytest is worth
# Where pytest captures nothing.
_terminal = os.fdopen(os.dup(2), "w") if _NOTES in os.environ else sys.stderr


def _note(**facts: Any) -> None:
    with Path(os.environ[_NOTES]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(facts) + "\n")


def _noted(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


_failed: set[str] = set()


# ---- the plugin --------------------------------------------------------------------------------


@pytest.hookimpl(trylast=True)  # behind -k
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has begun in an earlier process; take turns between files."""
    begun = {fact["began"] for fact in _noted(Path(os.environ[_NOTES])) if "began" in fact}
    before = [item for item in items if item.nodeid in begun]
    config.hook.pytest_deselected(items=before)
    rest = [item for item in items if item.nodeid not in begun]
    counts: Counter[Path] = Counter()
    turns = []
    for item in rest:
        counts[item.path] += 1
        turns.append(counts[item.path])
    items[:] = [rest[i] for i in sorted(range(len(rest)), key=lambda i: turns[i])]
    _note(collected=len(items))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note that a test begins, and end the process where it does not end or ends the context."""
    _note(began=item.nodeid)
    faulthandler.dump_traceback_later(float(os.environ[_LIMIT]), exit=True, file=_terminal)
    yield
    faulthandler.cancel_dump_traceback_later()
    if item.nodeid in _failed and not _context_works():
        print(f"\n{item.nodeid}: no working CUDA context is left", file=_terminal, flush=True)
        os._exit(_DEAD)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how a test ended, its failure in words."""
    if report.failed:
        _failed.add(report.nodeid)
        # At once: of a process that is ended pytest shows none.
        print(f"\n{report.nodeid}\n{report.longreprtext}", file=_terminal, flush=True)
        _note(ended=report.nodeid, outcome="failed")
    elif report.when == "call" or report.skipped:
        _note(ended=report.nodeid, outcome=report.outcome)


def pytest_sessionfinish() -> None:
    _note(finished=True)


def _context_works() -> bool:
    torch = sys.modules.get("torch")
    try:
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        if "cupy" in sys.modules:
            sys.modules["cupy"].cuda.runtime.deviceSynchronize()
    except Exception as error:  # of either library's own kind
        print(f"\n{type(error).__name__}: {error}", file=_terminal, flush=True)
        return False
    return True


# ---- the driver --------------------------------------------------------------------------------


def summary(facts: list[dict[str, Any]]) -> tuple[str, bool]:
    """Return what was noted in words, and whether every test has run and none failed."""
    began = [fact["began"] for fact in facts if "began" in fact]
    outcomes: dict[str, str] = {}
    for fact in facts:
        if "ended" in fact and outcomes.get(fact["ended"]) != "failed":
            outcomes[fact["ended"]] = fact["outcome"]
    lost = [name for name in began if name not in outcomes]
    failed = [name for name, outcome in outcomes.items() if outcome == "failed"]
    collected = next((fact["collected"] for fact in facts if "collected" in fact), 0)
    counts = Counter(outcomes.values())
    lines = [f"FAILED {name}" for name in failed]
    lines += [f"HANG OR CRASH {name}" for name in lost]
    rest = collected - len(began)
    lines.append(
        f"{counts['passed']} passed, {len(failed)} failed, {len(lost)} hung or crashed, "
        f"{counts['skipped']} skipped, {rest} not begun"
    )
    return "\n".join(lines), not failed and not lost and rest == 0 and counts["passed"] > 0


# A group of its own, so that it can be ended with all that it has started.
_GROUP: Any = {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}


def _run(command: list[str], environment: dict[str, str], seconds: float) -> int | None:
    """Return the status of a command, None where it took too long and was ended with its own."""
    with subprocess.Popen(command, env=environment, **_GROUP) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:  # also where this process is interrupted
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(prog="support.gpu_session", allow_abbrev=False)
    parser.add_argument("--seconds", type=float, default=440.0, help="of all processes together")
    parser.add_argument("--test-seconds", type=float, default=75.0, help="of a test")
    parser.add_argument("--under", default="", help="what pytest is run under")
    own, others = parser.parse_known_args()
    until = time.monotonic() + own.seconds
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of what ends the others
    clean = True  # what it was run under found nothing
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes"
        notes.touch()
        environment = {**os.environ, _NOTES: str(notes), _LIMIT: str(own.test_seconds)}
        command = [*shlex.split(own.under), sys.executable, "-m", "pytest", "-p", __spec__.name]
        while (left := until - time.monotonic()) > _LEAST_SECONDS:
            before = len(_noted(notes))
            status = _run([*command, *others], environment, left)
            if status is None:
                print("the time is up", flush=True)
                break
            facts = _noted(notes)[before:]
            clean = clean and status != FOUND
            # One that did not come to its first test would not in the next process either.
            if any("finished" in fact for fact in facts) or not any("began" in f for f in facts):
                break
            print(f"a process ended with {status}; the tests after that one follow", flush=True)
        text, right = summary(_noted(notes))
    print(text if clean else f"{text}\nerrors were found, see above: {own.under}")
    return 0 if right and clean else 1


if __name__ == "__main__":
    sys.exit(main())
