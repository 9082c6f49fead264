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


def fit_pairs(distances: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least squares of distance[i, j] = mu + a[i] + a[j] + e[i, j], i != j: a (sum 0) and e."""
    matrix = np.asarray(distances, dtype=np.float64)
    n = len(matrix)
    pairs = list(itertools.combinations(range(n), 2))
    design = np.zeros((len(pairs), n))
    for row, (i, j) in enumerate(pairs):
        design[row, i] = design[row, j] = 1.0  # mu is in the span: half of it is in each a[i]
    values = np.array([matrix[i, j] for i, j in pairs])
    a = np.linalg.lstsq(design, values, rcond=None)[0]
    errors = np.zeros((n, n))
    for i, j in pairs:
        errors[i, j] = errors[j, i] = matrix[i, j] - a[i] - a[j]
    return a - a.mean(), errors


def _mean_distances(distances: ArrayLike) -> NDArray[np.float64]:
    matrix = np.asarray(distances, dtype=np.float64)
    return (matrix.sum(axis=1) - np.diag(matrix)) / (len(matrix) - 1)


def pair_share(distances: ArrayLike) -> float:
    """Share of Var(mean distance of a row to the others) that is the pair term of the distance.

    The share is Var(e) / (n - 1) / Var(mean distance), and Var(e) has n (n - 3) / 2 degrees of
    freedom.
    """
    errors = fit_pairs(distances)[1]
    n = len(errors)
    residual_variance = float((errors**2).sum()) / 2 / (n * (n - 3) / 2)
    return residual_variance / (n - 1) / float(np.var(_mean_distances(distances), ddof=1))


def pair_shift(distances: ArrayLike, width: float) -> float:
    """-1/n times the mean of (a[i] + e[i, j]) phi((D[i] - D[j]) / width) / width over i != j."""
    a, errors = fit_pairs(distances)
    means, n = _mean_distances(distances), len(a)
    total = 0.0
    for i, j in itertools.permutations(range(n), 2):
        gap = (means[i] - means[j]) / width
        total += (a[i] + errors[i, j]) * math.exp(-gap * gap / 2) / math.sqrt(2 * math.pi) / width
    return -total / (n * (n - 1)) / n
