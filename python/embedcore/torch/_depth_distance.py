# SPDX-License-Identifier: Apache-2.0
"""Depths that are functions of a mean distance (chord, arc, l2): values and gradients."""

from __future__ import annotations

import math

import torch

from ._depth_pairs import Block, Exact, Pairs, row_chunks, unit_rows
from ._depth_weights import Weights

Gradients = tuple["torch.Tensor | None", "torch.Tensor | None", "torch.Tensor | None"]


def distance_depths(
    x: torch.Tensor, corpus: torch.Tensor | None, weights: torch.Tensor | None, metric: str
) -> torch.Tensor:
    """Return the depths (n,) in float64."""
    pairs, w = Pairs(x, corpus, metric), Weights.of(weights, x, corpus)
    each = w.each.to(pairs.dtype)
    sums = x.new_zeros(len(x), dtype=torch.float64)
    for block in pairs.blocks(symmetric=pairs.own):
        distance = _distances(metric, block.chords)
        sums[block.i] += distance @ each[block.j]
        if pairs.own and block.mirrored:
            sums[block.j] += each[block.i] @ distance
        for few in pairs.exact(block):
            exact = _exact_distances(metric, few)
            sums.index_add_(0, few.i, exact * w.each[few.j])
            if pairs.own and block.mirrored:
                sums.index_add_(0, few.j, exact * w.each[few.i])
    means = sums / w.remaining / pairs.scale
    if metric == "l2":
        return 1.0 / (1.0 + means)
    return (math.pi if metric == "arc" else 2.0) - means


def distance_gradients(
    grad: torch.Tensor,
    depths: torch.Tensor,
    x: torch.Tensor,
    corpus: torch.Tensor | None,
    weights: torch.Tensor | None,
    metric: str,
    wanted: tuple[bool, bool, bool],
) -> Gradients:
    """Return the gradients of x, corpus and weights that are wanted."""
    w, d, g = Weights.of(weights, x, corpus), depths.double(), grad.double()
    if metric == "l2":
        slope, means = -d * d, torch.where(d > 0.0, 1.0 / d - 1.0, 0.0)
    else:
        slope, means = -torch.ones_like(d), (math.pi if metric == "arc" else 2.0) - d
    pull = g * slope / w.remaining
    pairs = Pairs(x, corpus, metric)
    run = _Backward(pairs, metric, w, pull, wanted)
    for block in pairs.blocks(symmetric=pairs.own):
        run.add(block)
        for few in pairs.exact(block):
            run.add_exactly(few, pairs.own and block.mirrored)
    of_weights = None
    if run.of_weights is not None:
        of_weights = w.gradient(run.of_weights / pairs.scale, pull, means)
    return (
        _of_given(run.of_x, x, metric) if wanted[0] else None,
        None if corpus is None or not wanted[1] else _of_given(run.of_corpus, corpus, metric),
        of_weights,
    )


class _Backward:
    """Sums of pull_i weight_j (x_i - X_j) / distance_ij; pairs are added block by block."""

    def __init__(
        self,
        pairs: Pairs,
        metric: str,
        weights: Weights,
        pull: torch.Tensor,
        wanted: tuple[bool, bool, bool],
    ) -> None:
        self._pairs, self._metric = pairs, metric
        self._pull, self._each = pull, weights.each
        self._rounded_pull, self._rounded_each = pull.to(pairs.dtype), weights.each.to(pairs.dtype)
        self._of_rows = wanted[0] or wanted[1]
        self._of_corpus = wanted[1] or (pairs.own and wanted[0])
        self.of_x = torch.zeros_like(pairs.left.values)
        self.of_corpus = self.of_x if pairs.own else torch.zeros_like(pairs.right.values)
        m = len(pairs.right.values)
        self.of_weights = pull.new_zeros(m) if wanted[2] else None

    def add(self, block: Block) -> None:
        i, j = block.i, block.j
        pull, each = self._rounded_pull, self._rounded_each
        both = self._pairs.own and block.mirrored
        if self.of_weights is not None:
            distance = _distances(self._metric, block.chords)
            self.of_weights[j] += pull[i] @ distance
            if both:
                self.of_weights[i] += distance @ pull[j]
        if not self._of_rows:
            return
        factor = _slopes(self._metric, block)
        if both:
            factor *= torch.outer(pull[i], each[j]).addr_(each[i], pull[j])
        else:
            factor *= pull[i, None]
            factor *= each[None, j]
        left, right = self._pairs.left.values[i], self._pairs.right.values[j]
        self.of_x[i] += (left * factor.sum(1, keepdim=True)).addmm_(factor, right, alpha=-1.0)
        if self._of_corpus:
            sums = factor.sum(0)[:, None]
            self.of_corpus[j] += (right * sums).addmm_(factor.T, left, alpha=-1.0)

    def add_exactly(self, few: Exact, both: bool) -> None:
        i, j = few.i, few.j
        if self.of_weights is not None:
            distance = _exact_distances(self._metric, few)
            self.of_weights.index_add_(0, j, self._pull[i] * distance)
            if both:
                self.of_weights.index_add_(0, i, self._pull[j] * distance)
        factor = self._pull[i] * self._each[j]
        if both:
            factor = factor + self._pull[j] * self._each[i]
        if self._metric == "arc":
            factor = factor / (1.0 - 0.25 * few.chord * few.chord).sqrt()
        step = (factor[:, None] * few.toward).to(self.of_x.dtype)
        # Near opposite rows the arc is pi less that to the opposite row.
        self.of_x.index_add_(0, i, step * few.sign[:, None].to(step.dtype))
        self.of_corpus.index_add_(0, j, step, alpha=-1.0)


def _distances(metric: str, chords: torch.Tensor) -> torch.Tensor:
    """Distances from those of the values; 0 where the pair is exact."""
    return chords.mul(0.5).asin_().mul_(2.0) if metric == "arc" else chords


def _exact_distances(metric: str, few: Exact) -> torch.Tensor:
    if metric != "arc":
        return few.chord
    angle = 2.0 * (0.5 * few.chord).asin()
    return angle.where(few.sign > 0.0, math.pi - angle)


def _slopes(metric: str, block: Block) -> torch.Tensor:
    """Return d distance / d chord / chord; 0 where the pair is exact."""
    factor = block.chords.reciprocal().masked_fill_(block.exact, 0.0)
    if metric == "arc":
        factor *= block.chords.square().mul_(-0.25).add_(1.0).rsqrt_()
    return factor


def _of_given(gradient: torch.Tensor, rows: torch.Tensor, metric: str) -> torch.Tensor:
    """From the gradient of unit rows to that of the rows; in place."""
    if metric == "l2":
        return gradient
    for where, part in row_chunks(rows):
        unit, lengths = unit_rows(part)
        of_unit = gradient[where].double()
        along = (of_unit * unit).sum(1, keepdim=True)
        gradient[where] = (of_unit - along * unit) / lengths[:, None]
    return gradient
