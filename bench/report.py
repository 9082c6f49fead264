# SPDX-License-Identifier: Apache-2.0
"""Figures to text: the tables on the terminal, and bench/RESULTS.md from the recorded JSON.

python bench/report.py          # writes bench/RESULTS.md and the charts anew
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("", "time", "CPU", "error", "x floor", "target", "met", "x best peer")


def seconds_text(seconds: float) -> str:
    """Return three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds / size < 1000 else f"{seconds:,.0f} s"
    return f"{seconds / 1e-9:.3g} ns"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _met(line: dict[str, Any]) -> str:
    words = []
    if "met" in line:
        words.append("yes" if line["met"] else "NO")
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
        _number(line["error"], ".1e"),
        _number(line.get("ratio_to_floor"), ".3g"),
        _number(line.get("target"), ".2f"),
        _met(line),
        peer,
    ]


def _title(case: dict[str, Any]) -> str:
    plural = "s" if case["threads"] > 1 else ""
    return f"{case['name']}, {case['threads']} thread{plural}"


def case_text(case: dict[str, Any]) -> str:
    """Return the terminal's table of one case."""
    rows = [line_cells(line) for line in case["lines"]]
    widths = (30, 10, 10, 9, 9, 8, 15, 0)
    text = [f"\n{_title(case)}"]
    for cells in [COLUMNS, *rows]:
        body = "".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
        text.append(f"  {body.rstrip()}")
    return "\n".join(text)


def target_rows(result: dict[str, Any]) -> list[list[str]]:
    """Return one row for each target of time, error, overhead and memory: what, measured, met."""
    rows = []
    for case in result["cases"]:
        for line in case["lines"]:
            if line["role"] == "ours" and "seconds" in line:
                rows += _case_targets(case, line)
    rows += _peer_target(result)
    for entry in result["overhead"]:
        if entry["kind"] in ("NumPy", "Torch"):
            what = f"call of {entry['metric']} (8, 8, 384) from {entry['kind']}"
            met = _yes(entry["seconds"] <= 10e-6)
            rows.append([what, "<= 10 us", seconds_text(entry["seconds"]), met])
    for entry in result["memory"]:
        extra, allowed = entry["extra_bytes"], entry["allowed_bytes"]
        measured = f"{extra / 2**20:.0f} MiB in {seconds_text(entry['seconds'])}"
        measured += _scaled_ratio(result, entry)
        limit = f"<= {allowed / 2**20:.0f} MiB"
        rows.append([f"memory, {_memory_title(entry)}", limit, measured, _yes(extra <= allowed)])
    return rows


def _yes(met: bool) -> str:
    return "yes" if met else "NO"


def _case_targets(case: dict[str, Any], line: dict[str, Any]) -> list[list[str]]:
    what = f"{_title(case)}, {line['name'].split()[-1]}"
    rows = []
    if line["target"] is not None:
        measured = f"{line['ratio_to_floor']:.3g} x {line['floor']}"
        rows.append([what, f"<= {line['target']:.2f}", measured, _yes(line["met"])])
    if case["data"] not in ("made", "lengths"):
        limit = line["error_limit"]
        met = _yes(line["error"] <= limit)
        rows.append([f"error, {what}", f"<= {limit:.0e}", f"{line['error']:.1e}", met])
    return rows


def _peer_target(result: dict[str, Any]) -> list[list[str]]:
    """Whether every peer is beaten at equal or better error where n and m are 1,000 or more."""
    peers = [
        (case, line)
        for case in result["cases"]
        if min(case["n"], case["m"] or case["n"]) >= 1000
        for line in case["lines"]
        if "beaten" in line
    ]
    if not peers:
        return []
    ahead = [f"{line['name']} in {_title(case)}" for case, line in peers if not line["beaten"]]
    measured = f"{len(peers) - len(ahead)} of {len(peers)}"
    rows = [["peers beaten at equal or better error", "all", measured, _yes(not ahead)]]
    return rows + [[f"not beaten: {name}", "", "", "NO"] for name in ahead]


def _scaled_ratio(result: dict[str, Any], entry: dict[str, Any]) -> str:
    """Compare a problem whose product does not fit memory with a smaller product, scaled."""
    if entry["n"] < 100_000:
        return ""
    for case in result["cases"]:
        same = (case["metric"], case["m"], case["d"], case["threads"]) == (
            entry["metric"],
            entry["m"],
            entry["d"],
            entry["threads"],
        )
        for line in case["lines"] if same and case["n"] == 10_000 else ():
            if line["name"] == "SGEMM":
                ratio = entry["seconds"] / (line["seconds"] * (entry["n"] / case["n"]) ** 2)
                return f", {ratio:.2f} x SGEMM scaled from 10,000 rows"
    return ""


def _memory_title(entry: dict[str, Any]) -> str:
    shape = f"{entry['n']:,} " + ("self" if entry["m"] is None else f"x {entry['m']:,}")
    plural = "s" if entry["threads"] > 1 else ""
    return (
        f"{entry['metric']} {entry['precision']} {shape} x {entry['d']}, "
        f"{entry['threads']} thread{plural}"
    )


def wrong_answers(result: dict[str, Any]) -> list[str]:
    """Return the names of our own contestants that failed."""
    return [
        f"{_title(case)}: {line['name']}: {line['failed']}"
        for case in result["cases"]
        for line in case["lines"]
        if line["role"] == "ours" and "failed" in line
    ]


