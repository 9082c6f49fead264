# SPDX-License-Identifier: Apache-2.0
"""Spatial depth: values and gradients from blocks of pairs."""

from __future__ import annotations

import torch

from .. import _core
from ..depth._metrics import NATIVE_METRIC
from ._depth_pairs import Block, Exact, Pairs, is_wide
from ._depth_weights import WHERE, Weights


def spatial_depths(
    x: torch.Tensor, corpus: torch.Tensor | None, weights: torch.Tensor | None
) -> torch.Tensor:
    """Return the depths (n,) in float64."""
    w = Weights.of(weights, x, corpus)
    sums = _direction_sums(Pairs(x, corpus, "spatial"), w)
    return (1.0 - torch.linalg.vector_norm(sums, dim=1) / w.remaining).clamp_(min=0.0)


def spatial_gradients(
    grad: torch.Tensor,
    depths: torch.Tensor,
    x: torch.Tensor,
    corpus: torch.Tensor | None,
    weights: torch.Tensor | None,
    threads: int,
    wanted: tuple[bool, bool, bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Return the gradients of x, corpus and weights that are wanted.

    With u_ij the unit vector from X_j to x_i, r_ij their distance and e_i the direction of the mean
    of the u_ij over j, the gradient of the depth is -(e_i - u_ij (u_ij'e_i)) / r_ij for x_i and the
    opposite for X_j, in the mean over j.
    """
    w, pairs = Weights.of(weights, x, corpus), Pairs(x, corpus, "spatial")
    if is_wide(x, corpus) or not x.is_cpu:
        sums = _direction_sums(pairs, w)
    else:
        spatial = NATIVE_METRIC["spatial"]
        sums = _core.depth_score(
            WHERE, x, corpus, spatial, 0, weights, None, 1, None, threads, True, None, None
        )
    lengths = torch.linalg.vector_norm(sums, dim=1, keepdim=True)
    ends = (sums / lengths.where(lengths > 0.0, torch.ones_like(lengths))).to(pairs.dtype)
    del sums
    pull = grad.double() / w.remaining
    run = _Backward(pairs, w, pull, ends, wanted)
    for block in pairs.blocks():
        run.add(block)
        for few in pairs.exact(block):
            run.add_exactly(few)
    of_weights = None
    if run.of_weights is not None:
        of_weights = w.gradient(run.of_weights, -pull, 1.0 - depths.double())
    return (
        run.of_x.mul_(pairs.scale) if wanted[0] else None,
        run.of_corpus.mul_(pairs.scale) if wanted[1] and corpus is not None else None,
        of_weights,
    )


class _Backward:
    """Sums over pairs of what the depths pull rows with, in units of the moved rows."""

    def __init__(
        self,
        pairs: Pairs,
        weights: Weights,
        pull: torch.Tensor,
        ends: torch.Tensor,
        wanted: tuple[bool, bool, bool],
    ) -> None:
        self._pairs, self._ends = pairs, ends
        self._pull, self._each = pull, weights.each
        self._rounded_pull, self._rounded_each = pull.to(pairs.dtype), weights.each.to(pairs.dtype)
        self._along = (pairs.left.values * ends).sum(1)
        self._of_x = wanted[0]
        self._of_corpus = wanted[1] or (pairs.own and wanted[0])
        self.of_x = torch.zeros_like(pairs.left.values)
        self.of_corpus = self.of_x if pairs.own else torch.zeros_like(pairs.right.values)
        m = len(pairs.right.values)
        self.of_weights = pull.new_zeros(m) if wanted[2] else None

    def add(self, block: Block) -> None:
        i, j = block.i, block.j
        left, right, ends = self._pairs.left.values[i], self._pairs.right.values[j], self._ends[i]
        inverse = _inverse(block)
        # u'e of each pair, then pull weight / r and pull weight u'e / r^2.
        across = torch.addmm(self._along[i, None], ends, right.T, alpha=-1.0).mul_(inverse)
        if self.of_weights is not None:
            self.of_weights[j] -= self._rounded_pull[i] @ across
        if not (self._of_x or self._of_corpus):
            return
        inverse *= self._rounded_pull[i, None]
        inverse *= self._rounded_each[None, j]
        across *= inverse
        across *= _inverse(block)
        if self._of_x:
            step = left * across.sum(1, keepdim=True) - ends * inverse.sum(1, keepdim=True)
            self.of_x[i] += step.addmm_(across, right, alpha=-1.0)
        if self._of_corpus:
            step = (right * across.sum(0)[:, None]).addmm_(inverse.T, ends)
            self.of_corpus[j] += step.addmm_(across.T, left, alpha=-1.0)

    def add_exactly(self, few: Exact) -> None:
        i, j = few.i, few.j
        apart = few.chord > 0.0
        ends = self._ends[i].double()
        across = (few.toward * ends).sum(1, keepdim=True)
        if self.of_weights is not None:
            self.of_weights.index_add_(0, j, self._pull[i] * across.squeeze(1), alpha=-1.0)
        factor = (self._pull[i] * self._each[j] / few.chord).masked_fill(~apart, 0.0)
        step = (factor[:, None] * (ends - across * few.toward)).to(self.of_x.dtype)
        self.of_x.index_add_(0, i, step, alpha=-1.0)
        self.of_corpus.index_add_(0, j, step)


def _direction_sums(pairs: Pairs, weights: Weights) -> torch.Tensor:
    """Return the sums (n, d) of the weighted unit vectors from the corpus rows, in float64."""
    left, right = pairs.left.values, pairs.right.values
    sums = torch.zeros_like(left, dtype=torch.float64)
    each = weights.each.to(pairs.dtype)
    for block in pairs.blocks():
        factor = _inverse(block).mul_(each[None, block.j])
        of_rows = left[block.i] * factor.sum(1, keepdim=True)
        sums[block.i] += of_rows.addmm_(factor, right[block.j], alpha=-1.0)
        for few in pairs.exact(block):
            sums.index_add_(0, few.i, few.toward * weights.each[few.j, None])
    return sums


def _inverse(block: Block) -> torch.Tensor:
    """1 / distance; 0 where the pair is exact."""
    return block.chords.reciprocal().masked_fill_(block.exact, 0.0)
