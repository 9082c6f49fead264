# SPDX-License-Identifier: Apache-2.0
"""Filtered search on a GPU: cases, peers, and what the figures should reach."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import embedcore
import torch
from embedcore import ann

from bench.gpu.ann_peers import Problem, peers
from bench.gpu.ann_world import World, missed, world_of
from bench.gpu.timing import Contestant, Line, replayed

_SETS = 3  # of queries, in turn
_BUILD_QUERIES = 256
_BUILD_EFFORT = 100  # rows that searches of a built index look at least at
# The share of the nearest that may be missing for an answer to be right.
_LIMIT = 0.07


@dataclass(frozen=True)
class Case:
    """The k nearest of `batch` queries among the share of `rows` that passes a filter.

    `each`: every query has a filter of its own. `linked`: the index has a graph. `longest`:
    seconds of the case, the making of rows and index included.
    """

    rows: int
    d: int
    batch: int
    share: float
    k: int = 10
    each: bool = False
    linked: bool = False
    longest: float = 120.0
    what: str = "search"

    @property
    def name(self) -> str:
        filters = "a filter for each" if self.each else "one filter"
        graph = ", with a graph" if self.linked else ""
        return (
            f"{self.batch} in {self.rows} x {self.d}, {self.share:.4%} pass, {filters}, "
            f"k {self.k}{graph}"
        )

    @property
    def passing(self) -> int:
        return max(1, round(self.rows * self.share))

    @property
    def flops(self) -> float:
        """Return the operations of all products."""
        return 2.0 * self.batch * self.passing * self.d

    @property
    def bytes(self) -> float:
        """Return what has to be read of rows in bfloat16, once."""
        return 2.0 * self.passing * self.d


@dataclass(frozen=True)
class BuildCase:
    """An index of `rows` built by the device, and on all cores of the CPU."""

    rows: int
    d: int
    longest: float = 240.0
    what: str = "build"

    @property
    def name(self) -> str:
        return f"build of {self.rows} x {self.d}"


SHARES = (1.0, 0.01, 0.1, 0.001, 0.0001, 0.5)


def cases(smoke: bool) -> list[Any]:
    """Return the cases, those of the targets first."""
    if smoke:
        return [
            Case(400, 16, 5, 1.0, 3),
            Case(400, 16, 5, 0.1, 3),
            Case(400, 16, 1, 0.5, 3),
            Case(400, 16, 5, 0.1, 3, each=True),
            BuildCase(2500, 16),
            Case(2500, 16, 5, 0.5, 3, linked=True),
        ]
    size = 1_000_000, 768
    both = (False, True)
    return [
        Case(*size, 1024, 1.0),
        Case(*size, 1, 0.1),
        *(Case(*size, 1024, share, each=each) for share in SHARES[1:] for each in both),
        Case(*size, 1024, 1.0, each=True),
        # Behind those without a graph, which need no build.
        BuildCase(*size),
        *(Case(*size, 1024, share, linked=True) for share in SHARES),
        Case(*size, 1, 0.1, linked=True),
        *(Case(*size, 1024, share, each=True, linked=True) for share in SHARES),
        Case(*size, 1, 1.0),
        Case(*size, 1024, 1.0, 100),
    ]


def Task(case: Any, device: torch.device) -> Any:
    """Return what measures a case, with its data on the device."""
    return (_Build if case.what == "build" else _Search)(case, device)


class _Search:
    """A case with its queries and filters on the device, and its right answers."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case, self._device = case, device
        self._world = world_of(case.rows, case.d, device)
        self._index = self._world.linked if case.linked else self._world.unlinked
        self._queries = [self._world.drawn(case.batch).bfloat16() for _ in range(_SETS)]
        self._all = case.passing == case.rows and not case.each
        self._mask = None if self._all or case.each else self._world.ranks < case.passing
        self._bounds = self._world.windows(case.batch, case.passing) if case.each else None
        self._where = self._filters()
        self._right = self._world.nearest(
            self._queries[0], min(case.k, case.passing), self._bounds_of_all()
        )
        self.by_bytes = case.batch == 1  # what a rate is of
        self.limit = _LIMIT
        self.flops, self.bytes = case.flops, case.bytes

    def _bounds_of_all(self) -> Any:
        if self._bounds is not None or self._all:
            return self._bounds
        return [torch.tensor([bound], device=self._device) for bound in (0, self.case.passing)]

    def _filters(self) -> Any:
        """Return them as embedcore takes them: a mask on the device, or an expression for each."""
        if self._bounds is None:
            return self._mask
        rank = ann.field("rank")
        lows, highs = (bound.tolist() for bound in self._bounds)
        return [rank.between(low, high - 1) for low, high in zip(lows, highs, strict=True)]

    def error(self, ids: Any) -> float:
        """Return the share of the nearest rows that is not among the answers."""
        return missed(ids, self._right)

    def query(self, turn: int) -> torch.Tensor:
        """Return the queries of a turn."""
        return self._queries[turn % len(self._queries)]

    def contestants(self) -> Iterator[Contestant]:
        """Yield embedcore, the floor and the peers."""
        case, on_gpu = self.case, self._device.type == "cuda"
        yield Contestant("embedcore", self._ours, "ours")
        if on_gpu and not case.linked:
            yield Contestant("embedcore, exact", functools.partial(self._ours, exact=True), "ours")
        if case.each and on_gpu:
            yield Contestant("embedcore, compiled filters", self._ours_compiled, "ours")
        if on_gpu and case.batch == 1:
            yield Contestant("embedcore, replayed from a graph", replayed(self._ours), "ours")
        if case.linked:  # peers have been beside the index without a graph
            return
        rows = self._world.vectors if self._mask is None else self._world.vectors[self._mask]
        problem = Problem(
            self.query, self._world.vectors, case.k, self._mask,
            self._world.ranks if case.each else None, self._bounds, case.passing,
        )  # fmt: skip
        if not case.each:
            yield Contestant(
                "product alone, bfloat16",
                lambda turn: [part @ rows.T for part, _ in problem.parts(turn, len(rows))],
                "floor",
            )
        yield from peers(problem)

    @functools.cached_property
    def _compiled(self) -> list[Any]:
        return [self._index.compile(where) for where in self._where]

    def _ours_compiled(self, turn: int) -> Any:
        return self._index.search(self.query(turn), self.case.k, where=self._compiled).ids

    def _ours(self, turn: int, exact: bool = False) -> Any:
        queries = self.query(turn)
        if self._device.type == "cuda":
            return self._index.search(queries, self.case.k, where=self._where, exact=exact).ids
        return self._index.search(queries.float(), self.case.k, where=self._where).ids


