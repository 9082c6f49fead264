# SPDX-License-Identifier: Apache-2.0
"""The figure: queries per second against recall, of every setting that was tried in a cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.timing import optional

# Cells that are drawn, where they were measured: workload, band.
SHOWN = (
    ("none", 4), ("em", 1), ("em", 2), ("em", 4), ("em_neg", 2), ("r", 2), ("r", 3), ("and", 2),
    ("not", 4),
)  # fmt: skip
COLUMNS = 3
LEAST_RECALL, EXACT_AT = 0.7, 0.9995
OURS = "embedcore"
_COLOURS = ("#d1495b", "#edae49", "#66a182", "#8d6a9f", "#2e4057", "#a0785a", "#7f7f7f")
_MARKS = ("o", "s", "^")


def front(points: list[list[float]], queries: int) -> list[tuple[float, float]]:
    """Return recall and rate of the settings that no other beats in both, recall rising."""
    found: list[tuple[float, float]] = []
    for recall, seconds in sorted(points, key=lambda point: (-point[0], point[1])):
        rate = queries / seconds
        if recall >= LEAST_RECALL and (not found or rate > found[-1][1]):
            found.append((min(recall, EXACT_AT), rate))
    return found[::-1]


def _chosen(result: dict[str, Any]) -> list[dict[str, Any]]:
    drawn = [case for case in result["cases"] if "curves" in case and case["threads"] == 1]
    if not drawn:
        return []
    first = drawn[0]["data"]
    by_cell = {(case["workload"], case["band"]): case for case in drawn if case["data"] == first}
    return [by_cell[cell] for cell in SHOWN if cell in by_cell]


def _panel(axes: Any, case: dict[str, Any], looks: dict[str, tuple[str, str]]) -> None:
    from bench.ann.report import cell_text

    fronts = {name: front(points, case["queries"]) for name, points in case["curves"].items()}
    for name, points in sorted(fronts.items(), key=lambda one: one[0] == OURS):
        if not points:
            continue
        misses, rates = [1.0 - recall for recall, _ in points], [rate for _, rate in points]
        own = name == OURS
        colour, mark = ("#1b6ca8", "o") if own else looks[name]
        axes.plot(
            misses, rates, label=name, color=colour, marker=mark, clip_on=False,
            ms=5 if own else 3.5, lw=2.2 if own else 0.8,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(1.0 - LEAST_RECALL, 1.0 - EXACT_AT)
    ticks = (0.7, 0.9, 0.95, 0.99, 0.999)
    axes.set_xticks([1.0 - tick for tick in ticks], [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_title(f"{cell_text(case)} of {case['data']}", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)


def draw(result: dict[str, Any], file: Path) -> Path | None:
    """Write a PNG; None without Matplotlib or without any sweep."""
    chosen = _chosen(result)
    if not chosen or optional("matplotlib") is None:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = sorted({name for case in chosen for name in case["curves"]} - {OURS})
    looks = {
        name: (_COLOURS[place % len(_COLOURS)], _MARKS[place // len(_COLOURS)])
        for place, name in enumerate(names)
    }
    rows = (len(chosen) + COLUMNS - 1) // COLUMNS
    figure = Figure(figsize=(11, 2.9 * rows + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, case in zip(grid, chosen, strict=False):
        _panel(axes, case, looks)
    for axes in grid[len(chosen) :]:
        axes.set_visible(False)
    labels: dict[str, Any] = {}
    for axes in grid[: len(chosen)]:
        handles, texts = axes.get_legend_handles_labels()
        labels |= dict(zip(texts, handles, strict=True))
    figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncol=6, fontsize=7)
    figure.supylabel("queries per second on one thread, by recall", fontsize=8)
    figure.savefig(file, dpi=110)
    return file
