# SPDX-License-Identifier: Apache-2.0
"""Cosine depth: values and gradients from sums of unit rows, in O((n + m) d)."""

from __future__ import annotations

import torch

from ._depth_pairs import row_chunks, unit_rows
from ._depth_weights import Weights


def cosine_depths(
    x: torch.Tensor, corpus: torch.Tensor | None, weights: torch.Tensor | None
) -> torch.Tensor:
    """Return the depths (n,) in float64."""
    w = Weights.of(weights, x, corpus)
    total = _direction_sum(x if corpus is None else corpus, w.each)
    sums = x.new_empty(len(x), dtype=torch.float64)
    for where, part in row_chunks(x):
        sums[where] = unit_rows(part)[0] @ total
    if w.own:
        sums -= w.each
    return 1.0 + sums / w.remaining


def cosine_gradients(
    grad: torch.Tensor,
    depths: torch.Tensor,
    x: torch.Tensor,
    corpus: torch.Tensor | None,
    weights: torch.Tensor | None,
    wanted: tuple[bool, bool, bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Return the gradients of x, corpus and weights that are wanted.

    With a, b the unit rows, s the weighted sum of the b and t the sum of the a, each times
    h = gradient / remaining weight, the gradient of a is h s and that of b is weight t. What a row
    does to itself points along it, so that leaving it out changes nothing.
    """
    w = Weights.of(weights, x, corpus)
    pull = grad.double() / w.remaining
    among = x if corpus is None else corpus
    corpus_sum, pull_sum = _direction_sum(among, w.each), _direction_sum(x, pull)
    of_x = of_corpus = of_weights = None
    if wanted[0]:
        factors = ((pull, corpus_sum), (w.each, pull_sum)) if w.own else ((pull, corpus_sum),)
        of_x = _project(x, factors)
    if wanted[1] and corpus is not None:
        of_corpus = _project(corpus, ((w.each, pull_sum),))
    if wanted[2]:
        sums = among.new_empty(len(among), dtype=torch.float64)
        for where, part in row_chunks(among):
            sums[where] = unit_rows(part)[0] @ pull_sum
        of_weights = w.gradient(sums - pull if w.own else sums, pull, depths.double() - 1.0)
    return of_x, of_corpus, of_weights


def _direction_sum(rows: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    total = rows.new_zeros(rows.shape[1], dtype=torch.float64)
    for where, part in row_chunks(rows):
        total += factors[where] @ unit_rows(part)[0]
    return total


def _project(
    rows: torch.Tensor, gradients: tuple[tuple[torch.Tensor, torch.Tensor], ...]
) -> torch.Tensor:
    """Return the gradient of rows whose directions have the sum of factor_i vector for one."""
    result = rows.new_empty(rows.shape)
    for where, part in row_chunks(rows):
        unit, lengths = unit_rows(part)
        of_unit = torch.zeros_like(unit)
        for factors, vector in gradients:
            of_unit += factors[where, None] * (vector - (unit @ vector)[:, None] * unit)
        result[where] = (of_unit / lengths[:, None]).to(rows.dtype)
    return result
