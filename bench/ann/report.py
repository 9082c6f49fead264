# SPDX-License-Identifier: Apache-2.0
"""The figures of filtered search in words: targets, cells, building, churn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from bench.text import number, seconds_text, table, threads_text, yes

INTRODUCTION = """## Filtered search

Queries that each have a filter of their own, ten neighbours. A cell is a workload and a band of
the share of the rows that passes: none (no filter), em (a query's own value of a category),
em_rand (any value), em_neg (the section whose centre is farthest from the query), r and r_rand (a
window of a number, around the query's own or anywhere), emis and emis_rand (a member of a set),
and, or, not. Times are of a whole cell, embedcore's as one batch; peers in the way their API is
quickest, the setting of each the quickest of its sweep that reaches the recall in that very cell.
embedcore gets no setting but `recall=`; where a cell needs more than the recall that it is
measured at, the next higher one takes part too, and the table says so. "Prepared": masks, id
lists and selectors are made before; "expressions": they are evaluated in the time, by NumPy where
a peer has no filters of its own. Made data are mixtures that lie as sentence embeddings do;
"file" is a set of real ones.
"""
CHART_TITLE = "Recall and queries per second, every setting tried"
MEAN_GOAL = 2.0
RECALL_CELL, RECALL_MEAN, CELL_QUERIES = 0.93, 0.95, 100
WIDE, WIDE_GOAL = 1024, 6.0
GRAPHS, RIVALS = ("faiss HNSW (", "hnswlib"), ("SVS", "faiss IVFPQFastScan")
BUILD_GOAL = 0.3
SIZE_GOALS = ((WIDE, 0.25), (0, 0.45))
CHURN_RECALL, CHURN_TIME, SHARED_GOAL = 0.01, 1.2, 2.0
BANDS = ("<=0.1%", "0.1-1%", "1-10%", "10-50%", ">50%")

Case = dict[str, Any]
Group = tuple[str, int, bool]


def group_of(case: Case) -> Group:
    """Return what cells are compared within: data, threads, whether filters are evaluated."""
    return case["data"], case["threads"], case["expressions"]


def group_text(group: Group) -> str:
    """Return a title."""
    way = "expressions" if group[2] else "prepared"
    return f"{group[0]}, {threads_text(group[1])}, {way}"


def _measured(result: dict[str, Any]) -> list[Case]:
    """Return the cells in which ours was timed."""
    return [
        case
        for case in result["cases"]
        if any(line["role"] == "ours" and "seconds" in line for line in case["lines"])
    ]


def _ours(case: Case) -> list[dict[str, Any]]:
    return [line for line in case["lines"] if line["role"] == "ours" and "seconds" in line]


def winner(case: Case) -> dict[str, Any] | None:
    """Return our quickest line that reaches the recall."""
    allowed = 1.0 - case["recall"] + 1e-9
    fitting = [line for line in _ours(case) if line["error"] <= allowed]
    return min(fitting, key=lambda line: float(line["seconds"]), default=None)


def best_peer(case: Case, prefixes: tuple[str, ...] = ("",)) -> dict[str, Any] | None:
    """Return the quickest peer whose name starts so; those timed reach the recall."""
    fitting = [
        line
        for line in case["lines"]
        if line["role"] == "peer" and "seconds" in line and line["name"].startswith(prefixes)
    ]
    return min(fitting, key=lambda line: float(line["seconds"]), default=None)


def ratio(case: Case, prefixes: tuple[str, ...] = ("",)) -> float | None:
    """Return a peer's time over ours, 0 where ours misses the recall; None without a peer."""
    peer, own = best_peer(case, prefixes), winner(case)
    if peer is None:
        return None
    return 0.0 if own is None else float(own["times_faster"][peer["name"]])


def _mean(values: list[float]) -> float:
    """Return the geometric mean; cells that miss the recall count as 0.01."""
    return math.exp(sum(math.log(max(value, 0.01)) for value in values) / len(values))


def cell_text(case: Case) -> str:
    """Return workload and band."""
    return f"{case['workload']} {BANDS[case['band']]}"


# ---- targets ------------------------------------------------------------------------------------


def _ahead(title: str, cells: list[Case]) -> Iterator[list[str]]:
    found = [(value, case) for case in cells if (value := ratio(case)) is not None]
    if not found:
        return
    values = [value for value, _ in found]
    behind = [(value, case) for value, case in found if value < 1.0]
    worst, place = min(found, key=lambda one: one[0])
    measured = (
        f"{len(found) - len(behind)} of {len(found)}; worst {worst:.2f} x ({cell_text(place)})"
    )
    yield [f"ahead of the best peer, {title}", "every cell", measured, yes(not behind)]
    mean = _mean(values)
    yield [f"geometric mean, {title}", f">= {MEAN_GOAL} x", f"{mean:.2f} x", yes(mean >= MEAN_GOAL)]


def _speed_rows(cases: list[Case]) -> Iterator[list[str]]:
    groups: dict[tuple[Group, float], list[Case]] = {}
    for case in cases:
        groups.setdefault((group_of(case), case["recall"]), []).append(case)
    for (group, recall), cells in groups.items():
        if cells[0]["dim"] < WIDE:
            yield from _ahead(f"recall {recall}, {group_text(group)}", cells)
    hard = [case for case in cases if case["workload"] in ("em_neg", "and", "or", "not")]
    found = [(value, case) for case in hard if (value := ratio(case)) is not None]
    if found:
        behind = [one for one in found if one[0] < 1.0]
        measured = f"{len(found) - len(behind)} of {len(found)}"
        yield [
            "behind no peer where filters are far, and, or, not",
            "all",
            measured,
            yes(not behind),
        ]


def _wide_rows(cases: list[Case]) -> Iterator[list[str]]:
    wide = [case for case in cases if case["dim"] >= WIDE]
    for what, prefixes, goal in (
        ("float32 graphs", GRAPHS, WIDE_GOAL),
        ("SVS and IVFPQFastScan", RIVALS, 1.0),
    ):
        found = [(value, case) for case in wide if (value := ratio(case, prefixes)) is not None]
        if found:
            worst, place = min(found, key=lambda one: one[0])
            met = sum(value >= goal for value, _ in found)
            measured = f"{met} of {len(found)}; worst {worst:.1f} x ({cell_text(place)})"
            yield [
                f"{wide[0]['data']}: over {what}",
                f">= {goal} x",
                measured,
                yes(met == len(found)),
            ]


def _quality_rows(cases: list[Case]) -> Iterator[list[str]]:
    plain = [case for case in cases if case["threads"] == 1 and not case["expressions"]]
    recalls = [
        (1.0 - _ours(case)[0]["error"], case)
        for case in plain
        if case["recall"] == RECALL_MEAN and case["queries"] >= CELL_QUERIES
    ]
    if recalls:
        worst, place = min(recalls, key=lambda one: one[0])
        low = sum(recall < RECALL_CELL for recall, _ in recalls)
        measured = f"worst {worst:.3f} ({place['data']}, {cell_text(place)}); {low} below"
        what = f"recall of the default, cells of {CELL_QUERIES} queries or more"
        yield [what, f">= {RECALL_CELL}", measured, yes(not low)]
        mean = sum(recall for recall, _ in recalls) / len(recalls)
        yield ["its mean", f">= {RECALL_MEAN}", f"{mean:.3f}", yes(mean >= RECALL_MEAN)]
    for key, what in (
        ("underfull", "queries with fewer than min(k, passing) results"),
        ("failing", "results that fail their filter, or twice"),
    ):
        count = sum(
            number
            for case in cases
            for who, number in case[key].items()
            if who.startswith("embedcore")
        )
        yield [what, "0", str(count), yes(count == 0)]


def own_share(entry: dict[str, Any]) -> float:
    """Return all but the rows and their attributes, over the rows."""
    parts = entry["parts"].items()
    apart = sum(size for name, size in parts if name.startswith("attributes"))
    return float((entry["parts"]["total"] - apart) / entry["raw_bytes"] - 1.0)


def _build_rows(entries: Iterable[dict[str, Any]]) -> Iterator[list[str]]:
    for entry in entries:
        if entry["what"] != "build":
            continue
        title = f"{entry['rows']:,} x {entry['dim']}"
        if "hnswlib_seconds" in entry:
            share = entry["seconds"] / entry["hnswlib_seconds"]
            what = f"building {title} over hnswlib, {threads_text(entry['threads'])}"
            yield [what, f"<= {BUILD_GOAL} x", f"{share:.2f} x", yes(share <= BUILD_GOAL)]
        goal = next(goal for dim, goal in SIZE_GOALS if entry["dim"] >= dim)
        share = own_share(entry)
        what = f"size beyond the rows, {title}, {threads_text(entry['threads'])}"
        yield [what, f"<= {goal:.0%}", f"{share:.1%}", yes(share <= goal)]


def _change_rows(entries: Iterable[dict[str, Any]]) -> Iterator[list[str]]:
    for entry in entries:
        if entry["what"] == "churn" and entry["cells"]:
            lost = max(cell["fresh_recall"] - cell["recall"] for cell in entry["cells"])
            slower = max(cell["ratio"] for cell in entry["cells"])
            good = lost <= CHURN_RECALL
            yield [
                "half the rows replaced: recall lost",
                f"<= {CHURN_RECALL}",
                f"{lost:.3f}",
                yes(good),
            ]
            good = slower <= CHURN_TIME
            yield [
                "half the rows replaced: time",
                f"<= {CHURN_TIME} x",
                f"{slower:.2f} x",
                yes(good),
            ]
        if entry["what"] == "shared" and entry["filters"]:
            least = min(one["ratio"] for one in entry["filters"])
            what = "a batch with one selective filter, over one by one"
            yield [what, f">= {SHARED_GOAL} x", f"{least:.2f} x", yes(least >= SHARED_GOAL)]


def target_rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the targets: what, how much, measured, met."""
    cases, entries = _measured(result), result["memory"]
    return [
        *_speed_rows(cases),
        *_wide_rows(cases),
        *_quality_rows(cases),
        *_build_rows(entries),
        *_change_rows(entries),
    ]


# ---- the page -----------------------------------------------------------------------------------


def _rate(case: Case, line: dict[str, Any]) -> str:
    return f"{case['queries'] / line['seconds']:,.0f}"


def _half(case: Case | None) -> list[str]:
    """Return the cells of one recall: ours, its recall, the best peer, the ratio."""
    if case is None:
        return ["", "", "", ""]
    own, peer, value = winner(case), best_peer(case), ratio(case)
    line = own or _ours(case)[0]
    recall = f"{1.0 - line['error']:.3f}"
    asked = line["name"].split("=")[-1]
    if float(asked) != case["recall"]:
        recall += f" (recall={asked})"
    other = "" if peer is None else f"{_rate(case, peer)} {peer['name']}"
    rate = _rate(case, line) if own else "missed"
    return [rate, recall, other, number(value, ".2f")]


def _plans(case: Case) -> str:
    found = case.get("plans", {})
    return ", ".join(f"{name} {count}" for name, count in found.items())


def _cells_text(cases: list[Case]) -> list[str]:
    groups: dict[Group, dict[tuple[str, int], dict[float, Case]]] = {}
    for case in cases:
        cells = groups.setdefault(group_of(case), {})
        cells.setdefault((case["workload"], case["band"]), {})[case["recall"]] = case
    text = []
    for group, cells in groups.items():
        recalls = sorted({recall for found in cells.values() for recall in found})
        head = ["", "queries", "pass"]
        for recall in recalls:
            head += [f"QPS at {recall}", "recall", "best peer", "x"]
        rows = []
        for found in cells.values():
            case = next(iter(found.values()))
            share = f"{case['passing'] / case['rows']:.3%}"
            row = [cell_text(case), str(case["queries"]), share]
            rows.append(
                [*row, *(one for r in recalls for one in _half(found.get(r))), _plans(case)]
            )
        text += [f"### Cells: {group_text(group)}", "", *table([*head, "plans"], rows)]
    return text


def _builds_text(result: dict[str, Any]) -> list[str]:
    text = []
    builds = [entry for entry in result["memory"] if entry["what"] == "build"]
    rows = [
        [
            f"{entry['rows']:,} x {entry['dim']}",
            threads_text(entry["threads"]),
            seconds_text(entry["seconds"]),
            seconds_text(entry["hnswlib_seconds"]) if "hnswlib_seconds" in entry else "",
            f"{own_share(entry):.1%}",
            ", ".join(
                f"{name} {size / 2**20:.1f}"
                for name, size in entry["parts"].items()
                if size and name != "total"
            ),
        ]
        for entry in builds
    ]
    head = ("rows", "", "embedcore", "hnswlib", "beyond the rows", "parts, MiB")
    text += ["### Building", "", *table(head, rows)]
    for entry in result["memory"]:
        if entry["what"] == "churn":
            title = f"{entry['rows']:,} x {entry['dim']}, half the rows replaced in ten steps"
            rates = ", ".join(f"{name} {rate:,.0f}/s" for name, rate in entry["rates"].items())
            cells = [
                [
                    cell_text(cell), f"{cell['recall']:.3f}", f"{cell['fresh_recall']:.3f}",
                    f"{cell['ratio']:.2f}",
                ]
                for cell in entry["cells"]
            ]  # fmt: skip
            names = ("", "recall", "recall of a fresh build", "time over a fresh build")
            text += [f"### Churn: {title}", "", f"Rows: {rates}.", "", *table(names, cells)]
        if entry["what"] == "shared":
            shared = [
                [f"{one['share']:.2%}", f"{one['batch_qps']:,.0f}", f"{one['ratio']:.2f}"]
                for one in entry["filters"]
            ]
            columns = ("pass", "QPS of the batch", "over one by one")
            text += ["### One filter for a batch of queries", "", *table(columns, shared)]
    return text


def page_text(result: dict[str, Any]) -> list[str]:
    """Return what stands after the targets."""
    calls = [[entry["kind"], seconds_text(entry["seconds"])] for entry in result["overhead"]]
    return [
        *_cells_text(_measured(result)),
        *_builds_text(result),
        "### Search for one query, 200 x 32",
        "",
        *table(("filter", "a call"), calls),
    ]


def draw(result: dict[str, Any], file: Any) -> Any:
    """Draw recall against rate in place of bars."""
    from bench.ann.curves import draw as draw_curves

    return draw_curves(result, file)
