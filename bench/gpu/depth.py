# SPDX-License-Identifier: Apache-2.0
"""Depth on a GPU: cases, peers, and what the figures should reach."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from embedcore import depth

from bench.gpu.floors import full_float32
from bench.gpu.timing import Contestant, compiled, replayed

_CHUNK_BYTES = 1 << 30  # of a peer's block of distances
_CHECKED_ROWS = 128
_LAUNCH_BOUND_ROWS = 4096
# Of a depth: of float32 twice its rounding in sums of pi, of bfloat16 the bound that the
# documentation gives for corpora of a few rows.
_ERROR_LIMITS = {"float32": 5e-6, "bfloat16": 5e-5}
_CLUSTER_SPREAD = 0.15  # beside centers of 1: cosines of some 0.98
_SETS = 3  # of inputs, in turn: large ones are not in a cache when their turn comes, small ones are


@dataclass(frozen=True)
class Case:
    """`n` rows scored in `m`; m = 0: in their own corpus. Rows of a cluster are near each other."""

    metric: str
    precision: str
    dtype: torch.dtype
    n: int
    m: int
    d: int
    clusters: int = 0
    rivals: bool = False  # with those that take long to compile

    @property
    def name(self) -> str:
        among = f"{self.n} x {self.m}" if self.m else f"{self.n} self"
        given = str(self.dtype).removeprefix("torch.")
        clusters = f" in {self.clusters} clusters" if self.clusters else ""
        return f"{self.metric} {among} x {self.d}, {given} rows{clusters}, {self.precision}"

    @property
    def flops(self) -> float:
        """Return the operations of all products of pairs."""
        return 2.0 * self.n * (self.m or self.n) * self.d

    @property
    def bytes(self) -> float:
        """Return what has to be read: each row once, of cosine in its own corpus twice."""
        passes = 2 * self.n if not self.m else self.n + self.m
        return float(passes * self.d * self.dtype.itemsize)


def cases(smoke: bool) -> list[Case]:
    """Return the cases, those of the targets first."""
    f32, bf16 = torch.float32, torch.bfloat16
    if smoke:
        return [
            Case("cosine", "float32", f32, 50, 60, 16),
            Case("arc", "bfloat16", bf16, 50, 60, 16),
            Case("arc", "float32", f32, 50, 0, 16, clusters=4),
        ]
    return [
        Case("arc", "bfloat16", bf16, 100_000, 100_000, 1024, rivals=True),
        Case("arc", "bfloat16", bf16, 100_000, 0, 1024, rivals=True),
        Case("arc", "float32", f32, 40_000, 40_000, 1024, rivals=True),
        Case("cosine", "float32", bf16, 500_000, 500_000, 1024),
        Case("arc", "float32", f32, 1000, 1000, 384),
        Case("arc", "float32", f32, 40_000, 0, 1024, rivals=True),
        Case("chord", "bfloat16", bf16, 100_000, 100_000, 1024),
        Case("arc", "bfloat16", f32, 20_000, 20_000, 384),
        Case("arc", "bfloat16", f32, 20_000, 20_000, 384, clusters=20),
        Case("arc", "float32", f32, 20_000, 0, 384, clusters=20),
        Case("cosine", "float32", f32, 500_000, 0, 1024),
        Case("cosine", "float32", f32, 500_000, 500_000, 384),
        Case("arc", "bfloat16", f32, 1000, 1000, 384),
        Case("cosine", "float32", f32, 1000, 1000, 384),
    ]


class Task:
    """A case with its rows on the device, and its right answers."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case, self._device = case, device
        generator = torch.Generator(device).manual_seed(0)
        shift = 0.4 * torch.randn(case.d, device=device, generator=generator)
        centers = torch.randn(case.clusters, case.d, device=device, generator=generator)
        count = _SETS if case.n * case.d * case.dtype.itemsize < 1 << 30 else 1

        def rows(n: int) -> torch.Tensor:
            made = torch.empty(n, case.d, dtype=case.dtype, device=device)
            for part in made.split(1 << 16):
                drawn = torch.randn(part.shape, device=device, generator=generator)
                if case.clusters:
                    size = (len(part),)
                    of = torch.randint(case.clusters, size, device=device, generator=generator)
                    part.copy_(centers[of] + _CLUSTER_SPREAD * drawn)
                else:
                    part.copy_(drawn + shift)
            return made

        self._x = [rows(case.n) for _ in range(count)]
        self._corpus = [rows(case.m) if case.m else None for _ in range(count)]
        step = max(1, case.n // _CHECKED_ROWS)
        self._checked = torch.arange(0, case.n, step, device=device)[:_CHECKED_ROWS]
        self._right = self._right_answers()
        self.by_bytes = case.metric == "cosine"  # what a rate is of
        self.limit = _ERROR_LIMITS[case.precision]
        self.flops, self.bytes = case.flops, case.bytes

    def _inputs(self, turn: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self._x[turn % len(self._x)], self._corpus[turn % len(self._corpus)]

    def _right_answers(self) -> torch.Tensor:
        """Depths of a few rows in float64."""
        x, corpus = self._inputs(0)
        others = x if corpus is None else corpus
        rows = _unit(x[self._checked].double())
        sums = torch.zeros(len(rows), dtype=torch.float64, device=self._device)
        for start in range(0, len(others), 1 << 14):
            part = _unit(others[start : start + (1 << 14)].double())
            distance = _distance(self.case.metric, rows @ part.T)
            if corpus is None:  # a row is at no distance from itself, whatever rounding says
                numbers = torch.arange(start, start + len(part), device=self._device)
                distance.masked_fill_(self._checked[:, None] == numbers, 0.0)
            sums += distance.sum(1)
        return _largest(self.case.metric) - sums / (len(others) - (corpus is None))

    def error(self, depths: Any) -> float:
        """Return the largest error among the rows that are checked."""
        return float((depths[self._checked].double() - self._right).abs().max())

    def contestants(self) -> Iterator[Contestant]:
        """Yield embedcore, the floor and the peers."""
        case = self.case

        def ours(turn: int) -> Any:
            x, corpus = self._inputs(turn)
            return depth.score(x, corpus, metric=case.metric, precision=case.precision)

        yield Contestant("embedcore", ours, "ours")
        if self._device.type == "cuda" and case.n <= _LAUNCH_BOUND_ROWS:
            yield Contestant("embedcore, replayed from a graph", replayed(ours), "ours")
        if case.metric == "cosine":
            yield Contestant("Torch, mean direction", self._mean_direction)
            if case.n == case.m:
                yield Contestant("Torch, mean direction, compiled", compiled(self._mean_direction))
            return
        half = case.precision == "bfloat16"
        yield Contestant(f"product alone, {case.precision}", self._products, "floor")
        block = _half_block if half else _full_block
        yield Contestant("Torch, chunks", lambda turn: self._chunks(turn, block))
        if case.rivals:
            fused = compiled(block)
            yield Contestant("Torch, chunks, compiled", lambda turn: self._chunks(turn, fused))

    def _units(self, turn: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, corpus = self._inputs(turn)
        dtype = torch.bfloat16 if self.case.precision == "bfloat16" else torch.float32
        a = _unit(x.float()).to(dtype)
        return a, a if corpus is None else _unit(corpus.float()).to(dtype)

    def _step(self, columns: int) -> int:
        return max(256, _CHUNK_BYTES // (4 * columns) // 256 * 256)

    def _products(self, turn: int) -> None:
        """The products of all pairs, a block at a time; rows are taken as they are."""
        x, corpus = self._inputs(turn)
        dtype = torch.bfloat16 if self.case.precision == "bfloat16" else torch.float32
        others = (x if corpus is None else corpus).to(dtype).T
        with full_float32():
            for part in x.to(dtype).split(self._step(others.shape[1])):
                part @ others

    def _chunks(self, turn: int, block: Any) -> torch.Tensor:
        a, b = self._units(turn)
        own = self.case.m == 0
        with full_float32():
            sums = torch.cat([block(p, b, self.case.metric) for p in a.split(self._step(len(b)))])
        if own:  # what rounding makes of a row's distance to itself
            same = (a.float() * a.float()).sum(1)
            sums = sums - _distance(self.case.metric, same)
        return _largest(self.case.metric) - sums / (len(b) - own)

    def _mean_direction(self, turn: int) -> torch.Tensor:
        x, corpus = self._inputs(turn)
        a = _unit(x.float())
        total = (a if corpus is None else _unit(corpus.float())).sum(0)
        along = a @ total
        return 1 + (along / self.case.m if self.case.m else (along - 1) / (self.case.n - 1))


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)


def _largest(metric: str) -> float:
    return math.pi if metric == "arc" else 2.0


def _distance(metric: str, cosines: torch.Tensor) -> torch.Tensor:
    if metric == "cosine":
        return 1.0 - cosines
    if metric == "arc":
        return cosines.clamp(-1.0, 1.0).acos()
    return (2.0 - 2.0 * cosines).clamp(min=0.0).sqrt()


def _half_block(a: torch.Tensor, b: torch.Tensor, metric: str) -> torch.Tensor:
    return _distance(metric, (a @ b.T).float()).sum(1)


def _full_block(a: torch.Tensor, b: torch.Tensor, metric: str) -> torch.Tensor:
    return _distance(metric, a @ b.T).sum(1)
