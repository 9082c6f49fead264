# SPDX-License-Identifier: Apache-2.0
"""Figures to words: what the terminal's tables and the page share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

RATES = {
    "fma": "float32 multiply-add",
    "dot": "bfloat16 dot product",
    "tile": "bfloat16 tiles",
}
COLUMNS = ("", "time", "CPU", "error", "x floor", "target", "met", "x best peer")


def family_of(result: dict[str, Any]) -> str:
    """Return whose figures these are; the first results were depth's and did not say so."""
    return str(result.get("family", "depth"))


def seconds_text(seconds: float) -> str:
    """Return three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds / size < 1000 else f"{seconds:,.0f} s"
    return f"{seconds / 1e-9:.3g} ns"


def number(value: float | None, form: str) -> str:
    """Format a number; nothing where there is none."""
    return "" if value is None else format(value, form)


def yes(met: bool) -> str:
    """Return the word for a target."""
    return "yes" if met else "NO"


def threads_text(threads: int) -> str:
    """Return "1 thread", "2 threads"."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


def title(case: dict[str, Any]) -> str:
    """Return the name of a case and its number of threads."""
    return f"{case['name']}, {threads_text(case['threads'])}"


def _met(line: dict[str, Any]) -> str:
    words = []
    if "met" in line:
        words.append(yes(line["met"]))
    if line.get("error_limit") is not None and line["error"] > line["error_limit"]:
        words.append("error NO")
    return ", ".join(words)


def line_cells(line: dict[str, Any]) -> list[str]:
    """Return the cells of one contestant."""
    name = line["name"]
    if "failed" in line:
        return [name, f"FAILED: {line['failed']}"[:70], *[""] * (len(COLUMNS) - 2)]
    peer = ""
    if "ratio_to_peer" in line:
        peer = f"{line['ratio_to_peer']:.2f} ({line['best_peer']})"
    if line.get("beaten") is False:
        peer = "not beaten"
    return [
        name,
        seconds_text(line["seconds"]) + ("*" if line["extrapolated"] else ""),
        seconds_text(line["cpu_seconds"]) + ("*" if line["extrapolated"] else ""),
        number(line["error"], ".1e"),
        number(line.get("ratio_to_floor"), ".3g"),
        number(line.get("target"), ".2f"),
        _met(line),
        peer,
    ]


def case_text(case: dict[str, Any]) -> str:
    """Return the terminal's table of one case."""
    rows = [line_cells(line) for line in case["lines"]]
    widths = (30, 10, 10, 9, 9, 8, 15, 0)
    text = [f"\n{title(case)}"]
    for cells in [COLUMNS, *rows]:
        body = "".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
        text.append(f"  {body.rstrip()}")
    return "\n".join(text)


def cases_text(result: dict[str, Any]) -> list[str]:
    """Return the page's table of every case."""
    text = []
    for case in result["cases"]:
        text += [f"### {title(case)}", ""]
        text += table(COLUMNS, (line_cells(line) for line in case["lines"]))
    return text


def rates_text(result: dict[str, Any]) -> list[str]:
    """Return what the machine can do, a line for each number of threads."""
    text = []
    for threads, rates in result["floors"].items():
        words = [
            f"reads {rates['read_gb_per_s']:.1f} GB/s",
            f"square SGEMM {rates['sgemm_gflop_per_s']:.0f} GF/s",
        ]
        for key, name in RATES.items():
            if f"{key}_gflop_per_s" in rates:
                words.append(f"{name} {rates[f'{key}_gflop_per_s']:.0f} GF/s")
        text.append(f"{threads} thread(s): {', '.join(words)}")
    return text


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return a table of the page and the empty line after it."""

    def row(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    names = list(head)
    return [row(names), row("---" for _ in names), *(row(cells) for cells in rows), ""]
