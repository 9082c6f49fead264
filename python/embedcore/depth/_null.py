# SPDX-License-Identifier: Apache-2.0
"""Null distributions of the depth rank-sum test: what Q looks like when f and g are one population.

Q = P[D(X) < D(Y)] + P[D(X) = D(Y)] / 2 over all pairs of a reference depth X (n of them) and
another depth Y (m of them). n m Q is the Mann-Whitney U of Y over X. Three null distributions of it
are here: counted, drawn by permuting mid-ranks, and normal.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EXACT_PAIRS = 10_000  # up to this n m, exact_null takes a fraction of a second
_CHUNK = 1 << 20  # numbers held at once by the permutation of mid-ranks


def quality_index(reference: Floats, other: Floats) -> float:
    """Liu-Singh Q with mid-ranks. O((n + m) log n)."""
    ordered = np.sort(reference)
    below = np.searchsorted(ordered, other, "left").sum()
    not_above = np.searchsorted(ordered, other, "right").sum()
    return float(below + not_above) / (2 * len(reference) * len(other))


def tie_counts(values: Floats) -> NDArray[np.int64]:
    """How many times each distinct value occurs."""
    return np.unique(values, return_counts=True)[1].astype(np.int64)


def standard_error(n: int, m: int, ties: NDArray[np.int64], pair_share: float = 0.0) -> float:
    """Of Q under the null hypothesis.

    ``pair_share`` 0: exact for exchangeable depths, ties included. Otherwise Var(Q) grows by
    pair_share / (12 n), the covariance that leave-one-out depths share: see ``_pairs.py``.
    """
    total = n + m
    tied = float((ties.astype(np.float64) ** 3 - ties).sum())
    kept = 1 - tied / (
        float(total) * (float(total) ** 2 - 1)
    )  # 1 without ties, 0 when all are equal
    return math.sqrt(max(0.0, kept) * ((total + 1) / m + pair_share) / (12 * n))


def normal_pvalue(z: float, alternative: str) -> float:
    """Return P[Z <= z] ("less"), P[Z >= z] ("greater") or P[|Z| >= |z|], Z standard normal."""
    if alternative == "two-sided":
        return math.erfc(abs(z) / math.sqrt(2))
    return 0.5 * math.erfc((z if alternative == "greater" else -z) / math.sqrt(2))


def combine(less: float, greater: float, alternative: str) -> float:
    """Take the tail that ``alternative`` names; two-sided: twice the smaller one, at most 1."""
    if alternative == "two-sided":
        return min(1.0, 2 * min(less, greater))
    return less if alternative == "less" else greater


def exact_null(n: int, m: int) -> Floats:
    """P[U = u] for u = 0 .. n m, without ties.

    The last of n + m ordered depths is another's with probability m / (n + m), and then it is above
    all n references: P[n, m](u) = m / (n + m) P[n, m - 1](u - n) + n / (n + m) P[n - 1, m](u).
    Adding positive numbers only, it is accurate to a few units in the last place. O((n m)^2) time,
    O(n m min(n, m)) memory.
    """
    if m > n:  # U and n m - U have the same distribution
        n, m = m, n
    size = n * m + 1
    row: list[Floats] = [np.eye(1, size)[0] for _ in range(m + 1)]  # no reference: U = 0
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            mixed = row[j] * (i / (i + j))
            mixed[i:] += row[j - 1][: size - i] * (j / (i + j))
            row[j] = mixed
    return row[m]


def _exact_pvalue(u: float, n: int, m: int, alternative: str) -> float:
    null = exact_null(n, m)
    observed = round(u)
    less, greater = float(null[: observed + 1].sum()), float(null[observed:].sum())
    return combine(min(1.0, less), min(1.0, greater), alternative)


def monte_carlo_pvalue(
    observed: float, drawn: Floats, alternative: str, tolerance: float = 1e-9
) -> float:
    """(1 + drawn values at least as extreme) / (1 + drawn values): valid at any number drawn."""
    count = len(drawn)
    less = (1 + int((drawn <= observed + tolerance).sum())) / (1 + count)
    greater = (1 + int((drawn >= observed - tolerance).sum())) / (1 + count)
    return combine(less, greater, alternative)


def mid_ranks(values: Floats) -> Floats:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, position, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    middle: Floats = (last - (counts - 1) / 2)[position.ravel()]
    return middle


def _permuted_u(ranks: Floats, n: int, draws: int, rng: np.random.Generator) -> Floats:
    total = len(ranks)
    m = total - n
    step = max(1, _CHUNK // total)
    sums = [
        rng.permuted(np.tile(ranks, (min(step, draws - start), 1)), axis=1)[:, n:].sum(axis=1)
        for start in range(0, draws, step)
    ]
    return np.concatenate(sums) - m * (m + 1) / 2


def exchangeable_pvalue(
    reference: Floats, other: Floats, alternative: str, n_resamples: int, rng: np.random.Generator
) -> float:
    """P-value for depths that are exchangeable under the null hypothesis (the sample split).

    Up to ``EXACT_PAIRS`` pairs: counted without ties, drawn by permuting the mid-ranks with ties.
    Beyond: normal, with the tie correction and a continuity correction of half a pair.
    """
    n, m = len(reference), len(other)
    pooled = np.concatenate([reference, other])
    ties = tie_counts(pooled)
    u = quality_index(reference, other) * n * m
    if n * m <= EXACT_PAIRS:
        if len(ties) == n + m:
            return _exact_pvalue(u, n, m, alternative)
        return monte_carlo_pvalue(
            u, _permuted_u(mid_ranks(pooled), n, n_resamples, rng), alternative
        )
    scale = standard_error(n, m, ties) * n * m
    if scale == 0:
        return 1.0
    less = normal_pvalue((u - n * m / 2 + 0.5) / scale, "less")
    greater = normal_pvalue((u - n * m / 2 - 0.5) / scale, "greater")
    return combine(less, greater, alternative)
