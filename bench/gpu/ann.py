# SPDX-License-Identifier: Apache-2.0
"""Filtered search on a GPU: cases, peers, and what the figures should reach."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from embedcore import ann
from embedcore.ann import _state

from bench.gpu.floors import full_float32
from bench.gpu.timing import Contestant, replayed

_SETS = 3  # of queries, in turn
_CHUNK_BYTES = 4 << 30  # of a peer's scores
_GROUP = 512  # scores, of which the greatest stands for all


@dataclass(frozen=True)
class Case:
    """The k nearest of `batch` queries among the share of `rows` that passes a mask."""

    rows: int
    d: int
    batch: int
    share: float
    k: int = 10

    @property
    def name(self) -> str:
        return f"{self.batch} in {self.rows} x {self.d}, {self.share:.4%} pass, k {self.k}"

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


def cases(smoke: bool) -> list[Case]:
    """Return the cases, those of the targets first."""
    if smoke:
        return [Case(400, 16, 5, 1.0, 3), Case(400, 16, 5, 0.1, 3), Case(400, 16, 1, 0.5, 3)]
    shares = (1.0, 0.1, 0.01, 0.001, 0.0001, 0.5)
    return [
        *(Case(1_000_000, 768, 1024, share) for share in shares),
        Case(1_000_000, 768, 1, 0.1),
        Case(1_000_000, 768, 1, 1.0),
        Case(1_000_000, 768, 1024, 1.0, 100),
    ]


class _World:
    """Rows around centres, of unit length, and the index over them."""

    def __init__(self, rows: int, d: int, device: torch.device) -> None:
        generator = torch.Generator(device).manual_seed(0)
        self.device = device

        def drawn(count: int) -> torch.Tensor:
            """Draw rows around one centre for every thousand."""
            near = torch.randint(len(centres), (count,), device=device, generator=generator)
            made = centres[near] + 0.7 * torch.randn(count, d, device=device, generator=generator)
            return made / torch.linalg.vector_norm(made, dim=1, keepdim=True)

        centres = torch.randn(max(8, rows // 1000), d, device=device, generator=generator)
        parts = [drawn(min(1 << 17, rows - at)) for at in range(0, rows, 1 << 17)]
        self.vectors = torch.cat([part.bfloat16() for part in parts])
        self.order = torch.randperm(rows, device=device, generator=generator)
        self.drawn = drawn
        index = ann.Index(d, metric="cosine", dtype="bfloat16")
        # Scans take neither a graph nor cells, which the CPU would be minutes about.
        with mock.patch.object(_state, "TRAINED_ROWS", 1 << 62):
            index.add(self.vectors.cpu())
        self.index = index.to("cuda") if device.type == "cuda" else index


@functools.lru_cache(maxsize=1)
def _world_of(rows: int, d: int, device: torch.device) -> _World:
    return _World(rows, d, device)


class Task:
    """A case with its queries and mask on the device, and its right answers."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case, self._device = case, device
        self._world = _world_of(case.rows, case.d, device)
        self._queries = [self._world.drawn(case.batch).bfloat16() for _ in range(_SETS)]
        self._mask = self._world.order < case.passing
        self._all = case.passing == case.rows
        self._right = self._right_answers()
        self.by_bytes = case.batch == 1  # what a rate is of
        self.limit = 0.01  # of the share of the nearest that is not found
        self.flops, self.bytes = case.flops, case.bytes

    def _right_answers(self) -> torch.Tensor:
        queries = self._queries[0].float()
        best = torch.empty(len(queries), 0, device=self._device)
        ids = torch.empty(len(queries), 0, dtype=torch.int64, device=self._device)
        rows = self._mask.nonzero()[:, 0]
        with full_float32():
            for part in rows.split(1 << 17):
                vectors = self._world.vectors[part].float()
                vectors /= torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
                best = torch.cat([best, queries @ vectors.T], 1)
                ids = torch.cat([ids, part.expand(len(queries), -1)], 1)
                best, places = best.topk(min(self.case.k, best.shape[1]), dim=1)
                ids = ids.gather(1, places)
        return ids

    def error(self, ids: Any) -> float:
        """Return the share of the nearest rows that is not among the answers."""
        ids = torch.as_tensor(ids, device=self._device).long()
        found = (ids[:, :, None] == self._right[:, None, :]).any(1)
        return 1.0 - float(found.double().mean())

    def contestants(self) -> Iterator[Contestant]:
        """Yield embedcore, the floor and the peers."""
        yield Contestant("embedcore", self._ours, "ours")
        if self._device.type == "cuda":
            yield Contestant("embedcore, exact", functools.partial(self._ours, exact=True), "ours")
            if self.case.batch == 1:
                yield Contestant("embedcore, replayed from a graph", replayed(self._ours), "ours")
        rows = self._world.vectors if self._all else self._world.vectors[self._mask]
        step = self._step(len(rows))
        yield Contestant(
            "product alone, bfloat16",
            lambda turn: [part @ rows.T for part in self.query(turn).split(step)],
            "floor",
        )
        yield Contestant("Torch, passing rows gathered", self._gathered)
        yield Contestant("Torch, scores masked", self._masked)
        if self._device.type != "cuda":
            return
        if importlib.util.find_spec("triton") is not None:
            yield Contestant("Triton, fused", self._fused)
        if importlib.util.find_spec("cupy") is not None:
            yield Contestant("CuPy, passing rows gathered", self._cupy)
        if importlib.util.find_spec("jax") is not None:
            yield Contestant("JAX, approx_max_k", _Jax(self._world.vectors, self._mask, self))

    def query(self, turn: int) -> torch.Tensor:
        """Return the queries of a turn."""
        return self._queries[turn % len(self._queries)]

    def _step(self, columns: int) -> int:
        return max(1, _CHUNK_BYTES // (2 * columns))

    def _ours(self, turn: int, exact: bool = False) -> Any:
        where = None if self._all else self._mask
        if self._device.type == "cuda":
            found = self._world.index.search(
                self.query(turn), self.case.k, where=where, exact=exact
            )
            return found.ids
        return self._world.index.search(self.query(turn).float(), self.case.k, where=where).ids

    def _gathered(self, turn: int) -> torch.Tensor:
        rows, ids = self._world.vectors, None
        if not self._all:
            ids = self._mask.nonzero()[:, 0]
            rows = rows[ids]
        k = min(self.case.k, len(rows))
        places = torch.cat(
            [
                (part @ rows.T).topk(k, dim=1).indices
                for part in self.query(turn).split(self._step(len(rows)))
            ]
        )
        return places if ids is None else ids[places]

    def _masked(self, turn: int) -> torch.Tensor:
        rows, beyond = self._world.vectors, ~self._mask
        found = []
        for part in self.query(turn).split(self._step(len(rows))):
            scores = part @ rows.T
            if not self._all:
                scores.masked_fill_(beyond, float("-inf"))
            found.append(scores.topk(self.case.k, dim=1).indices)
        return torch.cat(found)

    def _fused(self, turn: int) -> torch.Tensor:
        from bench.gpu.fused_topk import nearest

        rows, ids = self._world.vectors, None
        if not self._all:
            ids = self._mask.nonzero()[:, 0]
            rows = rows[ids]
        places = nearest(self.query(turn), rows, self.case.k)
        return places if ids is None else ids[places]

    def _cupy(self, turn: int) -> Any:
        import cupy

        rows, ids = cupy.from_dlpack(self._half_rows), None  # CuPy has no bfloat16
        if not self._all:
            ids = cupy.flatnonzero(cupy.from_dlpack(self._mask.to(torch.uint8)))
            rows = rows[ids]
        places = cupy.concatenate(
            [
                greatest(cupy, cupy.from_dlpack(part.half()) @ rows.T, self.case.k)
                for part in self.query(turn).split(self._step(len(rows)))
            ]
        )
        return torch.from_dlpack(places if ids is None else ids[places])

    @functools.cached_property
    def _half_rows(self) -> torch.Tensor:
        return self._world.vectors.half()


def greatest(library: Any, scores: Any, k: int) -> Any:
    """Return the places of the k greatest scores of each row, of CuPy or NumPy, in any order.

    CuPy's argpartition sorts all that it gets. The k greatest are in the k groups of the greatest
    maxima, so that it gets these alone.
    """
    count, columns = scores.shape
    k, groups = min(k, columns), columns // _GROUP
    if groups <= k:
        return library.argpartition(-scores, k - 1, axis=1)[:, :k]
    inside = groups * _GROUP
    highest = scores[:, :inside].reshape(count, groups, _GROUP).max(axis=2)
    best = library.argpartition(-highest, k - 1, axis=1)[:, :k]
    places = (best[:, :, None] * _GROUP + library.arange(_GROUP)).reshape(count, -1)
    rest = library.broadcast_to(library.arange(inside, columns), (count, columns - inside))
    places = library.concatenate([places, rest], axis=1)
    found = library.take_along_axis(scores, places, axis=1)
    order = library.argpartition(-found, k - 1, axis=1)[:, :k]
    return library.take_along_axis(places, order, axis=1)


class _Jax:
    """Scores of all rows, masked, and JAX's own approximate top-k, compiled together."""

    def __init__(self, rows: torch.Tensor, mask: torch.Tensor, task: Task) -> None:
        self._given, self._task = (rows, mask.to(torch.uint8)), task
        self._compiled: tuple[Any, Any, Any] | None = None  # and what it takes beside queries

    def __call__(self, turn: int) -> torch.Tensor:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # Torch has memory too
        import jax

        if self._compiled is None:
            k = self._task.case.k

            # Arrays that it closed over would be constants, which compilers copy and compute with.
            def nearest(queries: Any, rows: Any, mask: Any) -> Any:
                scores = jax.numpy.where(mask != 0, queries @ rows.T, -jax.numpy.inf)
                return jax.lax.approx_max_k(scores, k, recall_target=0.95)[1]

            rows, mask = (jax.dlpack.from_dlpack(one) for one in self._given)
            self._compiled = jax.jit(nearest), rows, mask
        search, rows, mask = self._compiled
        places = search(jax.dlpack.from_dlpack(self._task.query(turn)), rows, mask)
        return torch.from_dlpack(places.block_until_ready())
