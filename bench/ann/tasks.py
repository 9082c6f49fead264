# SPDX-License-Identifier: Apache-2.0
"""One cell: the quickest setting of each peer is found, then the best are timed in turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bench import machine
from bench.ann import data, ours, sweep
from bench.ann.cases import FEWEST_QUERIES, MAIN, THE_FILE, Case
from bench.ann.curves import SHOWN
from bench.ann.peers import EXACT
from bench.ann.peers.base import Ids
from bench.ann.report import GRAPHS, RIVALS, WIDE
from bench.ann.sweep import Cell, K, Point, best_points
from bench.families import Task
from bench.timing import Contestant, optional, thread_limit

# How many peers are timed against ours in each cell.
FINALISTS = {"smoke": 9, "quick": 3, "full": 3}
BUDGET = {"smoke": (0.0, 1, 1), "quick": (0.3, 3, 5), "full": (0.5, 3, 7)}
# What a cell may stay below the recall that was asked for.
SLACK = 0.02


class Answer(NamedTuple):
    """Neighbours found, and by whom."""

    who: str
    ids: Ids


class CellTask(Task):
    """Queries of one cell; an error is the share of the right neighbours that is missing."""

    def __init__(self, case: Case) -> None:
        self.case = case
        _forget_others((case.rows, case.dim, case.mode))
        found = data.dataset(case.rows, case.dim, case.queries)
        rows = found.cell(case.workload, case.band, K, case.most_queries)
        self.cell = Cell(found, case.workload, case.band, rows)
        passing = found.truth(case.workload, K).passing[rows] if len(rows) else np.zeros(1)
        self.facts = {
            "data": found.name if case.rows else data.FILE,
            "rows": len(found.base),
            "dim": found.dim,
            "workload": case.workload,
            "band": case.band,
            "recall": case.recall,
            "expressions": case.expressions,
            "queries": len(rows),
            "passing": float(np.median(passing)),
            "underfull": {},
            "failing": {},
        }

    def contestants(self, threads: int) -> list[Contestant]:
        if len(self.cell.rows) < (1 if self.case.mode == "smoke" else FEWEST_QUERIES):
            return []
        return [*self._ours(threads), *self._peers(threads)]

    # ---- ours ------------------------------------------------------------------------------------

    def _ours(self, threads: int) -> list[Contestant]:
        """As it comes; where that misses the recall, with the next that does not, too."""
        case, cell = self.case, self.cell
        index = ours.built(cell.dataset, machine.cores()).index
        if not case.expressions and threads == 1:
            self.facts["plans"] = ours.plans(index, cell, case.recall)
        found = []
        for asked in (case.recall, *(one for one in ours.RECALLS if one > case.recall)):
            run = ours.searcher(index, cell, asked, threads, case.expressions)
            found.append(_contestant(f"{ours.NAME}, recall={asked}", "ours", run))
            if case.mode == "smoke" or cell.quality(run()).recall >= case.recall:
                break
        return [found[0], *found[1:][-1:]]

    # ---- peers -----------------------------------------------------------------------------------

    def _peers(self, threads: int) -> list[Contestant]:
        case, cell = self.case, self.cell
        if case.with_built:
            points = self._swept()
        else:
            kinds = [kind for kind in EXACT if optional(kind.package) is not None]
            found = cell.dataset.base, cell.dataset.columns
            points = [
                Point(peer, peer.settings()[0], 1.0, 0.0)
                for peer in (kind(*found, machine.cores()) for kind in kinds)
            ]
        best = best_points(points, case.recall)
        if case.with_built and (threads > 1 or case.expressions):
            best = [one.again(cell, threads, case.expressions) for one in best]
            best.sort(key=lambda one: one.seconds)
        return [
            _contestant(one.title, "peer", one.searcher(cell, threads, case.expressions))
            for one in self._finalists(best)
        ]

    def _finalists(self, best: list[Point]) -> list[Point]:
        """Return the quickest; of wide rows also the quickest that targets name."""
        count = FINALISTS[self.case.mode]
        found = best[:count]
        if self.case.dim >= WIDE:
            for names in (GRAPHS, RIVALS):
                named = [one for one in best[count:] if one.title.startswith(names)]
                found += named[:1]
        return found

    def _swept(self) -> list[Point]:
        """Return what one thread needs with each setting of each peer; kept for the cell."""
        case, cell = self.case, self.cell
        if _kept.cell is None or _kept.key != (case.rows, case.dim, case.workload, case.band):
            slow = case.mode == "full" and (case.rows, case.dim) in (MAIN, THE_FILE)
            made = sweep.built(cell.dataset, machine.cores(), slow)
            with thread_limit(1):
                points = list(sweep.sweep(cell, [peer for peer, _ in made.values()]))
            _kept.key, _kept.cell = (case.rows, case.dim, case.workload, case.band), points
            if (case.workload, case.band) in SHOWN and (slow or case.mode == "quick"):
                self.facts["curves"] = {ours.NAME: self._own_curve(), **_curves(points)}
        return _kept.cell

    def _own_curve(self) -> list[list[float]]:
        index = ours.built(self.cell.dataset, machine.cores()).index
        return [
            [round(self.cell.quality(answers).recall, 4), seconds]
            for recall in ours.CURVE
            for answers, seconds in [
                sweep.timed(ours.searcher(index, self.cell, recall, 1, expressions=False))
            ]
        ]

    # ---- what the session asks -------------------------------------------------------------------

    def error(self, answer: Answer) -> float:
        quality = self.cell.quality(answer.ids)
        if quality.underfull:
            self.facts["underfull"][answer.who] = quality.underfull
        if quality.failing:
            self.facts["failing"][answer.who] = quality.failing
        return 1.0 - quality.recall

    def error_limit(self, name: str, lines: dict[str, Any]) -> float:
        return 1.0 - self.case.recall + SLACK

    def equal_error(self, lines: dict[str, Any]) -> float:
        """Return what all peers may miss: those timed reach the recall."""
        return 1.0 - self.case.recall

    def rounds(self, turn_seconds: float) -> int:
        budget, least, most = BUDGET[self.case.mode]
        return int(np.clip(budget / max(turn_seconds, 1e-3), least, most))


class _Kept:
    """What cases share: the data set, and the points of the last cell."""

    data: tuple[Any, ...] = ()
    key: tuple[Any, ...] = ()
    cell: list[Point] | None = None


_kept = _Kept()


def _forget_others(which: tuple[Any, ...]) -> None:
    """Free the indexes of the data set before, which would be beside those of the next one."""
    if _kept.data != which:
        sweep.built.cache_clear()
        ours.built.cache_clear()
        data.dataset.cache_clear()
        _kept.data, _kept.key = which, ()


def _contestant(name: str, role: str, run: Callable[[], Ids]) -> Contestant:
    return Contestant(name, role, lambda: Answer(name, run()))


def _curves(points: list[Point]) -> dict[str, list[list[float]]]:
    """Return recall and seconds of every setting tried, by peer."""
    found: dict[str, list[list[float]]] = {}
    for one in points:
        found.setdefault(one.peer.name, []).append([round(one.recall, 4), one.seconds])
    return found
