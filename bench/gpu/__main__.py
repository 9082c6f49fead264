# SPDX-License-Identifier: Apache-2.0
"""Time the kernels for GPUs against what the device can do and against other libraries.

python -m bench.gpu                    # all families; no case begins in the last part of --seconds
python -m bench.gpu --family ann --cases "each" --suffix each --output bench/results

Writes <output>/<device>/gpu-<family>[-<suffix>].json after each case. Needs a build with CUDA, a
GPU and Torch for it, and no network: data are made on the device. Each family has a process of its
own, and another one where a case has hung, crashed or left the device dead; that case is recorded
as failed. --smoke runs tiny cases, on the CPU too, to see that the bench itself works. The status
is 1 when an answer of embedcore was wrong, or a case failed or was left out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bench.gpu.session import DEAD, Options, device_name, load, run_family, store

# Families by their shares of the time; what one leaves is the next one's.
FAMILIES = {"attention": 1.2, "depth": 0.8, "ann": 2.0}
_LAST = 45.0  # seconds of --seconds in which cases end and none begins
_STARTS = 8  # processes of a family


def run_processes(family: str, command: list[str], file: Path, until: float) -> bool:
    """Measure a family in processes of its own; return whether all is there and right."""
    file.unlink(missing_ok=True)
    command = [*command, "--in-process", family, "--until", str(until), "--file", str(file)]
    for _ in range(_STARTS):
        status = _status(command, until - time.time() + _LAST)
        result = load(file) if file.exists() else {"family": family, "cases": []}
        running = result.pop("running", None)
        if running is not None:
            words = f"its process ended with {status}: it hung, crashed or was cut off"
            failed = {"name": running, "right": False, "failed": words, "lines": []}
            result["cases"].append(
                {**failed, "facts": {}, "flops": 0, "bytes": 0, "by_bytes": True}
            )
            result["left_out"].remove(running)
            print(f"{running}: {words}", flush=True)
        elif status not in (0, 1, DEAD):
            result["failed"] = f"a process ended with {status} outside of cases"
            print(f"{family}: {result['failed']}", flush=True)
        store(result, file)
        if (running is None and status != DEAD) or time.time() > until:
            break
    right = all(case["right"] for case in result["cases"]) and bool(result["cases"])
    whole = not result.get("left_out", True) and "failed" not in result
    print(f"{family}: {'every answer is right' if right else 'an answer is wrong or missing'}"
          f"{'' if whole else ', and not all was measured'}", flush=True)  # fmt: skip
    return right and whole


def _status(command: list[str], seconds: float) -> int:
    """Return the status of a process, which is ended with its own when its time is up."""
    # A group of its own, so that it can be ended with all that it has started.
    group: Any = {"start_new_session": True}
    if sys.version_info >= (3, 11):
        group = {"process_group": 0}
    with subprocess.Popen(command, **group) as process:
        try:
            return process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:  # also where this process is interrupted
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(
        prog="bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", choices=FAMILIES, action="append", help="may be repeated")
    parser.add_argument("--cases", default="", help="a regular expression for their names")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=450.0, help="of all families together")
    parser.add_argument("--samples", type=int, default=9)
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    parser.add_argument("--suffix", default="", help="of the files' names, for a part of the cases")
    parser.add_argument("--smoke", action="store_true")
    for name in ("--in-process", "--until", "--file"):  # what it runs itself by
        parser.add_argument(name, default="", help=argparse.SUPPRESS)
    given: Any = parser.parse_args()
    # A peer that would take most of the memory, before anything imports it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    device = torch.device(given.device)
    if given.in_process:
        options = Options(
            Path(given.file), given.cases, given.smoke, given.samples, float(given.until)
        )
        return run_family(given.in_process, options, device)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of what ends the others
    end = time.time() + given.seconds - _LAST
    command = [sys.executable, "-m", "bench.gpu", "--device", given.device, "--cases", given.cases]
    command += ["--samples", str(given.samples), *(["--smoke"] if given.smoke else [])]
    ends = f"{'-' if given.suffix else ''}{given.suffix}{'-smoke' if given.smoke else ''}.json"
    right, names = [], given.family or list(FAMILIES)
    for number, name in enumerate(names):
        share = FAMILIES[name] / sum(FAMILIES[other] for other in names[number:])
        until = time.time() + max(0.0, end - time.time()) * share
        file = given.output / device_name(device) / f"gpu-{name}{ends}"
        right.append(run_processes(name, command, file, until))
        print(f"wrote {file}", flush=True)
    return 0 if all(right) else 1


if __name__ == "__main__":
    raise SystemExit(main())
