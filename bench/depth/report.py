# SPDX-License-Identifier: Apache-2.0
"""Depth's figures in words: its targets, its part of the page, the panels of its chart."""

from __future__ import annotations

from typing import Any

from bench.text import cases_text, seconds_text, table, threads_text, title, yes

INTRODUCTION = """## Depth

"x floor" is the time over that of the floor: NumPy's SGEMM of the same shape into memory already in
place, the fastest way found to read the inputs, or projecting and sorting (or selecting). Errors up
to the limit for float32 count as equal: 1e-6, 2e-6 for spatial, 1e-5 for projection and irw, four
corpus rows for halfspace. Rows under the angular metrics have unit length: embedcore normalises
them again, peers need not.
"""
CHART_TITLE = "Time over SGEMM"
MOST_PANELS = 6
WANTED = (("arc", True), ("arc", False), ("chord", True), ("l2", True), ("spatial", True))


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
            met = yes(entry["seconds"] <= 10e-6)
            rows.append([what, "<= 10 us", seconds_text(entry["seconds"]), met])
    for entry in result["memory"]:
        extra, allowed = entry["extra_bytes"], entry["allowed_bytes"]
        measured = f"{extra / 2**20:.0f} MiB in {seconds_text(entry['seconds'])}"
        measured += _scaled_ratio(result, entry)
        limit = f"<= {allowed / 2**20:.0f} MiB"
        rows.append([f"memory, {_memory_title(entry)}", limit, measured, yes(extra <= allowed)])
    return rows


def _case_targets(case: dict[str, Any], line: dict[str, Any]) -> list[list[str]]:
    what = f"{title(case)}, {line['name'].split()[-1]}"
    rows = []
    if line["target"] is not None:
        measured = f"{line['ratio_to_floor']:.3g} x {line['floor']}"
        rows.append([what, f"<= {line['target']:.2f}", measured, yes(line["met"])])
    if case["data"] not in ("made", "lengths"):
        limit = line["error_limit"]
        met = yes(line["error"] <= limit)
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
    ahead = [f"{line['name']} in {title(case)}" for case, line in peers if not line["beaten"]]
    measured = f"{len(peers) - len(ahead)} of {len(peers)}"
    rows = [["peers beaten at equal or better error", "all", measured, yes(not ahead)]]
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
    return (
        f"{entry['metric']} {entry['precision']} {shape} x {entry['d']}, "
        f"{threads_text(entry['threads'])}"
    )


def page_text(result: dict[str, Any]) -> list[str]:
    """Return what stands after the targets."""
    return cases_text(result) + _overhead_text(result)


def _overhead_text(result: dict[str, Any]) -> list[str]:
    rows = [
        [entry["metric"], entry["kind"], seconds_text(entry["seconds"])]
        for entry in result["overhead"]
    ]
    return ["### Call overhead, (8, 8, 384)", "", *table(("metric", "from", "a call"), rows)]


def panels(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the largest case of each wanted kind, at the most threads."""
    timed = [
        case
        for case in result["cases"]
        if case["threads"] == max(result["threads"])
        and not case["cold"]
        and any(line["role"] == "peer" and "seconds" in line for line in case["lines"])
    ]
    found = []
    for metric, crossed in (*WANTED, ("halfspace", True)):
        fitting = [
            case
            for case in timed
            if case["metric"] == metric and (case["m"] is not None) == crossed
        ]
        if fitting:
            found.append(max(fitting, key=lambda case: case["n"] * case["n"] * case["d"]))
    return found[:MOST_PANELS]
