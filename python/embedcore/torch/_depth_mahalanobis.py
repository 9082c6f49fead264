# SPDX-License-Identifier: Apache-2.0
r"""Gradients of Mahalanobis depth, in float64, through mean, covariance and shrinkage.

With c_i = x_i - mu, T the sum of the weights, Sc the scatter and, for a row that is left out of its
own depth, its weight w_i (else 0), ``embedcore.depth`` computes

    r_i = T - w_i,  k_i = T w_i / r_i,  g_i = 1 / (r_i - ddof),
    B_i = a_i Sc + t_i I,  a_i = (1 - s) g_i,  t_i = s (trace Sc - k_i |c_i|^2) g_i / d,
    p_i = c_i' B_i^-1 c_i,  f_i = 1 - a_i k_i p_i,
    q_i = (T / r_i)^2 p_i / f_i,  D_i = 1 / (1 + q_i)

and, where the shrinkage s is Ledoit and Wolf's, s = noise / spread with the sums of
`Moments.ledoit_wolf`. The gradient goes back through these lines in reverse. Only products with
B_i^-1 appear in it, no derivative of eigenvectors, so that equal eigenvalues do no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .._arrays import to_numpy
from ..depth._covariance import Floats, Whitener, chunks
from ..depth._whitened import _CheckedRows, _fit, checked_shrinkage

_LEAST_FACTOR = 1e-12  # of f_i, as in `Whitener.squared_distances_left_out`


def mahalanobis_gradients(
    grad: torch.Tensor,
    x: torch.Tensor,
    corpus: torch.Tensor | None,
    weights: torch.Tensor | None,
    shrinkage: float | None,
    wanted: tuple[bool, bool, bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Return the gradients of x, corpus and weights that are wanted; `shrinkage` None: "auto"."""
    rows = _CheckedRows(x, corpus, weights)
    asked = checked_shrinkage("auto" if shrinkage is None else shrinkage)
    run = _Backward(rows, _fit(rows, slice(None), asked), shrinkage is None)
    g = to_numpy(grad).astype(np.float64)
    of_x = np.empty(rows.x.shape)
    for start, block in chunks(rows.x):
        part = slice(start, start + len(block))
        of_x[part] = run.back_through_rows(g[part], block, part)
    # Rows may have been brought to another magnitude by a power of two.
    unit = _largest(rows.corpus) / _largest(to_numpy(x if corpus is None else corpus))
    if not (rows.left_out or wanted[1] or wanted[2]):
        return torch.from_numpy(of_x * unit), None, None
    run.back_through_shrinkage()
    of_corpus, of_weights = run.back_to_corpus()
    if rows.left_out:
        of_x += of_corpus
    return (
        torch.from_numpy(of_x * unit) if wanted[0] else None,
        torch.from_numpy(of_corpus * unit) if wanted[1] else None,
        None if weights is None else torch.from_numpy(of_weights / float(weights.max())),
    )


def _largest(rows: NDArray[Any]) -> float:
    return float(np.abs(rows).max()) or 1.0


@dataclass
class _Sums:
    """Gradients of what the rows share."""

    mean: Floats  # (d,)
    rotated_scatter: Floats  # (d, d), in the eigenvectors of the scatter
    weights: Floats  # (m,) beyond those through the sums below
    trace: float = 0.0
    total: float = 0.0
    shrinkage: float = 0.0
    fourth: float = 0.0


