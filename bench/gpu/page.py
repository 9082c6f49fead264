# SPDX-License-Identifier: Apache-2.0
"""What RESULTS.md says of GPUs: the recorded figures, or that there are none yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.gpu.targets import HEAD, target_rows
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
    files = [file for file in sorted(results.glob(f"*/{PATTERN}")) if "smoke" not in file.stem]
    if not files:
        return [_NOTHING]
    merged: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for file in files:
        result = json.loads(file.read_text(encoding="ascii"))
        merged.setdefault((file.parent.name, result["family"]), []).append(result)
    text = [_INTRODUCTION]
    for (device, family), parts in merged.items():
        text += [f"### {device}: {family}", "", *_facts(parts), *_targets(parts)]
        rows = [row for part in parts for case in part["cases"] for row in _rows(case)]
        text += table(("case", "contestant", "ms", "rate", "x ours", "error"), rows)
    return text


def _facts(parts: list[dict[str, Any]]) -> list[str]:
    lines = []
    for part in parts:
        record, floors = part.get("record", {}), part.get("floors", {})
        lines.append(", ".join(f"{name} {value}" for name, value in record.items()))
        lines.append(", ".join(f"{name} {value:.4g}" for name, value in floors.items()))
        if part.get("left_out"):
            lines.append(f"left out, the time was up: {'; '.join(part['left_out'])}")
        if "failed" in part:
            lines.append(part["failed"])
    return [*(f"- {line}" for line in lines if line), ""]


def _targets(parts: list[dict[str, Any]]) -> list[str]:
    """Return the targets' rows; each case has the rates of its own run beside it."""
    cases = [{**case, "floors": part.get("floors", {})} for part in parts for case in part["cases"]]
    latest = list({case["name"]: case for case in cases}.values())
    return table(HEAD, target_rows(parts[0]["family"], latest))


def _rows(case: dict[str, Any]) -> list[list[str]]:
    failed = [[case["name"], "FAILED", case["failed"], "", "", ""]] if "failed" in case else []
    return [*failed, *_lines(case)]


def _lines(case: dict[str, Any]) -> list[list[str]]:
    ours = next((line["seconds"] for line in case["lines"] if line["role"] == "ours"), None)
    rows = []
    for line in case["lines"]:
        if line["failed"] is not None or line["seconds"] is None:
            words = line["failed"] or "not timed"
            rows.append([case["name"], line["name"], words, "", "", ""])
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
