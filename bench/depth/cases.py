# SPDX-License-Identifier: Apache-2.0
"""What is measured: the shapes, metrics and precisions, their targets, and who takes part."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from embedcore import depth
from embedcore.depth._score import _random_directions

from bench.depth import data
from bench.depth.exact import Problem
from bench.depth.floors import floors
from bench.depth.peers import numpy_peers
from bench.depth.torch_peers import torch_peers
from bench.timing import Contestant

ALL_PRECISIONS = ("float32", "bfloat16", "int8")
# Errors that are promised on embeddings; beyond ten times these, the answer is taken for wrong.
ERROR_LIMITS = {"float32": 1e-6, "bfloat16": 1e-5, "int8": 5e-5}
DIRECTIONAL = ("halfspace", "projection", "irw")
DIRECTIONS = 1000


@dataclass(frozen=True, eq=False)
class Case:
    """One problem, and what is asked of `depth.score` there."""

    metric: str
    n: int
    m: int | None  # None: leave-one-out
    d: int
    modes: tuple[str, ...]
    data: str = "made"
    precisions: tuple[str, ...] = ("float32",)
    targets: dict[str, float] = field(default_factory=dict)  # largest ratio to the floor
    peers: frozenset[str] = frozenset({"fast"})  # plus "slow", "compile"; empty: none
    cold: bool = False
    directions: int = DIRECTIONS

    @property
    def name(self) -> str:
        """Return a title, unique among the cases of one mode."""
        shape = f"{self.n:,} self" if self.m is None else f"{self.n:,} x {self.m:,}"
        notes = [] if self.data in ("made", "lengths") else [self.data]
        notes += ["cold"] if self.cold else []
        return f"{self.metric} {shape} x {self.d}" + (f" ({', '.join(notes)})" if notes else "")

    @property
    def pairs(self) -> int:
        """Return how many pairs of rows there are."""
        return self.n * (self.n if self.m is None else self.m)

    def threads_of(self, threads: list[int]) -> list[int]:
        """Without peers it is the error that counts, and that does not depend on the threads."""
        return threads if self.peers else [max(threads)]

    def uncompiled(self) -> Case:
        """Return a copy without contestants that take long to make ready."""
        return replace(self, peers=self.peers - {"compile"})

    def small(self) -> Case:
        """Return a tiny copy in which the same contestants take part."""
        return replace(self, n=4, m=None if self.m is None else 4)

    def problem(self) -> Problem:
        """Make the data."""
        rows = data.pool(self.data, self.n + (self.m or 0), self.d)
        # Those of `depth.score`: with other directions no two answers could be compared.
        along = _random_directions(rows, self.directions, 0) if self.metric in DIRECTIONAL else None
        if self.m is None:
            return Problem(self.metric, rows, None, along)
        x, corpus = np.ascontiguousarray(rows[: self.n]), np.ascontiguousarray(rows[self.n :])
        return Problem(self.metric, x, corpus, along)

    def error_limit(self, precision: str, reference_rows: int) -> float:
        """Return the largest error that counts as right."""
        if self.metric == "halfspace":
            return 4.0 / reference_rows  # two pairs of neighbours that float32 cannot tell apart
        if self.metric in ("projection", "irw"):
            return 1e-5
        if self.metric == "spatial":
            return 2e-6
        return ERROR_LIMITS[precision]


def ours(case: Case, problem: Problem, threads: int) -> list[Contestant]:
    """Return `depth.score` in each precision."""

    def contestant(precision: str) -> Contestant:
        def run() -> Any:
            return depth.score(
                problem.x,
                problem.corpus,
                metric=case.metric,
                precision=precision,
                n_directions=case.directions,
                threads=threads,
            )

        return Contestant(f"embedcore {precision}", "ours", run)

    return [contestant(precision) for precision in case.precisions]


def contestants(case: Case, problem: Problem, threads: int, cache_bytes: int) -> list[Contestant]:
    """Return all that take part in a case: embedcore, the floors and the peers."""
    found = ours(case, problem, threads) + floors(problem, threads, cache_bytes)
    if case.peers:
        wanted = case.peers - ({"slow"} if threads > 1 else set())  # those have one thread
        found += numpy_peers(problem, threads, wanted) + torch_peers(problem, wanted)
    return found


def _pairwise_targets(d: int, own: bool) -> dict[str, float]:
    wide = d >= 4096
    exact = (0.60 if wide else 0.55) if own else (1.08 if wide else 1.05)
    return {"float32": exact, "bfloat16": 0.55, "int8": 0.35}


def _pairwise(n: int, d: int, *modes: str, target: bool = True, peers: str = "fast") -> list[Case]:
    kinds = frozenset(peers.split())
    return [
        Case(
            metric,
            n,
            None if own else n,
            d,
            modes,
            precisions=ALL_PRECISIONS,
            targets=_pairwise_targets(d, own) if target else {},
            peers=kinds,
        )
        for metric in ("arc", "chord")
        for own in (False, True)
    ]


def _cosine(n: int, *modes: str, peers: str = "fast", cold: bool = False) -> list[Case]:
    kinds = frozenset(peers.split())
    return [
        Case("cosine", n, m, 384, modes, targets={"float32": 1.3}, peers=kinds, cold=cold)
        for m in (n, None)
    ]


def _other(metric: str, n: int, target: float, *modes: str, peers: str = "fast slow") -> Case:
    return Case(
        metric,
        n,
        n,
        384,
        modes,
        data="lengths",
        targets={"float32": target},
        peers=frozenset(peers.split()),
    )


def _errors(metric: str, kind: str, n: int, m: int | None, *modes: str) -> Case:
    precisions = ("float32",) if metric == "cosine" else ALL_PRECISIONS
    return Case(metric, n, m, 384, modes, data=kind, precisions=precisions, peers=frozenset())


def _error_cases() -> list[Case]:
    """Real glosses, those with near-duplicates, and made rows with near-duplicates."""
    cases = []
    for metric in ("cosine", "chord", "arc"):
        for kind in ("glosses", "duplicate glosses"):
            cases.append(_errors(metric, kind, 1000, 3000, "quick", "full"))
            cases.append(_errors(metric, kind, 4000, None, "quick", "full"))
        if metric != "cosine":
            cases.append(_errors(metric, "duplicates", 10_000, 10_000, "full"))
            cases.append(_errors(metric, "duplicates", 10_000, None, "full"))
    return cases


def _smoke_cases() -> list[Case]:
    shapes: dict[str, tuple[int, int | None, int]] = {
        "cosine": (40, 50, 16),
        "chord": (40, None, 16),
        "arc": (40, 50, 16),
        "l2": (40, 50, 16),
        "spatial": (40, 50, 16),
        "halfspace": (40, 50, 16),
        "projection": (40, 51, 16),
        "irw": (40, 50, 16),
    }
    return [
        Case(metric, n, m, d, ("smoke",), peers=frozenset({"fast", "slow"}), directions=32)
        for metric, (n, m, d) in shapes.items()
    ]


def all_cases() -> list[Case]:
    """Return every case of every mode."""
    return [
        *_pairwise(1000, 384, "quick", "full", target=False, peers="fast slow"),
        *(case for case in _pairwise(4000, 384, "quick") if case.metric == "arc"),
        *_pairwise(10_000, 384, "full", peers="fast slow compile"),
        *_pairwise(10_000, 1024, "full"),
        *_pairwise(2000, 4096, "full"),
        *_cosine(10_000, "quick", "full", peers="fast slow"),
        *_cosine(10_000, "full", cold=True),
        *_cosine(100_000, "quick", "full"),
        *(
            case
            for metric, target in (("l2", 1.1), ("spatial", 2.2))
            for case in (
                _other(metric, 1000, target, "quick", "full"),
                _other(metric, 4000, target, "quick", peers="fast"),
                _other(metric, 10_000, target, "full"),
            )
        ),
        *(
            case
            for metric in DIRECTIONAL
            for case in (
                _other(metric, 1000, 1.1, "quick", "full"),
                _other(metric, 10_000, 1.1, "full"),
            )
        ),
        *_error_cases(),
        *_smoke_cases(),
    ]


def cases_of(mode: str, only: str = "") -> list[Case]:
    """Return the cases of a mode whose names contain `only`."""
    return [case for case in all_cases() if mode in case.modes and only in case.name]
