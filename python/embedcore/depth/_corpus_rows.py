# SPDX-License-Identifier: Apache-2.0
"""Corpora that are kept as their rows, and the depths that are summed over them block by block.

Rows are never copied as a whole: a block is a slice of what the user gave, or a few small chunks
put side by side, and everything that is computed from it is added in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ._covariance import Floats

Rows = NDArray[Any]
Weights = NDArray[np.float32]

BLOCK_BYTES = 32 << 20  # of a block of rows, and of one block's projections


def block_rows(columns: int) -> int:
    """Rows of a block; few enough for scratch, enough to hide the packing of both sides."""
    return max(1024, BLOCK_BYTES // (4 * columns))


@dataclass(frozen=True)
class Chunk:
    """Rows (m, d) as the user gave them, and their weights (m,), None for all 1."""

    rows: Rows
    weights: Weights | None

    def part(self, start: int, stop: int) -> Chunk:
        weights = None if self.weights is None else self.weights[start:stop]
        return Chunk(self.rows[start:stop], weights)


def joined(parts: list[Chunk]) -> Chunk:
    """Return `parts`, which have one dtype, as one chunk."""
    if len(parts) == 1:
        return parts[0]
    weights = None
    if any(part.weights is not None for part in parts):
        weights = np.concatenate([weights_of(part) for part in parts])
    return Chunk(np.concatenate([part.rows for part in parts]), weights)


def weights_of(chunk: Chunk) -> Weights:
    """Return the weights of a chunk's rows, written out."""
    return np.ones(len(chunk.rows), np.float32) if chunk.weights is None else chunk.weights


def blocks(chunks: tuple[Chunk, ...]) -> Iterator[Chunk]:
    """Yield the rows in order, in blocks of one dtype; blocks without weight are left out."""
    if not chunks:
        return
    size = block_rows(chunks[0].rows.shape[1])
    waiting: list[Chunk] = []
    held = 0
    for chunk in chunks:
        for start in range(0, len(chunk.rows), size):
            part = chunk.part(start, start + size)
            full = held + len(part.rows) > size
            if waiting and (full or part.rows.dtype != waiting[0].rows.dtype):
                yield from _with_weight(joined(waiting))
                waiting, held = [], 0
            waiting.append(part)
            held += len(part.rows)
    yield from _with_weight(joined(waiting))


def _with_weight(block: Chunk) -> Iterator[Chunk]:
    if block.weights is None or block.weights.any():
        yield block


def pair_sums(
    where: str, x: Rows, block: Chunk, metric: int, precision: int, threads: int
) -> Floats:
    """Weighted sums over a block: distances (n,), or unit differences (n, d) for spatial depth."""
    sums: Floats = _core.depth_score(
        where, x, block.rows, metric, precision, block.weights, None, 1, None, threads, True, None,
        None,
    )  # fmt: skip
    return sums


def _check_finite(where: str, computed: NDArray[Any]) -> None:
    """Raise if rows of the corpus, finite when they came, have changed or are damaged in a file."""
    if not np.isfinite(computed).all():
        raise ValueError(f"{where}: the corpus must be finite; some of its rows no longer are.")


_ORIGIN_ROWS, _PROJECTED_ROWS = 1024, 4096


def directional_depths(
    where: str, x: Rows, chunks: tuple[Chunk, ...], metric: int, along: Floats, threads: int
) -> Iterator[tuple[int, Floats]]:
    """Yield (directions, depths (n,) over them) for blocks of the directions `along` (p, d).

    The whole corpus is projected on a few directions at a time, in float64 rounded to float32, and
    the native kernel gets the projections as columns of their own. Equal rows get equal projections
    whatever chunk they are in.
    """
    used = list(blocks(chunks))
    rows = sum(len(block.rows) for block in used)
    weights = None
    if any(block.weights is not None for block in used):
        weights = np.concatenate([weights_of(block) for block in used])
    size = max(1, min(len(along), BLOCK_BYTES // (4 * max(rows, len(x)))))
    # Ranks do not change when all rows are moved and scaled; what they have in common would cost
    # digits.
    sample = used[0].rows[:_ORIGIN_ROWS].astype(np.float64)
    # A power of two, so that scaling is exact; within what has an inverse.
    scale = math.ldexp(1.0, -min(max(math.frexp(float(np.abs(sample).max()))[1], -1000), 1000))
    origin = np.median(sample * scale, axis=0)
    for first in range(0, len(along), size):
        u = along[first : first + size]
        lengths = np.sqrt((u * u).sum(axis=1))
        noise = 1e-13 * float(np.sqrt(origin @ origin)) * lengths
        axes = _Axes(scale, u, u @ origin, noise)
        values = np.empty((rows, len(u)), np.float32)
        at = 0
        for block in used:
            _project(where, block.rows, axes, values[at : at + len(block.rows)])
            at += len(block.rows)
        own = np.empty((len(x), len(u)), np.float32)
        _project(where, x, axes, own)
        identity = np.eye(len(u), dtype=np.float32)
        depths = _core.depth_score(
            where, own, values, metric, 0, weights, None, 1, identity, threads, False, None, None
        )
        yield len(u), depths.astype(np.float64)


@dataclass(frozen=True)
class _Axes:
    """Directions (p, d), each with the projection of the origin and the rounding error of it.

    All of it in multiples of 1 / scale.
    """

    scale: float
    along: Floats
    origin: Floats
    noise: Floats


# Rows further out than float32 reaches stay the outermost ones.
_FURTHEST = float(np.finfo(np.float32).max) / 4
_LARGEST = 2.0**1000  # so that no product overflows


@np.errstate(invalid="ignore", over="ignore")
def _project(where: str, rows: Rows, axes: _Axes, out: NDArray[np.float32]) -> None:
    for start in range(0, len(rows), _PROJECTED_ROWS):
        wide = rows[start : start + _PROJECTED_ROWS].astype(np.float64)
        _check_finite(where, wide)
        wide *= axes.scale
        part = np.clip(wide, -_LARGEST, _LARGEST, out=wide) @ axes.along.T
        part -= axes.origin
        np.clip(part, -_FURTHEST, _FURTHEST, out=part)
        # Rows equal to the origin differ by rounding alone, which must not rank them.
        part[np.abs(part) <= axes.noise] = 0.0
        out[start : start + len(part)] = part
