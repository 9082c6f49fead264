# SPDX-License-Identifier: Apache-2.0
"""Pairs of rows in blocks, close pairs from their difference: nothing of size n x m is held.

The squared distance of two rows is |a|^2 + |b|^2 - 2 a'b, from blocks of products. Where it is
small against the norms it has lost its digits, so those pairs are gathered, subtracted as given and
handled one by one, in float64; the same goes for nearly opposite rows under ``arc``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

BLOCK_ROWS = 1024  # a block of products is 4 MiB of float32
CHUNK_ROWS = 4096
_PAIR_ELEMENTS = 1 << 19  # of gathered differences at a time
_SAMPLE_ROWS = 65
# Unit rows no farther apart than this are the same direction to within the rounding of float64.
_SAME_DIRECTION = 2.0**-50


def is_wide(x: torch.Tensor, corpus: torch.Tensor | None) -> bool:
    """Whether products are of float64, not of float32."""
    return x.dtype == torch.float64 or (corpus is not None and corpus.dtype == torch.float64)


def unit_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows / |rows| and |rows| of rows that are not zero, in float64 of any magnitude."""
    wide = rows.double()
    largest = wide.abs().amax(1, keepdim=True)
    wide = wide / largest
    lengths = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
    return wide / lengths, (lengths * largest).squeeze(1)


def row_chunks(rows: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield (where, rows) of blocks of rows."""
    for start in range(0, len(rows), CHUNK_ROWS):
        where = slice(start, min(start + CHUNK_ROWS, len(rows)))
        yield where, rows[where]


@dataclass(frozen=True)
class Rows:
    """Rows ready for products: unit rows, or rows moved to an origin and scaled."""

    given: torch.Tensor
    values: torch.Tensor  # (n, d)
    squares: torch.Tensor  # (n,) squared lengths of values


@dataclass(frozen=True)
class Block:
    """Rows `i` of x with rows `j` of the corpus.

    In a symmetric run a block off the diagonal stands for its mirror image, too.
    """

    i: slice
    j: slice
    chords: torch.Tensor  # distances of the values; 0 where the pair is exact
    exact: torch.Tensor  # bool: pairs that `Pairs.exact` gives

    @property
    def mirrored(self) -> bool:
        """Whether the block is off the diagonal."""
        return bool(self.i.start != self.j.start)


@dataclass(frozen=True)
class Exact:
    """A few pairs, from their differences in float64."""

    i: torch.Tensor  # (k,) rows of x
    j: torch.Tensor  # (k,) rows of the corpus
    chord: torch.Tensor  # (k,) distances of the values; from x to -corpus where sign is -1
    sign: torch.Tensor  # (k,) -1 for nearly opposite unit rows, else 1
    toward: torch.Tensor  # (k, d) unit (x - sign corpus); 0 for equal rows


class Pairs:
    """All pairs of rows of `x` and `corpus`; without `corpus`, of different rows of `x`."""

    def __init__(self, x: torch.Tensor, corpus: torch.Tensor | None, metric: str) -> None:
        self.own = corpus is None
        self._angular = metric in ("chord", "arc")
        self._opposite = metric == "arc"
        self.dtype = torch.float64 if is_wide(x, corpus) else torch.float32
        # Squared distances below this share of the squared norms are off by about its root.
        self._near = 4.0 * math.sqrt(torch.finfo(self.dtype).eps)
        among = x if corpus is None else corpus
        self.scale = 1.0 if self._angular else _scale_of(x, among)
        center = None if self._angular else _center_of(among, self.scale)
        self.left = self._prepared(x, center)
        self.right = self.left if corpus is None else self._prepared(corpus, center)

    def _prepared(self, rows: torch.Tensor, center: torch.Tensor | None) -> Rows:
        values = rows.new_empty(rows.shape, dtype=self.dtype)
        for where, part in row_chunks(rows):
            if center is None:
                values[where] = unit_rows(part)[0]
            else:
                values[where] = part.double() * self.scale - center
        return Rows(rows, values, torch.linalg.vector_norm(values, dim=1).square_())

    def blocks(self, symmetric: bool = False) -> Iterator[Block]:
        """Yield all blocks; with `symmetric` those on the diagonal and on one side of it."""
        n, m = len(self.left.values), len(self.right.values)
        for start in range(0, n, BLOCK_ROWS):
            i = slice(start, min(start + BLOCK_ROWS, n))
            for other in range(start if symmetric else 0, m, BLOCK_ROWS):
                yield self._block(i, slice(other, min(other + BLOCK_ROWS, m)))

    def _block(self, i: slice, j: slice) -> Block:
        left, right = self.left, self.right
        norms = left.squares[i, None] + right.squares[None, j]
        squared = torch.addmm(norms, left.values[i], right.values[j].T, alpha=-2.0)
        exact = squared <= norms.mul_(self._near)
        if self._opposite:
            exact |= squared >= 4.0 - 2.0 * self._near
        return Block(i, j, squared.masked_fill_(exact, 0.0).sqrt_(), exact)

    def exact(self, block: Block) -> Iterator[Exact]:
        """Yield the exact pairs of a block, a few at a time; never a row with itself."""
        rows = block.exact.nonzero()
        rows += rows.new_tensor([block.i.start, block.j.start])
        if self.own:
            rows = rows[rows[:, 0] != rows[:, 1]]
        step = max(1, _PAIR_ELEMENTS // self.left.values.shape[1])
        for start in range(0, len(rows), step):
            i, j = rows[start : start + step].unbind(1)
            yield self._exact(i, j)

    def _exact(self, i: torch.Tensor, j: torch.Tensor) -> Exact:
        a, b = self.left.given[i], self.right.given[j]
        sign = a.new_ones(len(i), dtype=torch.float64)
        if self._angular:
            a, b = unit_rows(a)[0], unit_rows(b)[0]
            sign = torch.where((a * b).sum(1) < 0.0, -sign, sign)
            gap = a - sign[:, None] * b
        else:
            gap = a.double() * self.scale - b.double() * self.scale
        # By its largest part first, so that no square underflows.
        largest = gap.abs().amax(1, keepdim=True)
        toward = gap / largest.where(largest > 0.0, torch.ones_like(largest))
        length = torch.linalg.vector_norm(toward, dim=1, keepdim=True)
        chord = (largest * length).squeeze(1)
        apart = chord > (_SAME_DIRECTION if self._angular else 0.0)
        toward = (toward / length.clamp(min=1.0)).masked_fill(~apart[:, None], 0.0)
        return Exact(i, j, chord.masked_fill(~apart, 0.0), sign, toward)


def _scale_of(x: torch.Tensor, corpus: torch.Tensor) -> float:
    """Return a power of two that brings all values below 1."""
    largest = max(float(part.abs().max()) for rows in (x, corpus) for _, part in row_chunks(rows))
    return math.ldexp(1.0, max(-1000, min(1000, -math.frexp(largest)[1])))


def _center_of(corpus: torch.Tensor, scale: float) -> torch.Tensor:
    """Return the median, column by column, of a few corpus rows: where its bulk is, scaled."""
    taken = min(len(corpus), _SAMPLE_ROWS)
    sample = (
        corpus[torch.arange(taken, device=corpus.device) * len(corpus) // taken].double() * scale
    )
    return sample.median(0).values
