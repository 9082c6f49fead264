# SPDX-License-Identifier: Apache-2.0
"""Rows, filters and indexes of the bench of search on a GPU."""

from __future__ import annotations

import functools
import time
from typing import Any
from unittest import mock

import torch
from embedcore import ann
from embedcore.ann import _state

_PART = 1 << 17  # rows that are made, or compared, at a time


class World:
    """Rows around centres, of unit length, each with a rank, and the indexes over them.

    Filters pass ranks: one for all queries those below a bound, one for each those of a window.
    """

    def __init__(self, rows: int, d: int, device: torch.device) -> None:
        self.rows, self.d, self.device = rows, d, device
        self._generator = torch.Generator(device).manual_seed(0)
        self._centres = self._normal(max(8, rows // 1000), d)
        parts = [self.drawn(min(_PART, rows - at)) for at in range(0, rows, _PART)]
        self.vectors = torch.cat([part.bfloat16() for part in parts])
        order = torch.randperm(rows, device=device, generator=self._generator)
        self.ranks = order.to(torch.int32)
        self.build_seconds: dict[str, float] = {}

    def _normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=self.device, generator=self._generator)

    def drawn(self, count: int) -> torch.Tensor:
        """Draw rows around the centres, of which there is one for a thousand rows."""
        which = torch.randint(
            len(self._centres), (count,), device=self.device, generator=self._generator
        )
        made = self._centres[which] + 0.7 * self._normal(count, self.d)
        return made / torch.linalg.vector_norm(made, dim=1, keepdim=True)

    def windows(self, count: int, passing: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the bounds of ranks, int32, between which so many rows pass for each query.

        Where all pass, they are different filters still.
        """
        spare = self.rows - passing
        lows, more = torch.randint(
            (spare or 1000) + 1, (2, count), device=self.device, generator=self._generator
        ).to(torch.int32)
        return (lows, lows + passing) if spare else (-lows, self.rows + more)

    @functools.cached_property
    def unlinked(self) -> Any:
        """The index without a graph, on the device where there is one: all searches are scans."""
        index = ann.Index(self.d, metric="cosine", dtype="bfloat16")
        with mock.patch.object(_state, "TRAINED_ROWS", 1 << 62):
            index.add(self.vectors.cpu(), attributes={"rank": self.ranks.cpu().numpy()})
        return self._there(index)

    @functools.cached_property
    def linked(self) -> Any:
        """The index with a graph, likewise: what is quicker by its costs."""
        on = "cuda" if self.device.type == "cuda" else "cpu"
        return self._there(self.built(on))

    @functools.cache  # noqa: B019  # there are two worlds at most
    def built(self, build_device: str) -> Any:
        """Return the index on the CPU, built there or by the device; its time is kept."""
        vectors, ranks = self.vectors.cpu(), self.ranks.cpu().numpy()
        index = ann.Index(self.d, metric="cosine", dtype="bfloat16", build_device=build_device)
        start = time.perf_counter()
        index.add(vectors, attributes={"rank": ranks})
        self.build_seconds[build_device] = time.perf_counter() - start
        return index

    def _there(self, index: Any) -> Any:
        return index.to("cuda") if self.device.type == "cuda" else index

    def nearest(self, queries: torch.Tensor, k: int, bounds: Any = None) -> torch.Tensor:
        """Return the ids of the nearest rows by products in float32.

        Bounds: of ranks, for each query, or one for all of them.
        """
        from bench.gpu.floors import full_float32

        queries = queries.float()
        best = torch.empty(len(queries), 0, device=self.device)
        ids = torch.empty(len(queries), 0, dtype=torch.int64, device=self.device)
        with full_float32():
            for at in range(0, self.rows, _PART):
                vectors = self.vectors[at : at + _PART].float()
                vectors /= torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
                scores = queries @ vectors.T
                if bounds is not None:
                    ranks = self.ranks[at : at + _PART]
                    low, high = (bound[:, None] for bound in bounds)
                    scores.masked_fill_((ranks < low) | (ranks >= high), float("-inf"))
                there = torch.arange(at, at + len(vectors), device=self.device)
                best = torch.cat([best, scores], 1)
                ids = torch.cat([ids, there.expand(len(queries), -1)], 1)
                best, places = best.topk(min(k, best.shape[1]), dim=1)
                ids = ids.gather(1, places)
        return ids


@functools.lru_cache(maxsize=1)
def world_of(rows: int, d: int, device: torch.device) -> World:
    """Return the world of so many rows; one at a time is kept."""
    return World(rows, d, device)


def missed(found: Any, right: torch.Tensor) -> float:
    """Return the share of the nearest rows that is not among the answers."""
    found = torch.as_tensor(found, device=right.device).long()
    there = (right[:, :, None] == found[:, None, :]).any(2)
    return 1.0 - float(there.double().mean())
