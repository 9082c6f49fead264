# SPDX-License-Identifier: Apache-2.0
"""Float64 oracle of the depth rank-sum test: every probability is counted case by case."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def quality_index(depths_f: ArrayLike, depths_g: ArrayLike) -> float:
    """Q = P[D(X) < D(Y)] + P[D(X) = D(Y)] / 2, X in f, Y in g: Liu and Singh (1993)."""
    total = 0.0
    for a, b in itertools.product(np.asarray(depths_f), np.asarray(depths_g)):
        total += 1.0 if a < b else 0.5 if a == b else 0.0
    return total / (np.size(depths_f) * np.size(depths_g))


def relabellings(depths_f: ArrayLike, depths_g: ArrayLike) -> NDArray[np.float64]:
    """Q under each of the C(n + m, n) ways to call n of the pooled depths f: the exact null."""
    pooled = np.concatenate([np.asarray(depths_f, float), np.asarray(depths_g, float)])
    values = []
    for chosen in itertools.combinations(range(len(pooled)), np.size(depths_f)):
        is_f = np.zeros(len(pooled), dtype=bool)
        is_f[list(chosen)] = True
        values.append(quality_index(pooled[is_f], pooled[~is_f]))
    return np.array(values)


def exact_pvalue(depths_f: ArrayLike, depths_g: ArrayLike, alternative: str) -> float:
    """P[Q <= q] ("less") or P[Q >= q] ("greater") under relabelling; else twice the smaller."""
    observed = quality_index(depths_f, depths_g)
    null = relabellings(depths_f, depths_g)
    less = float(np.mean(null <= observed + 1e-12))
    greater = float(np.mean(null >= observed - 1e-12))
    return {"less": less, "greater": greater, "two-sided": min(1.0, 2 * min(less, greater))}[
        alternative
    ]


def standard_error(depths_f: ArrayLike, depths_g: ArrayLike) -> float:
    """Of Q for exchangeable depths, ties included: the deviation of :func:`relabellings`."""
    n, m = np.size(depths_f), np.size(depths_g)
    total = n + m
    _, counts = np.unique(
        np.concatenate([np.ravel(depths_f), np.ravel(depths_g)]), return_counts=True
    )
    ties = sum(int(c) ** 3 - int(c) for c in counts)
    return math.sqrt((total + 1 - ties / (total * (total - 1))) / (12 * n * m))


def pair_share(distances: ArrayLike) -> float:
    """Share of Var(mean distance of a row to the others) that is the pair term of the distance.

    distance[i, j] = mu + a[i] + a[j] + e[i, j] off the diagonal, fitted by least squares with the
    design written out. The share is Var(e) / (n - 1) / Var(mean distance), and Var(e) has n (n - 3)
    / 2 degrees of freedom.
    """
    matrix = np.asarray(distances, dtype=np.float64)
    n = len(matrix)
    pairs = list(itertools.combinations(range(n), 2))
    design = np.zeros((len(pairs), n))
    for row, (i, j) in enumerate(pairs):
        design[row, i] = design[row, j] = 1.0  # mu is in the span: it is spread over the a[i]
    values = np.array([matrix[i, j] for i, j in pairs])
    fitted = design @ np.linalg.lstsq(design, values, rcond=None)[0]
    residual_variance = float(((values - fitted) ** 2).sum()) / (len(pairs) - n)
    means = (matrix.sum(axis=1) - np.diag(matrix)) / (n - 1)
    return residual_variance / (n - 1) / float(np.var(means, ddof=1))
