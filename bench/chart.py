# SPDX-License-Identifier: Apache-2.0
"""The chart: how long each contestant takes, in units of the floor of its case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import families
from bench.text import family_of
from bench.timing import optional

COLOURS = {"ours": "#1b6ca8", "peer": "#b8b8b8", "floor": "#222222"}


def _draw_panel(axes: Any, case: dict[str, Any]) -> None:
    lines = [line for line in case["lines"] if "ratio_to_floor" in line]
    lines.sort(key=lambda line: -line["ratio_to_floor"])
    ratios = [line["ratio_to_floor"] for line in lines]
    names = [line["name"] + ("*" if line["extrapolated"] else "") for line in lines]
    axes.barh(names, ratios, color=[COLOURS[line["role"]] for line in lines])
    for place, line in enumerate(lines):
        error = "" if line["error"] is None else f"  err {line['error']:.0e}"
        axes.text(ratios[place], place, f" {ratios[place]:.3g}x{error}", va="center", fontsize=7)
        if line.get("target") is not None:
            axes.plot([line["target"]] * 2, [place - 0.4, place + 0.4], color="#d1495b", lw=2)
    axes.set_xscale("log")
    axes.set_xlim(min(ratios) / 1.5, max(ratios) * 6)
    floor = next((line["floor"] for line in lines), "")
    axes.set_title(f"{case['name']}, {case['threads']} thread(s)", fontsize=8)
    axes.set_xlabel(f"time / {floor}", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def draw(result: dict[str, Any], file: Path) -> Path | None:
    """Write a PNG; None without Matplotlib or without anything to draw.

    A family may draw in a way of its own.
    """
    own = families.report(family_of(result))
    if hasattr(own, "draw"):
        drawn: Path | None = own.draw(result, file)
        return drawn
    panels = own.panels(result)
    if not panels or optional("matplotlib") is None:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(11, 2.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes, case in zip(grid, panels, strict=False):
        _draw_panel(axes, case)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.suptitle("Blue: embedcore. Red: target. Grey: peers. Black: the floor.", fontsize=9)
    figure.savefig(file, dpi=110)
    return file
