# SPDX-License-Identifier: Apache-2.0
"""What cells do not show: building, size, churn, one filter shared by a batch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from embedcore.ann import field

from bench.ann import data, ours, sweep
from bench.ann.columns import attributes, label
from bench.ann.peers.graphs import new_hnswlib_index
from bench.ann.sweep import Cell, K
from bench.timing import optional, thread_limit

Entry = dict[str, Any]
QUERIES = 200
# Rows, dimensions and threads of the builds that are timed.
BUILDS = {
    "smoke": ((600, 32, 1),),
    "quick": ((10_000, 384, 1),),
    "full": ((60_000, 384, 1), (60_000, 384, 2), (200_000, 384, 2), (50_000, 4096, 2)),
}
OTHERS = {"smoke": (600, 32), "quick": (10_000, 384), "full": (60_000, 384)}
CHURN_SHARE, CHURN_STEPS = 0.5, 10
CHURN_QUERIES = 2000  # so that recalls differ by less than 0.005 by chance
CHURN_CELLS = (("none", 4), ("em", 2), ("r", 3), ("em_neg", 2))
_AWAKE, _LEAST = 0.1, 0.5  # seconds that two contestants run each, then together
SHARED_BELOW = 0.1  # a filter is selective up to that share


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _in_turns(
    one: Callable[[], Any], other: Callable[[], Any], rounds: int
) -> list[tuple[float, float]]:
    """Time two calls in turns, once both have run for so long that the processor is awake."""
    for run in (one, other):
        start = time.perf_counter()
        while rounds > 1 and time.perf_counter() - start < _AWAKE:
            run()
    start = time.perf_counter()
    times = [(_seconds(one), _seconds(other)) for _ in range(rounds)]
    while rounds > 1 and time.perf_counter() - start < _LEAST:
        times.append((_seconds(one), _seconds(other)))
    return times


def _build(rows: int, dim: int, threads: int) -> Entry:
    """Build without attributes, as hnswlib does; then say what the index takes."""
    vectors = data.dataset(rows, dim, QUERIES).base
    index = ours.new_index(dim, threads)

    def own() -> None:
        index.add(vectors)
        index.compact()

    with thread_limit(threads):
        entry: Entry = {
            "what": "build", "rows": rows, "dim": dim, "threads": threads, "seconds": _seconds(own),
            "raw_bytes": vectors.nbytes, "parts": dict(index.memory_usage()),
        }  # fmt: skip
        if optional("hnswlib") is not None:
            entry["hnswlib_seconds"] = _seconds(lambda: new_hnswlib_index(vectors, threads))
    return entry


# ---- churn --------------------------------------------------------------------------------------


def _cells(found: data.Dataset, queries: int) -> Iterator[Cell]:
    for workload, band in CHURN_CELLS:
        rows = found.cell(workload, band, K, queries)
        if len(rows):
            yield Cell(found, workload, band, rows)


def _compared(index: Any, fresh: Any, ids: Any, cell: Cell, rounds: int) -> Entry:
    """Search a churned index and a fresh one in turns; `ids` are the churned one's, rising."""
    churned = ours.searcher(index, cell, 0.95, 1, False)
    new = ours.searcher(fresh, cell, 0.95, 1, False)
    found, wanted = churned(), new()
    places = np.where(found >= 0, np.searchsorted(ids, found), -1)
    times = _in_turns(churned, new, rounds)
    return {
        "workload": cell.workload,
        "band": cell.band,
        "recall": cell.quality(places).recall,
        "fresh_recall": cell.quality(wanted).recall,
        "ratio": statistics.median(a / b for a, b in times),
    }


def _churn(rows: int, dim: int, threads: int, rounds: int, queries: int) -> Entry:
    """Delete rows and add new ones, a twentieth at a time, until half are new."""
    replaced = int(CHURN_SHARE * rows)
    every = data.make(rows + replaced, dim, queries, seed=2)
    rng = np.random.default_rng(3)
    order = rng.permutation(rows + replaced)
    first, added = np.sort(order[:rows]), order[rows:]
    deleted = rng.permutation(first)[:replaced]
    index = ours.new_index(dim, threads)
    index.add(every.base[first], ids=first, attributes=attributes(every.columns.take(first)))
    index.compact()
    seconds = {"delete": 0.0, "add": 0.0, "update": 0.0}
    steps = zip(
        np.array_split(deleted, CHURN_STEPS), np.array_split(added, CHURN_STEPS), strict=True
    )
    for old, new in steps:
        table = attributes(every.columns.take(new))
        seconds["delete"] += _seconds(partial(index.delete, old))
        seconds["add"] += _seconds(partial(index.add, every.base[new], ids=new, attributes=table))
        states = {"state": table["state"]}
        seconds["update"] += _seconds(partial(index.update_attributes, new, states))
    ids = np.sort(np.concatenate([np.setdiff1d(first, deleted), added]))
    final = data.part(every, ids)
    fresh = ours.build(final, threads).index
    return {
        "what": "churn", "rows": rows, "dim": dim, "threads": threads,
        "rates": {name: replaced / max(spent, 1e-9) for name, spent in seconds.items()},
        "cells": [_compared(index, fresh, ids, cell, rounds) for cell in _cells(final, queries)],
    }  # fmt: skip


# ---- one filter for all -------------------------------------------------------------------------


def _shared(rows: int, dim: int, rounds: int) -> Entry:
    """Search a batch with one selective filter at once, and query by query."""
    found = data.dataset(rows, dim, QUERIES)
    index = ours.built(found, 1).index
    shares = np.bincount(found.columns.categories["section"]) / rows
    fitting = np.flatnonzero(shares <= SHARED_BELOW)
    queries = found.queries
    entries = []
    for section in fitting[np.argsort(-shares[fitting])][:12:4]:
        where = index.compile(field("section") == label(int(section)))

        def batch(where: Any = where) -> Any:
            return index.search(queries, K, where=where, threads=1).ids

        def single(where: Any = where) -> Any:
            one = [index.search(query[None], K, where=where, threads=1).ids for query in queries]
            return np.concatenate(one)

        if not np.array_equal(batch(), single()):
            raise AssertionError("a batch and its queries one by one differ")
        times = _in_turns(single, batch, rounds)
        entries.append(
            {
                "share": float(shares[section]),
                "batch_qps": len(queries) / statistics.median(b for _, b in times),
                "ratio": statistics.median(a / b for a, b in times),
            }
        )
    return {"what": "shared", "rows": rows, "dim": dim, "threads": 1, "filters": entries}


def measure(mode: str, threads: int, show: Callable[[str], None]) -> list[Entry]:
    """Return all of a mode."""
    rounds = 1 if mode == "smoke" else 7
    rows, dim = OTHERS[mode]
    sweep.built.cache_clear()
    ours.built.cache_clear()
    show("one filter for a batch")
    found = [_shared(rows, dim, rounds)]
    ours.built.cache_clear()
    for case in BUILDS[mode]:
        show(f"building {case[0]} x {case[1]}, {case[2]} thread(s)")
        found.append(_build(*case))
    data.dataset.cache_clear()
    show("churn")
    queries = QUERIES if mode == "smoke" else CHURN_QUERIES
    found.append(_churn(rows, dim, threads, rounds, queries))
    return found
