# SPDX-License-Identifier: Apache-2.0
"""Time the kernels for GPUs against what the device can do and against Torch.

python -m bench.gpu                    # all families; no case begins after --seconds
python -m bench.gpu --family depth --output bench/results

Writes <output>/<device>/gpu-<family>.json. Needs a build with CUDA, a GPU and Torch for it, and no
network: data are made on the device. --smoke runs tiny cases, on the CPU too, to see that the bench
itself works. The status is 1 when an answer of embedcore was wrong.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import embedcore
import torch

from bench.gpu.floors import measure_floors
from bench.gpu.timing import Line, measure
from bench.machine import commit

FAMILIES = ("depth", "attention", "ann")


def device_name(device: torch.device) -> str:
    """Return a folder name."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


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
    return found


def shown(case: Any, lines: list[Line]) -> str:
    """Return the lines of a case as text: ours first, then each with its ratio to ours."""
    text = [case.name]
    ours = next((line.seconds for line in lines if line.role == "ours"), None)
    for line in lines:
        if line.failed is not None or line.seconds is None:
            text.append(f"  {line.name:<36}{line.failed}")
            continue
        ratio = "" if ours is None else f"{line.seconds / ours:8.2f} x"
        error = "" if line.error is None else f"   error {line.error:.1e}"
        text.append(f"  {line.name:<36}{line.seconds * 1e3:10.4f} ms{ratio}{error}")
    return "\n".join(text)


def run_family(
    family: str, arguments: argparse.Namespace, device: torch.device, deadline: float
) -> bool:
    """Measure one family and write its file; return whether all answers of ours were right."""
    module = import_module(f"bench.gpu.{family}")
    right = True
    size, side = (1 << 20, 64) if arguments.smoke else (1 << 31, 8192)
    result: dict[str, Any] = {
        "family": family,
        "record": record(device),
        "floors": measure_floors(device, size=size, side=side),
        "cases": [],
    }
    print(json.dumps(result["floors"], indent=1))
    for case in module.cases(arguments.smoke):
        if time.monotonic() > deadline:
            print(f"{case.name}: left out, the time is up")
            continue
        try:
            measured = run_case(module, case, arguments, device)
        except RuntimeError as error:  # too little memory, say; the other cases may do
            print(f"{case.name}: {type(error).__name__}: {error}")
            right = False
            continue
        right = right and measured.pop("right")
        result["cases"].append(measured)
        folder = arguments.output / device_name(device)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"gpu-{family}{'-smoke' if arguments.smoke else ''}.json"
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="ascii")
    print("every answer is right" if right else "an answer is wrong")
    return right


def run_case(
    module: Any, case: Any, arguments: argparse.Namespace, device: torch.device
) -> dict[str, Any]:
    """Measure one case and show it; return its record, and whether our answer was right."""
    task = module.Task(case, device)
    samples = 2 if arguments.smoke else arguments.samples
    lines = measure(list(task.contestants()), device, samples=samples, error_of=task.error)
    print(shown(case, lines), flush=True)
    facts = {
        "name": case.name,
        "flops": task.flops,
        "bytes": task.bytes,
        "by_bytes": task.by_bytes,
        "limit": task.limit,
        "right": all(
            line.failed is None and line.error is not None and line.error <= task.limit
            for line in lines
            if line.role == "ours"
        ),
    }
    del task
    if device.type == "cuda":
        torch.cuda.empty_cache()
        if "cupy" in sys.modules:  # a peer's memory, which Torch could not have otherwise
            sys.modules["cupy"].get_default_memory_pool().free_all_blocks()
    return {**facts, "lines": [asdict(line) for line in lines]}


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(
        prog="bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=400.0, help="no case begins later")
    parser.add_argument("--samples", type=int, default=9)
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    names = [arguments.family] if arguments.family else FAMILIES
    began, right = time.monotonic(), []
    for number, name in enumerate(names, 1):
        deadline = began + arguments.seconds * number / len(names)
        right.append(run_family(name, arguments, device, deadline))
    return 0 if all(right) else 1


if __name__ == "__main__":
    raise SystemExit(main())