def closing_text(result: dict[str, Any]) -> str:
    """Return what the terminal shows after the cases."""
    text = ["", "* extrapolated from the first rows of x", ""]
    for threads, rates in result["floors"].items():
        text.append(
            f"{threads} thread(s): reads {rates['read_gb_per_s']:.1f} GB/s, "
            f"SGEMM {rates['sgemm_gflop_per_s']:.0f} GF/s"
        )
    rows = target_rows(result)
    if rows:
        rows.insert(0, ["target", "", "measured", "met"])
        widths = [max(len(row[i]) for row in rows) + 2 for i in range(3)] + [0]
        text.append("")
        for row in rows:
            cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
            text.append("".join(cells))
    wrong = wrong_answers(result)
    if wrong:
        text += ["", "wrong answers:", *wrong]
    elif result["cases"]:
        text += ["", "every answer agrees with the oracle"]
    return "\n".join(text)


def write(result: dict[str, Any], folder: Path) -> list[Path]:
    """Write the JSON and, where Matplotlib is installed, the chart; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"depth-{result['mode']}.json"
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="ascii")
    chart = draw_chart(result, folder / f"depth-{result['mode']}.png")
    return [file] if chart is None else [file, chart]


def draw_chart(result: dict[str, Any], file: Path) -> Path | None:
    """Draw the chart; None without Matplotlib or without anything to draw."""
    from bench.chart import draw

    return draw(result, file)


# ---- the page -----------------------------------------------------------------------------------


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    def row(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    names = list(head)
    return [row(names), row("---" for _ in names), *(row(cells) for cells in rows), ""]


def _machine_text(result: dict[str, Any]) -> list[str]:
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    facts = [
        f"{machine['processor']}, {machine['cores']} cores, last cache "
        f"{machine['last_cache_bytes'] >> 20} MiB, {machine['system']}",
        f"embedcore {machine['embedcore']}, commit {machine['commit']}, {machine['build']}, "
        f"instruction set {machine['isa']}, flags `{machine['kernel_flags']}`",
        f"{versions}; BLAS: {machine['blas']}",
    ]
    if machine["environment"]:
        settings = (f"{name}={value}" for name, value in machine["environment"].items())
        facts.append(f"environment: {', '.join(settings)}")
    facts += [
        f"{threads} thread(s): reads {rates['read_gb_per_s']:.1f} GB/s, square SGEMM "
        f"{rates['sgemm_gflop_per_s']:.0f} GF/s"
        for threads, rates in result["floors"].items()
    ]
    facts.append(f"started {result['started']}, {result['seconds'] / 60:.0f} minutes")
    return [f"- {fact}" for fact in facts] + [""]


def _cases_text(result: dict[str, Any]) -> list[str]:
    text = []
    for case in result["cases"]:
        text += [f"### {_title(case)}", ""]
        text += _table(COLUMNS, (line_cells(line) for line in case["lines"]))
    return text


def _overhead_text(result: dict[str, Any]) -> list[str]:
    rows = [
        [entry["metric"], entry["kind"], seconds_text(entry["seconds"])]
        for entry in result["overhead"]
    ]
    return ["### Call overhead, (8, 8, 384)", "", *_table(("metric", "from", "a call"), rows)]


def _page_section(file: Path) -> list[str]:
    result = json.loads(file.read_text(encoding="ascii"))
    text = [f"## {file.parent.name}: {result['mode']}", ""]
    if result["interrupted"]:
        text += ["Interrupted: not all cases were measured.", ""]
    text += _machine_text(result)
    chart = file.with_suffix(".png")
    if chart.exists():
        text += [f"![Time over SGEMM](results/{file.parent.name}/{chart.name})", ""]
    text += ["### Targets", ""]
    text += _table(("what", "target", "measured", "met"), target_rows(result))
    text += _cases_text(result) + _overhead_text(result)
    return text


def _other_files(folder: Path) -> list[str]:
    """Link what other benches recorded."""
    names = [file for file in sorted(folder.glob("*.json")) if not _is_depth(file)]
    links = [f"- [{file.stem}](results/{folder.name}/{file.name})" for file in names]
    return ["### Other recorded figures", "", *links, ""] if links else []


def _is_depth(file: Path) -> bool:
    return file.stem.startswith("depth-")


_INTRODUCTION = """# Results

Generated by `python bench/report.py` from the JSON files under `bench/results`; renewed by
`python -m bench --full --record`. Times are medians of wall time over rounds in which all
contestants take turns; ratios are medians over the rounds of the two times in the same round. The
error is the largest one against float64 over the checked rows. A star marks times extrapolated from
the first rows. "x floor" is the time over that of the floor: NumPy's SGEMM of the same shape into
memory already in place, the fastest way found to read the inputs, or projecting and sorting (or
selecting). "x best peer" compares with the fastest peer whose error is at most twice as large; a
peer whose own row says "not beaten" is faster than all of embedcore's contestants with an equal or
smaller error. Errors up to the limit for float32 count as equal: 1e-6, 2e-6 for spatial, 1e-5 for
projection and irw, four corpus rows for halfspace. Rows under the angular metrics have unit length:
embedcore normalises them again, peers need not.
"""


def write_page(bench: Path) -> Path:
    """Write RESULTS.md from every recorded result."""
    text = [_INTRODUCTION]
    for folder in sorted(path for path in (bench / "results").glob("*") if path.is_dir()):
        for file in sorted(folder.glob("depth-*.json")):
            text += _page_section(file)
        text += _other_files(folder)
    page = bench / "RESULTS.md"
    page.write_text("\n".join(text).rstrip() + "\n", encoding="ascii")
    return page


def main(redraw: Callable[[dict[str, Any], Path], Path | None] = draw_chart) -> int:
    """Draw every chart and write the page."""
    for file in sorted((ROOT / "bench" / "results").glob("*/depth-*.json")):
        redraw(json.loads(file.read_text(encoding="ascii")), file.with_suffix(".png"))
    print(f"wrote {write_page(ROOT / 'bench')}")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    raise SystemExit(main())
