# SPDX-License-Identifier: Apache-2.0
"""Attention's figures in words: its targets, its part of the page, the panels of its chart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.text import (
    cases_text,
    number,
    seconds_text,
    table,
    threads_text,
    title,
    yes,
)

INTRODUCTION = """## Attention

The LAMA head with its factor folded (tanh, l2 over the heads, T = 0.25) on random LayerNormed
tokens; `B x L x d`, m heads. "x floor" is the time over that of the slower of two floors timed in
the same rounds: reading the tokens (once forward; three times forward and backward), and 4 d m
(forward and backward: 12 d m) operations for each token as multiply-adds from registers, for
bfloat16 by the fastest products that the machine has for it, of pairs or of tiles. The error is
the largest difference over the largest value of the right answer, for the output and each gradient.
Every contestant finds the pages of its results in place; "(cold)" means fresh pages for every
result, and empty caches. Torch eager stands there in two forms, scores of tokens first or heads
first: targets are held against the faster one. Torch SDPA computes no tanh and no norm.
"""
CHART_TITLE = "Time over the floor"
SCALING = 1.9
CALL_LIMITS = {"NumPy": 3e-6, "Torch, no gradient": 6e-6}
WANTED = ((False, 8), (False, 32), (True, 8), (True, 32))

Line = tuple[dict[str, Any], dict[str, Any]]


def _ours(result: dict[str, Any]) -> list[Line]:
    """Return every measured line of our own with its case."""
    return [
        (case, line)
        for case in result["cases"]
        for line in case["lines"]
        if line["role"] == "ours" and "seconds" in line
    ]


def _kind(case: dict[str, Any]) -> str:
    way = ""
    if case["what"] in ("attention", "pooling"):
        way = " forward+backward" if case["backward"] else " forward"
    return f"{case['what']}{way} {case['dtype']}"


def _place(case: dict[str, Any]) -> str:
    """Return what distinguishes a case of a kind from the others."""
    heads = "" if case["what"] == "mean" else f", m {case['m']}"
    cold = ", cold" if case["cold"] else ""
    shape = " x ".join(map(str, case["shape"]))
    return f"{shape}{heads}{cold}, {threads_text(case['threads'])}"


def _row(
    what: str, target: str, found: list[tuple[float, bool, str]], form: str, least: bool
) -> list[str]:
    """One row for measurements of a kind: how many meet the target, and the worst."""
    worst = (min if least else max)(found)
    met = sum(one[1] for one in found)
    measured = f"{met} of {len(found)}; worst {form.format(worst[0])} ({worst[2]})"
    return [what, target, measured, yes(met == len(found))]


def _floor_rows(lines: list[Line]) -> Iterator[list[str]]:
    groups: dict[tuple[str, float], list[tuple[float, bool, str]]] = {}
    for case, line in lines:
        if "met" in line:
            key = (_kind(case), line["target"])
            groups.setdefault(key, []).append((line["ratio_to_floor"], line["met"], _place(case)))
    for (kind, target), found in groups.items():
        what = f"{kind} over " + ("its share" if kind.startswith("ragged") else "the floor")
        heads = ", m 8" if target == 1.25 else ", m 16 and 32" if target == 1.1 else ""
        heads = "" if kind.startswith("ragged") else heads
        yield _row(what + heads, f"<= {target:.2f} x", found, "{:.2f} x", least=False)


def _goal_rows(lines: list[Line]) -> Iterator[list[str]]:
    groups: dict[tuple[str, str, float], list[tuple[float, bool, str]]] = {}
    for case, line in lines:
        for goal in line.get("goals", ()):
            kind = _kind(case) + (f", m {case['m']}" if case["what"] == "attention" else "")
            key = (kind, goal["peer"], goal["wanted"])
            groups.setdefault(key, []).append((goal["measured"], goal["met"], _place(case)))
    for (kind, peer, wanted), found in groups.items():
        yield _row(f"{peer} over {kind}", f">= {wanted:.1f} x", found, "{:.1f} x", least=True)


def _never_behind(result: dict[str, Any]) -> Iterator[list[str]]:
    found = [(case, line) for case in result["cases"] for line in case["lines"] if "beaten" in line]
    if found:
        behind = [(case, line) for case, line in found if not line["beaten"]]
        measured = f"{len(found) - len(behind)} of {len(found)}"
        yield ["behind no peer at any point of the grid", "all", measured, yes(not behind)]
        for case, line in behind:
            yield [f"ahead of embedcore: {line['name']} in {title(case)}", "", "", "NO"]


def _error_rows(lines: list[Line]) -> Iterator[list[str]]:
    for dtype in ("float32", "bfloat16"):
        found = [
            (line["error"] / line["error_limit"], line["error"] <= line["error_limit"], title(case))
            for case, line in lines
            if case["dtype"] == dtype and line["error_limit"] > 0
        ]
        if found:
            allowed = "1e-6 max(1, s/T), or " if dtype == "float32" else ""
            what = f"error, {dtype}, of the limit"
            yield _row(what, f"{allowed}2 x Torch's", found, "{:.2f} x", least=False)


def _scaling_rows(result: dict[str, Any]) -> Iterator[list[str]]:
    """One thread's time over that of two, where multiplying is the floor."""
    by_name: dict[str, dict[int, tuple[float, str]]] = {}
    for case, line in _ours(result):
        large = case["shape"][0] * case["shape"][1] >= 8192
        if case["what"] == "attention" and large and not case["cold"]:
            key = f"{case['name']} {line['name']}"
            by_name.setdefault(key, {})[case["threads"]] = (line["seconds"], line.get("floor", ""))
    found = []
    for name, times in by_name.items():
        if {1, 2} <= set(times) and not times[2][1].startswith("read"):
            ratio = times[1][0] / times[2][0]
            found.append((ratio, ratio >= SCALING, name.split(" embedcore")[0]))
    if found:
        what = "two threads over one, bound by multiplying"
        yield _row(what, f">= {SCALING} x", found, "{:.2f} x", least=True)


