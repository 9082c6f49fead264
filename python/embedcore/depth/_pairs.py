# SPDX-License-Identifier: Apache-2.0
"""Distances behind the pair-kernel depths, and the part of a depth's variance that pairs share.

Why the test needs it. A leave-one-out depth of row i is a constant less the mean of delta(i, j)
over the other rows j. Split delta(i, j) = mu + a(i) + a(j) + e(i, j). Rows i and j have e(i, j) in
common, so their depths are correlated by pair_share / (n - 1) with

    pair_share = Var(e) / (n - 1) / Var(mean distance),    between 0 and 1,

and the mean rank of the n reference depths varies as that of n / (1 + pair_share) independent ones.
The other sample's depths share no such term. On isotropic vectors a(i) vanishes and pair_share is
1; where the rows lie about a clear mean direction it is O(1 / n). Without it a test at the 5 %
level rejects up to 15 % of the time (50 against 500 isotropic rows).

Leaving one out also moves E[Q] from 1/2, by O(1 / n). A row y of the other sample and a row i would
be exchangeable if both had their depth in the n - 1 rows other than i. But y has its depth in all n
rows, and row i changes its mean distance by (delta(y, i) - mean distance of y) / n. That matters
where y and i are equally deep, so that, with f the density of depths,

    pair_shift = -1/n times the integral of f(t)^2 E[a(i) + e(y, i) | both have depth t] dt.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Metrics whose depth is a decreasing function of a mean distance: that distance from the depth.
MEAN_DISTANCE: dict[str, Callable[[Floats], Floats]] = {
    "cosine": lambda depth: 2 - depth,
    "chord": lambda depth: 2 - depth,
    "arc": lambda depth: math.pi - depth,
    "l2": lambda depth: 1 / depth - 1,
}
_BLOCK = 64  # rows that are paired with one another
_MAX_BLOCKS = 512


def unit_rows(rows: NDArray[Any]) -> Floats:
    """Float64 rows of unit length, whatever their length was. Requires: none is zero."""
    result = rows.astype(np.float64)
    result /= np.abs(result).max(axis=1, keepdims=True)
    result /= np.sqrt((result * result).sum(axis=1, keepdims=True))
    return result


def largest_value(rows: NDArray[Any]) -> float:
    """Return the largest magnitude, 1 where all are zero."""
    return float(np.abs(rows).max()) or 1.0


def prepare(rows: NDArray[Any], metric: str, unit: float) -> Floats:
    """Float64 rows for `distances`: of unit length for the angular family.

    For l2 in multiples of `unit`, so that no square overflows, and moved to their mean, so that
    products do not drown the distances of rows far from the origin.
    """
    if metric != "l2":
        return unit_rows(rows)
    result = rows.astype(np.float64) / unit
    result -= result.mean(axis=0)
    return result


def distances(a: Floats, b: Floats, metric: str) -> Floats:
    """Return the (len(a), len(b)) distances between rows that were prepared together."""
    products = a @ b.T
    if metric == "l2":
        squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :]
        return np.asarray(np.sqrt(np.maximum(squares - 2 * products, 0)))
    if metric == "cosine":
        return np.asarray(1 - products)
    if metric == "chord":
        return np.asarray(np.sqrt(np.maximum(2 - 2 * products, 0)))
    return np.asarray(np.arccos(np.clip(products, -1, 1)))


class PairTerms(NamedTuple):
    """What single pairs of rows do to Q under the null hypothesis."""

    share: float = 0.0  # of the variance of a reference depth
    shift: float = 0.0  # of E[Q] from 1/2


def pair_terms(
    rows: NDArray[Any], mean_distances: Floats, metric: str, rng: np.random.Generator
) -> PairTerms:
    """Estimate both terms from a seeded sample of pairs of reference rows.

    ``mean_distances`` are leave-one-out. The rows are cut into random blocks of 64 and paired
    within them: about 32 n pairs, at most 10^6; up to 128 rows all pairs. The additive part is that
    of least squares over all n (n - 1) / 2 pairs, which leaves n (n - 3) / 2 degrees of freedom:
    the estimate of Var(e) is unbiased. Below four rows there are none, and the share is 1, the
    largest (conservative) value. The shift is a Gaussian kernel estimate over pairs of equal depth.
    """
    n = len(rows)
    if n < 4:
        return PairTerms(share=1.0)
    unit = largest_value(rows) if metric == "l2" else 1.0
    mean_distances = mean_distances / unit
    spread = float(np.var(mean_distances, ddof=1))
    if spread == 0:
        return PairTerms()
    size = n if n <= 2 * _BLOCK else _BLOCK
    blocks = rng.permutation(n)[: n // size * size].reshape(-1, size)[:_MAX_BLOCKS]
    mu = float(mean_distances.mean())
    additive = (n - 1) / (n - 2) * (mean_distances - mu)
    width = kernel_width(mean_distances)
    squares = shifts = 0.0
    for block in blocks:
        part = prepare(rows[block], metric, unit)
        own = additive[block]
        error = distances(part, part, metric) - mu - (own[:, None] + own[None, :])
        np.fill_diagonal(error, 0)
        squares += float((error * error).sum())
        gap = (mean_distances[block][:, None] - mean_distances[block][None, :]) / width
        kernel = np.exp(-0.5 * gap * gap)
        np.fill_diagonal(kernel, 0)
        shifts += float(((own[:, None] + error) * kernel).sum())
    pairs = len(blocks) * size * (size - 1)
    variance = squares / pairs * (n - 1) / (n - 3)
    density = shifts / (pairs * width * math.sqrt(2 * math.pi))
    return PairTerms(min(1.0, variance / (n - 1) / spread), -density / n)


def kernel_width(values: Floats) -> float:
    """Silverman's width of a Gaussian kernel."""
    deviation = float(np.std(values, ddof=1))
    lower, upper = np.quantile(values, [0.25, 0.75])
    middle = float(upper - lower) / 1.349
    scale = min(deviation, middle) if middle > 0 else deviation
    return 0.9 * scale / math.pow(len(values), 0.2)