class _Backward:
    """The lines above in reverse: rows, then shrinkage, then the corpus."""

    def __init__(self, rows: _CheckedRows, fitted: Whitener, automatic: bool) -> None:
        self._rows, self._moments = rows, fitted._moments
        self._values, self._vectors = fitted._values, fitted._vectors
        self._s, self._ddof = fitted._shrinkage, fitted._ddof
        self._trace = float(self._values.sum())
        # Where the estimate is cut off at 0 or 1 it is constant.
        self._estimated = automatic and 0.0 < self._s < 1.0
        d = len(self._values)
        self._sums = _Sums(np.zeros(d), np.zeros((d, d)), np.zeros(len(rows.corpus)))

    def back_through_rows(self, g: Floats, block: Floats, part: slice) -> Floats:
        """Add what a block of scored rows gives to the sums; return the gradient of its rows."""
        d, s, total, sums = len(self._values), self._s, self._moments.weight, self._sums
        w = self._own_weights(part)
        rest = total - w
        k, scale = total * w / rest, 1.0 / (rest - self._ddof)
        rotated = (block - self._moments.mean) @ self._vectors
        size = (rotated * rotated).sum(axis=1)
        a, left = (1 - s) * scale, self._trace - k * size
        t = s * left * scale / d
        solved = rotated / (a[:, None] * self._values + t[:, None])
        p = (solved * rotated).sum(axis=1)
        f = 1.0 - a * k * p
        usable = f > _LEAST_FACTOR  # others are infinitely far, and stay so
        f = np.where(usable, f, 1.0)
        q = (total / rest) ** 2 * p / f
        of_q = np.where(usable, -g / (1.0 + q) ** 2, 0.0)

        of_p = of_q * (total / rest / f) ** 2
        of_ak = of_p * p * p
        of_t = -of_p * (solved * solved).sum(axis=1)
        of_a = of_ak * k - of_p * ((solved * solved) @ self._values)
        of_k = of_ak * a - of_t * s * size * scale / d
        sums.trace += float((of_t * s * scale / d).sum())
        sums.shrinkage += float((of_t * left * scale / d - of_a * scale).sum())
        sums.rotated_scatter -= (solved * (of_p * a)[:, None]).T @ solved
        of_scale = of_a * (1 - s) + of_t * s * left / d
        of_rest = -of_scale * scale**2 - (of_k * k + 2.0 * of_q * q) / rest
        sums.total += float((of_rest + of_k * w / rest + 2.0 * of_q * q / total).sum())
        if self._rows.left_out:
            sums.weights[part] += of_k * total / rest - of_rest
        of_size = -of_t * s * k * scale / d
        of_rotated = 2.0 * (of_p[:, None] * solved + of_size[:, None] * rotated)
        of_rows: Floats = of_rotated @ self._vectors.T
        sums.mean -= of_rows.sum(axis=0)
        return of_rows

    def _own_weights(self, part: slice) -> Floats:
        count = len(self._rows.x[part])
        if not self._rows.left_out:
            return np.zeros(count)
        return np.ones(count) if self._rows.weights is None else self._rows.weights[part]

    def back_through_shrinkage(self) -> None:
        """Pass the gradient of an estimated shrinkage on to scatter, total and fourth powers."""
        if not self._estimated:
            return
        moments, sums, total = self._moments, self._sums, self._moments.weight
        d = len(self._values)
        squares = float((self._values**2).sum()) / total**2
        mean_value = self._trace / total / d
        spread = squares - d * mean_value**2
        of_noise, of_spread = sums.shrinkage / spread, -sums.shrinkage * self._s / spread
        of_squares = of_spread - of_noise / moments.used
        of_mean_value = -2.0 * d * mean_value * of_spread
        fourth = moments.fourth_of(self._rows.corpus, self._rows.weights)
        sums.fourth = of_noise / (moments.used * total)
        sums.rotated_scatter += np.diag(2.0 * of_squares / total**2 * self._values)
        sums.trace += of_mean_value / (total * d)
        sums.total -= (
            sums.fourth * fourth + 2.0 * of_squares * squares + of_mean_value * mean_value
        ) / total

    def back_to_corpus(self) -> tuple[Floats, Floats]:
        """Return the gradients of the corpus rows and of their weights."""
        sums, mean = self._sums, self._moments.mean
        scatter = self._vectors @ sums.rotated_scatter @ self._vectors.T
        scatter[np.diag_indices_from(scatter)] += sums.trace
        of_mean = sums.mean.copy()
        for _, centred, w in self._corpus_blocks():
            cubes = w * (centred * centred).sum(axis=1) * 4.0 * sums.fourth
            of_mean -= cubes @ centred
        of_mean /= self._moments.weight
        of_rows = np.empty((len(self._rows.corpus), len(mean)))
        of_weights = sums.weights + sums.total
        for part, centred, w in self._corpus_blocks():
            by_scatter = centred @ scatter
            size = (centred * centred).sum(axis=1)
            of_rows[part] = w[:, None] * (
                2.0 * by_scatter + of_mean + (4.0 * sums.fourth * size)[:, None] * centred
            )
            of_weights[part] += (by_scatter * centred).sum(axis=1) + centred @ of_mean
            of_weights[part] += sums.fourth * size * size
        return of_rows, of_weights

    def _corpus_blocks(self) -> Any:
        weights = self._rows.weights
        for start, block in chunks(self._rows.corpus):
            part = slice(start, start + len(block))
            w = np.ones(len(block)) if weights is None else weights[part]
            yield part, block - self._moments.mean, w