def _overhead_rows(result: dict[str, Any]) -> Iterator[list[str]]:
    calls = {entry["kind"]: entry["seconds"] for entry in result["overhead"]}
    limits = dict(CALL_LIMITS)
    if "SDPA, with autograd" in calls:
        limits["Torch, with autograd"] = calls["SDPA, with autograd"]
    for kind, limit in limits.items():
        if kind in calls:
            allowed = f"<= {seconds_text(limit)}" + (" (SDPA)" if "autograd" in kind else "")
            met = yes(calls[kind] <= limit)
            yield [f"a call: {kind}", allowed, seconds_text(calls[kind]), met]


def _memory_rows(result: dict[str, Any]) -> Iterator[list[str]]:
    for entry in result["memory"]:
        if "allowed_bytes" in entry:
            share = entry["extra_bytes"] / entry["input_bytes"]
            allowed = entry["allowed_bytes"] / entry["input_bytes"]
            met = yes(entry["extra_bytes"] <= entry["allowed_bytes"])
            what = f"memory of forward+backward, {entry['title']}"
            yield [what, f"<= {allowed:.3f} x input", f"{share:.3f} x input", met]


def target_rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the targets: what, how much, how many measurements meet it and the worst, met."""
    lines = _ours(result)
    return [
        *_floor_rows(lines),
        *_goal_rows(lines),
        *_never_behind(result),
        *_scaling_rows(result),
        *_overhead_rows(result),
        *_memory_rows(result),
        *_error_rows(lines),
    ]


# ---- the page -----------------------------------------------------------------------------------


def _faster(line: dict[str, Any], prefix: str) -> str:
    """The factor to the fastest peer with this prefix, and the target beside it."""
    peers = line.get("times_faster", {})
    factors = [value for name, value in peers.items() if name.startswith(prefix)]
    goals = [goal["wanted"] for goal in line.get("goals", ()) if goal["peer"].startswith(prefix)]
    if not factors:
        return ""
    return f"{min(factors):.2f}" + (f" (>= {goals[0]:.1f})" if goals else "")


def _grid_rows(lines: list[Line], peers: tuple[str, ...]) -> Iterator[list[str]]:
    for case, line in lines:
        target = "" if line["target"] is None else f" (<= {line['target']:.2f})"
        floor = number(line.get("ratio_to_floor"), ".2f") + target
        yield [
            " x ".join(map(str, case["shape"])) + (" cold" if case["cold"] else ""),
            str(case["m"]),
            threads_text(case["threads"]),
            line["name"],
            seconds_text(line["seconds"]),
            floor,
            line.get("floor", "").split(" (")[0],
            *(_faster(line, peer) for peer in peers),
            f"{line['error']:.1e}",
        ]


_PEERS = {
    "attention": ("Torch eager", "Torch SDPA", "Torch compiled"),
    "pooling": ("nn.MultiheadAttention", "Torch eager"),
    "mean": ("sentence-transformers", "bmm", "H.mean"),
    "ragged": ("Torch eager",),
}


def _grid_text(result: dict[str, Any]) -> list[str]:
    text = []
    groups: dict[tuple[str, str], list[Line]] = {}
    for case, line in _ours(result):
        groups.setdefault((_kind(case), case["what"]), []).append((case, line))
    for (kind, what), lines in groups.items():
        peers = _PEERS[what]
        head = ["B x L x d", "m", "threads", "", "time", "x floor", "floor"]
        head += [f"{peer} / ours" for peer in peers]
        text += [f"### {kind.capitalize()}", ""]
        text += table([*head, "error"], _grid_rows(lines, peers))
    return text


def _memory_text(result: dict[str, Any]) -> list[str]:
    rows = [
        [
            entry["title"],
            threads_text(entry["threads"]),
            f"{entry['extra_bytes'] / 2**20:.1f} MiB",
            f"{entry['extra_bytes'] / entry['input_bytes']:.3f}",
            seconds_text(entry["seconds"]),
        ]
        for entry in result["memory"]
    ]
    head = ("forward and backward, in a process of its own", "", "memory", "x input", "first call")
    return ["### Memory beyond the input", "", *table(head, rows)]


def _overhead_text(result: dict[str, Any]) -> list[str]:
    rows = [[entry["kind"], seconds_text(entry["seconds"])] for entry in result["overhead"]]
    return ["### Call overhead, 1 x 4 x 32, m 4", "", *table(("from", "a call"), rows)]


def page_text(result: dict[str, Any]) -> list[str]:
    """Return what stands after the targets."""
    return [
        *_grid_text(result),
        *_memory_text(result),
        *_overhead_text(result),
        *cases_text(result),
    ]


def panels(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the largest float32 cases, and forward in bfloat16, at the most threads."""
    timed = [
        case
        for case in result["cases"]
        if case["what"] == "attention"
        and case["threads"] == max(result["threads"])
        and not case["cold"]
        and any(line["role"] == "ours" and "seconds" in line for line in case["lines"])
    ]
    found = []
    for dtype, wanted in (("float32", WANTED), ("bfloat16", WANTED[:2])):
        for backward, heads in wanted:
            kind = (dtype, backward, heads)
            fitting = [
                case for case in timed if (case["dtype"], case["backward"], case["m"]) == kind
            ]
            if fitting:
                found.append(max(fitting, key=lambda case: case["shape"][0] * case["shape"][1]))
    return found
