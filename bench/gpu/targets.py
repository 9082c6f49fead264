# SPDX-License-Identifier: Apache-2.0
"""What the kernels for GPUs should reach, beside what was measured; a row each, measured or not.

A result is what bench.gpu has written of a family. Peers count where they find as much as is asked
for; of several lines of ours, and of several floors, the quickest counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from bench.text import yes

HEAD = ("what", "target", "measured", "met")
NOT_MEASURED = "not measured"

Case = dict[str, Any]
Row = list[str]


def target_rows(family: str, cases: list[Case]) -> list[Row]:
    """Return a row for each target of a family; `cases` have the "floors" of their run."""
    rows = {"attention": _attention, "depth": _depth, "ann": _ann}
    return list(rows[family](cases))


def _best(case: Case, *names: str, role: str = "ours", most: float = math.inf) -> Any:
    """Return the quickest line of a role whose name begins with one of `names`; or None."""
    lines = [
        line
        for line in case["lines"]
        if line["role"] == role and line["seconds"] is not None
        and line["name"].startswith(names or "") and (line["error"] or 0.0) <= most
    ]  # fmt: skip
    return min(lines, key=lambda line: line["seconds"], default=None)


def _ratio(over: Any, under: Any) -> float | None:
    return None if over is None or under is None else over["seconds"] / under["seconds"]


def _row(
    what: str, target: str, found: list[tuple[float | None, str]], form: str,
    met: Callable[[float], bool], least: bool = True,
) -> Row:  # fmt: skip
    """Return a row of the worst of what was measured: of numbers, and of which case each is."""
    known = [(value, name) for value, name in found if value is not None]
    if not known:
        return [what, target, NOT_MEASURED, ""]
    value, name = (min if least else max)(known)
    of = f"; worst of {len(known)}" if len(found) > 1 else ""
    there = f", {len(found) - len(known)} failed" if len(known) < len(found) else ""
    right = len(known) == len(found) and all(met(value) for value, _ in known)
    return [what, target, f"{form.format(value)} ({name}{of}{there})", yes(right)]


def _at_least(
    what: str, least: float, found: list[tuple[float | None, str]], form: str = "{:.2f} x"
) -> Row:
    return _row(what, f">= {form.format(least)}", found, form, lambda value: value >= least)


def _at_most(
    what: str, most: float, found: list[tuple[float | None, str]], form: str = "{:.2f} x"
) -> Row:
    return _row(
        what, f"<= {form.format(most)}", found, form, lambda value: value <= most, least=False
    )


# ---- attention ----------------------------------------------------------------------------------


def _token_bytes(case: Case) -> float:
    facts = case["facts"]
    size = 4 if facts["dtype"] == "torch.float32" else 2
    return float(facts["sequences"] * facts["tokens"] * facts["columns"] * size)


def _rate(case: Case) -> float | None:
    """Return bytes a second of the quickest line of ours."""
    ours = _best(case)
    return None if ours is None else case["bytes"] / ours["seconds"]


def _attention(given: list[Case]) -> Iterator[Row]:
    cases = [case for case in given if case["facts"] and "bfloat16" in case["facts"]["dtype"]]

    def some(way: str, *forms: str, m: Any = range(33), least: float = 2e8) -> list[Case]:
        return [
            case
            for case in cases
            if case["facts"]["way"] == way and case["facts"]["form"] in (forms or ("plain", "lama"))
            and case["facts"]["heads"] in m and _token_bytes(case) >= least
        ]  # fmt: skip

    def over_peer(found: list[Case], *names: str) -> list[tuple[float | None, str]]:
        rows = [(case, _best(case, *names, role="peer")) for case in found]
        return [(_ratio(peer, _best(case)), case["name"]) for case, peer in rows if peer]

    forward = [
        (_ratio(_best(case, "all tokens read once", role="floor"), _best(case)), case["name"])
        for case in some("forward")
    ]
    yield _at_least("forward, m <= 32, H >= 200 MB, of a kernel that only reads", 0.95, forward)
    large = [(_rate(case), case["name"]) for case in some("forward", least=1e9)]
    yield _at_least("forward, m <= 32, H >= 1 GB", 4.2e12, large, "{:.3g} B/s")
    yield _sixty_four(some("forward", m=(64,)))
    backward = [(_rate(case), case["name"]) for case in some("backward")]
    yield _at_least("backward, m <= 32, read + written", 3.8e12, backward, "{:.3g} B/s")
    both = [
        (_ratio(_best(case), _best(case, "all tokens read, then copied", role="floor")),
         case["name"])
        for case in some("both")
    ]  # fmt: skip
    yield _at_most("forward and backward over three passes", 1.25, both)
    yield from _skewed(cases)
    one = [
        (line["seconds"] if line else None, case["name"])
        for case in cases
        if case["facts"]["sequences"] == 1 and case["facts"]["tokens"] == 8192
        for line in [_best(case, "embedcore, replayed")]
    ]
    yield _at_most("one sequence of 8192 tokens, m 16, graph replays", 6e-6, one, "{:.3g} s")
    every = some("forward") + some("both")
    for name, peer, least in (
        ("Torch eager", "Torch eager", 2.5), ("torch.compile", "Torch, compiled", 1.8),
    ):  # fmt: skip
        yield _at_least(f"{name} over embedcore", least, over_peer(every, peer))
    pooling = over_peer(some("forward", "pooling"), "nn.MultiheadAttention")
    yield _at_least("nn.MultiheadAttention pooling over embedcore", 10.0, pooling)
    memory = [
        (case["extra_bytes"] / case["extra_limit_bytes"], case["name"])
        for case in given
        if "extra_bytes" in case
    ]
    yield _at_most("peak memory over 1.05 H + 4 m bytes a token", 1.0, memory, "{:.3f} x")


def _sixty_four(cases: list[Case]) -> Row:
    what, target = "forward, m 64", ">= 3.6 TB/s or >= 450 TFLOP/s"
    ours = [(case, _best(case)) for case in cases]
    if not ours or ours[0][1] is None:
        return [what, target, NOT_MEASURED, ""]
    case, line = ours[0]
    rates = case["bytes"] / line["seconds"], case["flops"] / line["seconds"]
    measured = f"{rates[0] / 1e12:.2f} TB/s, {rates[1] / 1e12:.0f} TFLOP/s ({case['name']})"
    return [what, target, measured, yes(rates[0] >= 3.6e12 or rates[1] >= 450e12)]


def _skewed(cases: list[Case]) -> Iterator[Row]:
    """Rates of skewed lengths over that of the same shape, dense."""
    shape = ("sequences", "tokens", "columns", "heads", "way")
    for form in ("zipf", "uniform"):
        found = []
        for case in cases:
            if case["facts"]["form"] != form:
                continue
            dense = [
                other
                for other in cases
                if other["facts"]["form"] == "plain"
                and all(other["facts"][key] == case["facts"][key] for key in shape)
            ]
            own, full = _rate(case), _rate(dense[0]) if dense else None
            found.append((own / full if own and full else None, case["name"]))
        yield _at_least(f"lengths by {form}, of the dense rate", 0.8, found)


# ---- search -------------------------------------------------------------------------------------


def _ann(given: list[Case]) -> Iterator[Row]:
    searches = [case for case in given if case["facts"].get("what") == "search"]
    many = [
        case for case in searches if case["facts"]["batch"] == 1024 and case["facts"]["k"] == 10
    ]
    shares = (0.0001, 0.001, 0.01, 0.1, 0.5, 1.0)
    for each in (False, True):
        filters = "a filter for each query" if each else "one filter"
        ratios = []
        for share in shares:
            ratio, words = _over_best_peer(
                [c for c in many if c["facts"]["share"] == share and c["facts"]["each"] == each]
            )
            ratios.append(ratio)
            met = "" if ratio is None else yes(ratio > 1.0)
            yield [f"best peer over embedcore, {filters}, {share:.2%} pass", "> 1 x", words, met]
        known = [ratio for ratio in ratios if ratio is not None]
        mean = math.exp(sum(map(math.log, known)) / len(known)) if known else None
        words = f"{len(known)} of {len(shares)} selectivities"
        row = _at_least(f"the same, geometric mean, {filters}", 5.0, [(mean, words)])
        yield [*row[:3], yes(False) if 0 < len(known) < len(shares) else row[3]]
    yield from _scans(many)
    recalls = [
        (None if line["error"] is None else 1.0 - line["error"], case["name"])
        for case in many
        for line in case["lines"]
        if line["name"] == "embedcore"
    ]
    yield _at_least("recall at the default, over selectivities", 0.93, recalls, "{:.3f}")
    yield from _builds([case for case in given if case["facts"].get("what") == "build"])
    one = [
        case for case in searches if case["facts"]["batch"] == 1 and case["facts"]["share"] == 0.1
    ]
    for words, names in (("called", ("embedcore",)), ("graph replays", ("embedcore, replayed",))):
        lines = [_called(case, names) for case in one]
        best = min((line["seconds"] for line in lines if line), default=None)
        found = [(best, "the quicker of an index with a graph and without")]
        yield _at_most(f"batch of 1, 10 % pass, {words}", 80e-6, found, "{:.3g} s")


def _evaluating(case: Case) -> Case:
    lines = [line for line in case["lines"] if "compiled filters" not in line["name"]]
    return {**case, "lines": lines}


def _called(case: Case, names: tuple[str, ...]) -> Any:
    lines = [
        line for line in case["lines"]
        if "replayed" not in line["name"] or names != ("embedcore",)
    ]  # fmt: skip
    return _best({**case, "lines": lines}, *names, most=0.05)


def _over_best_peer(cases: list[Case]) -> tuple[float | None, str]:
    """Return the time of the quickest peer over ours, of answers with 95 % of the nearest.

    Peers evaluate filters, and so do we: those that were compiled before do not count.
    """
    ours = [line for case in cases if (line := _best(_evaluating(case), most=0.05))]
    others = [line for case in cases if (line := _best(case, role="peer", most=0.05))]
    if not ours or not others:
        return None, NOT_MEASURED
    line, peer = (min(lines, key=lambda one: one["seconds"]) for lines in (ours, others))
    words = f"{peer['seconds'] / line['seconds']:.2f} x ({peer['name']}; {line['name']})"
    return peer["seconds"] / line["seconds"], words


def _scans(many: list[Case]) -> Iterator[Row]:
    """Rates of scans over that of a square product in bfloat16."""
    for name, words in (("embedcore", "default"), ("embedcore, exact", "exact=True")):
        found = []
        for case in many:
            facts = case["facts"]
            if facts["share"] != 1.0 or facts["each"] or facts["linked"]:
                continue
            line = next((one for one in case["lines"] if one["name"] == name), None)
            full = case["floors"].get("bfloat16_tflop_per_s")
            known = line is not None and line["seconds"] is not None and full
            rate = case["flops"] / line["seconds"] / 1e12 / full if known else None
            found.append((rate, case["name"]))
        yield _at_least(f"scan of all rows, of the bfloat16 matrix rate, {words}", 0.6, found)


def _builds(cases: list[Case]) -> Iterator[Row]:
    ratios: list[tuple[float | None, str]] = []
    losses: list[tuple[float | None, str]] = []
    for case in cases:
        ours = _best(case, "embedcore, cuda")
        cpu = _best(case, "embedcore, CPU", role="peer")
        ratios.append((_ratio(cpu, ours), f"{case['name']}, {cpu['name'] if cpu else 'no CPU'}"))
        known = ours is not None and cpu is not None
        losses.append((ours["error"] - cpu["error"] if known else None, case["name"]))
    yield _at_least("build on the CPU over build by the device", 10.0, ratios)
    yield _at_most("recall that the device's build loses to the CPU's", 0.01, losses, "{:.4f}")


# ---- depth --------------------------------------------------------------------------------------


def _depth(cases: list[Case]) -> Iterator[Row]:
    known = [case for case in cases if case["facts"]]

    def rate(case: Case, key: str, by: str) -> float | None:
        ours, full = _best(case), case["floors"].get(key)
        scale = 1e9 if by == "bytes" else 1e12
        return case[by] / ours["seconds"] / scale / full if ours and full else None

    def some(**wanted: Any) -> list[Case]:
        return [c for c in known if all(c["facts"].get(key) in wanted[key] for key in wanted)]

    def of_products(found: list[Case]) -> list[tuple[float | None, str]]:
        return [(_ratio(_best(c, role="floor"), _best(c)), c["name"]) for c in found]

    pairs, angular, half = (100_000,), ("arc", "chord"), ("bfloat16",)
    full = of_products(some(n=pairs, m=pairs, metric=angular, precision=half))
    yield _at_least("arc, chord by bfloat16, 100k x 100k x 1024, of the product", 0.85, full)
    own = of_products(some(n=pairs, m=(0,), metric=angular, precision=half))
    yield _at_least("the same in their own corpus, of the product", 1.8, own)
    strict = of_products(some(n=(40_000,), m=(40_000,), precision=("float32",)))
    yield _at_least("strict float32 arc over the float32 product", 1.5, strict)
    cosine = [
        (rate(case, "copy_gb_per_s", "bytes"), case["name"])
        for case in some(metric=("cosine",)) if case["facts"]["n"] > 4096
    ]  # fmt: skip
    yield _at_least("cosine, of the bandwidth of copies", 0.9, cosine)
    for words, own_corpus, least in (("", False, 1.3), (" in their own corpus", True, 2.0)):
        found = [
            (_ratio(peer, _best(case)), case["name"])
            for case in some(metric=angular)
            if (case["facts"]["m"] == 0) == own_corpus and case["facts"]["n"] > 4096
            for peer in [_best(case, "Torch, chunks", role="peer")] if peer
        ]  # fmt: skip
        yield _at_least(f"Torch, chunks, the quicker way, over embedcore{words}", least, found)
    small = [(c["seconds"], name) for c, name in _replays(some(n=(1000,), m=(1000,)))]
    yield _at_most("1000 x 1000 x 384, graph replays", 30e-6, small, "{:.3g} s")


def _replays(cases: list[Case]) -> Iterator[tuple[Any, str]]:
    for case in cases:
        yield _best(case, "embedcore, replayed") or {"seconds": None}, case["name"]
