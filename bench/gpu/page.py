# SPDX-License-Identifier: Apache-2.0
"""What RESULTS.md says of GPUs: the recorded figures, or that there are none yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.text import table

PATTERN = "gpu-*.json"

_NOTHING = """## On a GPU

GPU figures are not measured yet. `.ci/gpu bench` measures them, and the JSON that it writes belongs
under `bench/results`.
"""
_INTRODUCTION = """## On a GPU

By `.ci/gpu bench`: medians of times by the device's own clock, contestants in turns. Rates are
those of the case's operations, or, of cosine depth and attention, of the bytes that have to be
moved, and stand beside what the device reached in the same run. The error is the largest one
against float64 over the rows that are checked; of searches, the share of the nearest that was not
found.
"""


def gpu_text(results: Path) -> list[str]:
    """Return the part of the page."""
    files = sorted(results.glob(f"*/{PATTERN}"))
    if not files:
        return [_NOTHING]
    return [_INTRODUCTION, *(line for file in files for line in _section(file))]


def _section(file: Path) -> list[str]:
    result = json.loads(file.read_text(encoding="ascii"))
    record, floors = result["record"], result["floors"]
    facts = ", ".join(f"{name} {value}" for name, value in record.items() if name != "device")
    rates = ", ".join(f"{name} {value:.4g}" for name, value in floors.items())
    text = [f"### {record['device']}: {result['family']}", "", f"- {facts}", f"- {rates}", ""]
    rows = [row for case in result["cases"] for row in _rows(case)]
    return text + table(("case", "contestant", "ms", "rate", "x ours", "error"), rows)


def _rows(case: dict[str, Any]) -> list[list[str]]:
    ours = next((line["seconds"] for line in case["lines"] if line["role"] == "ours"), None)
    rows = []
    for line in case["lines"]:
        if line["failed"] is not None:
            rows.append([case["name"], line["name"], line["failed"], "", "", ""])
            continue
        seconds = line["seconds"]
        rate = (
            f"{case['bytes'] / seconds / 1e9:.0f} GB/s"
            if case["by_bytes"]
            else f"{case['flops'] / seconds / 1e12:.0f} TFLOP/s"
        )
        ratio = "" if ours is None else f"{seconds / ours:.2f}"
        error = "" if line["error"] is None else f"{line['error']:.1e}"
        rows.append([case["name"], line["name"], f"{seconds * 1e3:.4f}", rate, ratio, error])
    return rows
