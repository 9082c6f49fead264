# SPDX-License-Identifier: Apache-2.0
"""The cases of one family in this process; what is known is in the file after each of them."""

from __future__ import annotations

import faulthandler
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import embedcore
import torch

from bench.commit import commit
from bench.gpu.floors import measure_floors
from bench.gpu.timing import DeadDeviceError, check_device, measure

DEAD = 70  # the status of a process whose device does not answer any more
_CASE_SECONDS = 90.0  # of a case, unless it says others: what hangs ends the process
_GRACE = 30.0  # behind the time at which no case begins


@dataclass(frozen=True)
class Options:
    """What is measured, and until when; `file` has what processes before this one have found."""

    file: Path
    cases: str
    smoke: bool
    samples: int
    until: float  # time.time(): no case begins later

    def left(self) -> float:
        """Return the seconds until then."""
        return self.until - time.time()


def device_name(device: torch.device) -> str:
    """Return a folder name."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def load(file: Path) -> dict[str, Any]:
    """Return what was written."""
    return dict(json.loads(file.read_text(encoding="ascii")))


def store(result: dict[str, Any], file: Path) -> None:
    """Write it all, so that there is a whole file at any time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(result, indent=1) + "\n", encoding="ascii")
    fresh.replace(file)


def record(device: torch.device) -> dict[str, Any]:
    """Return all that the figures depend on, but the floors."""
    facts = embedcore.show_config("dict")
    found = {
        "device": device_name(device),
        "commit": commit(),
        "embedcore": facts["version"],
        "cuda": facts["cuda"],
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "python": facts["python"],
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["multiprocessors"] = properties.multi_processor_count
        found["memory_bytes"] = properties.total_memory
        found["clocks"] = _clocks()
    return found


def _clocks() -> str:
    """Return the driver and how the device runs just now, as far as it says so."""
    asked = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.draw,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip().splitlines()[0]


def run_family(family: str, options: Options, device: torch.device) -> int:
    """Measure what has not been; return 0 where all answers of ours were right, 1, or DEAD."""
    module = import_module(f"bench.gpu.{family}")
    result = load(options.file) if options.file.exists() else {"family": family, "cases": []}
    if "floors" not in result:
        size, side = (1 << 20, 64) if options.smoke else (1 << 31, 8192)
        result["record"] = record(device)
        result["floors"] = measure_floors(device, size=size, side=side)
        print(json.dumps(result["floors"], indent=1), flush=True)
    done = {case["name"] for case in result["cases"]}
    wanted = [case for case in module.cases(options.smoke) if re.search(options.cases, case.name)]
    result["left_out"] = [case.name for case in wanted if case.name not in done]
    store(result, options.file)
    for case in wanted:
        if case.name in done or options.left() < 0:
            continue
        result["running"] = case.name
        store(result, options.file)
        longest = max(5.0, min(getattr(case, "longest", _CASE_SECONDS), options.left() + _GRACE))
        faulthandler.dump_traceback_later(longest, exit=True)
        measured, dead = _measured(module, case, options, device)
        faulthandler.cancel_dump_traceback_later()
        del result["running"]
        result["cases"].append(measured)
        result["left_out"].remove(case.name)
        if not dead and device.type == "cuda":
            result["record"]["clocks_later"] = _clocks()
        store(result, options.file)
        print(shown(measured), flush=True)
        if dead:
            return DEAD
    for name in result["left_out"]:
        print(f"{name}: left out, the time is up")
    return 0 if all(case["right"] for case in result["cases"]) else 1


def _measured(
    module: Any, case: Any, options: Options, device: torch.device
) -> tuple[dict[str, Any], bool]:
    """Return the record of a case, whatever becomes of it, and whether the device is dead."""
    dead, task = False, None
    found: dict[str, Any] = {"name": case.name, "facts": _facts(case), "right": False, "lines": []}
    try:
        task = module.Task(case, device)
        found |= {"flops": task.flops, "bytes": task.bytes, "by_bytes": task.by_bytes}
        samples = 2 if options.smoke else options.samples
        if hasattr(task, "measured"):
            lines = task.measured(options.left())
        else:
            lines = measure(list(task.contestants()), device, samples=samples, error_of=task.error)
        found["lines"] = [asdict(line) for line in lines]
        found["limit"] = task.limit
        found["right"] = all(_is_right(line, task.limit) for line in lines if line.role == "ours")
        if hasattr(task, "extra"):
            found |= task.extra()
    except DeadDeviceError as error:
        found["failed"], dead = f"the device is dead: {error}", True
        found["lines"] = [asdict(line) for line in error.lines]
    except Exception as error:  # too little memory, say; the other cases may do
        found["failed"], found["right"] = f"{type(error).__name__}: {error}"[:500], False
    del task
    try:
        check_device(device, case.name, [])
        if "cupy" in sys.modules:  # a peer's memory, which Torch could not have otherwise
            sys.modules["cupy"].get_default_memory_pool().free_all_blocks()
    except Exception as error:
        found["failed"] = found.get("failed", f"{type(error).__name__}: {error}"[:500])
        found["right"], dead = False, True
    return found, dead


def _is_right(line: Any, limit: float) -> bool:
    return line.failed is None and line.error is not None and line.error <= limit


def _facts(case: Any) -> dict[str, Any]:
    plain = (bool, int, float, str)
    facts = asdict(case).items()
    return {name: value if isinstance(value, plain) else str(value) for name, value in facts}


def shown(case: dict[str, Any]) -> str:
    """Return the lines of a case as text: ours first, then each with its ratio to ours."""
    return "\n".join(_shown(case))


def _shown(case: dict[str, Any]) -> Iterator[str]:
    yield case["name"]
    if "failed" in case:
        yield f"  FAILED: {case['failed']}"
    ours = next((one["seconds"] for one in case["lines"] if one["role"] == "ours"), None)
    for line in case["lines"]:
        if line["failed"] is not None or line["seconds"] is None:
            yield f"  {line['name']:<40}{line['failed']}"
            continue
        ratio = "" if ours is None else f"{line['seconds'] / ours:8.2f} x"
        error = "" if line["error"] is None else f"   error {line['error']:.1e}"
        yield f"  {line['name']:<40}{line['seconds'] * 1e3:10.4f} ms{ratio}{error}"
    for name in ("extra_bytes", "extra_limit_bytes"):
        if name in case:
            yield f"  {name}: {case[name] / 1e6:.1f} MB"