class _Build:
    """Builds by the device and on the CPU, and what searches of both find with equal effort."""

    by_bytes = False

    def __init__(self, case: BuildCase, device: torch.device) -> None:
        self.case, self._device = case, device
        self._world = world_of(case.rows, case.d, device)
        self.limit = 0.2  # with so little effort; what counts is that both miss as much
        self.flops, self.bytes = 2.0 * case.rows**2 * case.d, 2.0 * case.rows * case.d

    def measured(self, left: float) -> list[Line]:
        """Build once each; on the CPU where the time that is left allows it, by a smaller build."""
        queries = self._world.drawn(_BUILD_QUERIES).bfloat16()
        right = self._world.nearest(queries, 10)
        lines = []
        on_cpu = f"embedcore, CPU, {embedcore.get_num_threads()} threads"
        small = world_of.__wrapped__(min(self.case.rows, 20_000), self.case.d, self._device)
        start = time.perf_counter()
        if self._device.type == "cuda":
            small.built("cuda")  # loads the kernels
            lines.append(self._line("embedcore, cuda", "ours", "cuda", queries, right))
        small.built("cpu")
        # Which grows a little faster than the rows do.
        seconds = 1.5 * small.build_seconds["cpu"] * self.case.rows / small.rows
        if seconds > left - (time.perf_counter() - start) and small.rows < self.case.rows:
            line = Line(on_cpu, "peer")
            line.failed = f"left out: it would take some {seconds:.0f} s"
            lines.append(line)
            lines.append(self._smaller(small, on_cpu))
            return lines
        role = "peer" if lines else "ours"
        lines.append(self._line(on_cpu, role, "cpu", queries, right))
        return lines

    def _smaller(self, small: World, name: str) -> Line:
        line = Line(f"{name}, {small.rows} rows", "floor")
        line.seconds = small.build_seconds["cpu"]
        return line

    def _line(self, name: str, role: str, where: str, queries: Any, right: Any) -> Line:
        line = Line(name, role)
        try:
            index = self._world.built(where)
            found = index.search(queries.float().cpu(), 10, effort=_BUILD_EFFORT)
            line.error = missed(found.ids, right)
            line.seconds = self._world.build_seconds[where]
        except Exception as error:
            line.failed = f"{type(error).__name__}: {error}".splitlines()[0]
        return line
