# SPDX-License-Identifier: Apache-2.0
"""The depth rank-sum test between all pairs of groups, from one call of score."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import is_torch, to_numpy
from .._check import choose, integer
from ._labels import members_of
from ._metrics import METRICS
from ._null import Floats, combine, normal_pvalue, standard_error, tie_counts
from ._pairs import MEAN_DISTANCE, PairTerms, pair_terms
from ._rank_sum import ALTERNATIVES, SPLIT_ROWS, float64, split_rows
from ._score import score
from ._subset import errors_of, rows_numbered_in

METHODS = ("auto", "asymptotic", "split")
CORRECTIONS = ("holm", "bonferroni", "fdr_bh")

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RankSumMatrixResult:
    """Result of :func:`rank_sum_matrix`; unpacks into ``statistic, pvalue``.

    Attributes
    ----------
    q : ndarray, float64, shape (G, G)
        ``q[a, b]`` is Liu-Singh Q with group a as the reference: P[a row of a is less deep in a
        than a row of b], ties counted one half. Below 1/2: group b is the more outlying one. The
        diagonal is 1/2.
    statistic : ndarray, float64, shape (G, G)
        ``q`` times the number of pairs of rows that were compared.
    zscore : ndarray, float64, shape (G, G)
        (q - E[q]) over its standard error, both under the null hypothesis, as in
        :func:`rank_sum_test`. The diagonal is 0.
    pvalue, pvalue_adjusted : ndarray, float64, shape (G, G)
        As computed, and corrected for all G (G - 1) tests. The diagonal is 1: nothing is tested
        there.
    labels : ndarray, shape (G,)
        The groups, in the order of the rows and columns.
    method : str
        The method used, never ``"auto"``.
    """

    q: Floats
    statistic: Floats
    zscore: Floats
    pvalue: Floats
    pvalue_adjusted: Floats
    labels: NDArray[Any]
    method: str

    def __iter__(self) -> Iterator[Floats]:
        return iter((self.statistic, self.pvalue))


def rank_sum_matrix(
    x: Any,
    groups: Any,
    *,
    metric: str = "cosine",
    alternative: str = "two-sided",
    method: str = "auto",
    correction: str | None = "holm",
    seed: int = 0,
    precision: str = "float32",
    n_directions: int = 1000,
    shrinkage: float | str = "auto",
    threads: int | None = None,
) -> RankSumMatrixResult:
    """Test all ordered pairs of groups with the depth rank-sum test, in one call of :func:`score`.

    Parameters
    ----------
    x : array, shape (n, d)
        The rows of all groups.
    groups : array of integers or strings, shape (n,)
        The group of each row.
    metric : str
        The depth, see :func:`score`.
    alternative : {"two-sided", "less", "greater"}
        About ``q[a, b]``, as in :func:`rank_sum_test`. "less": q < 1/2, group b is the more
        outlying one.
    method : {"auto", "asymptotic", "split"}
        "asymptotic": as in :func:`rank_sum_test`. "split": a seeded random half of each group
        builds its depth, the other half is compared; normal with tie and continuity correction.
        "auto": "asymptotic" for cosine, chord, arc and l2, "split" for other metrics. For groups of
        fewer than 10 rows use :func:`rank_sum_test`, which can permute.
    correction : {"holm", "bonferroni", "fdr_bh"} or None
        For all G (G - 1) tests. "holm" and "bonferroni" bound the chance of any false positive;
        "fdr_bh" (Benjamini-Hochberg) bounds the expected share of false ones among the positives.
        ``None``: as is.
    seed, precision, n_directions, shrinkage, threads
        As in :func:`rank_sum_test`.

    Returns
    -------
    RankSumMatrixResult
        `q`, `statistic`, `zscore`, `pvalue`, `pvalue_adjusted` (each (G, G)), `labels`, `method`.

    Raises
    ------
    TypeError, ValueError
        Bad rows (see :func:`score`), unknown names, fewer than two groups, a group of fewer than
        two rows (four for "split").

    Notes
    -----
    Cost: :func:`score` of n rows in G groups, then O(G n log n), and O(64 n d) for "asymptotic".
    ``q[a, b]`` and ``q[b, a]`` are different tests, in the depth of a and in that of b: their sum
    need not be 1.
    """
    where = "depth.rank_sum_matrix"
    choose(where, "metric", metric, METRICS)
    choose(where, "alternative", alternative, ALTERNATIVES)
    choose(where, "method", method, METHODS)
    if correction is not None:
        choose(where, "correction", correction, CORRECTIONS)
    seed = integer(where, "seed", seed, minimum=0)
    if method == "auto":
        method = "asymptotic" if metric in MEAN_DISTANCE else "split"
    x = x if is_torch(x) else to_numpy(x, where, "x")
    if x.ndim != 2:
        raise ValueError(f"{where}: 'x' must be two-dimensional; got shape {tuple(x.shape)}.")
    least = SPLIT_ROWS if method == "split" else 2
    labels, members = members_of(where, "groups", groups, len(x), least)
    if len(labels) < 2:
        raise ValueError(f"{where}: 'groups' must name at least 2 groups; got {len(labels)}.")
    options: dict[str, Any] = {
        "metric": metric,
        "precision": precision,
        "n_directions": n_directions,
        "shrinkage": shrinkage,
        "seed": seed,
        "threads": threads,
    }
    rng = np.random.default_rng(seed)
    take_depths = _split_depths if method == "split" else _left_out_depths
    with errors_of(where, corpus="x"):
        depths, compared, terms = take_depths(x, members, options, rng)
    q, pairs, errors = _compare(depths, compared, terms, members)
    gap = q - 0.5 - np.array([term.shift for term in terms])[:, None]
    off = ~np.eye(len(labels), dtype=bool)
    zscore = np.divide(gap, errors, out=np.zeros_like(q), where=off & (errors > 0))
    pvalue, adjusted = np.ones_like(q), np.ones_like(q)
    half_pair = 0.5 / pairs if method == "split" else np.zeros_like(pairs)
    for a, b in np.argwhere(off & (errors > 0)):
        pvalue[a, b] = _pvalue(gap[a, b], errors[a, b], half_pair[a, b], alternative)
    adjusted[off] = adjust(pvalue[off], correction)
    statistic = np.rint(2 * q * pairs) / 2  # whole pairs and halves
    return RankSumMatrixResult(q, statistic, zscore, pvalue, adjusted, labels, method)


# Depths of all rows in each group, which rows stand for their group as a reference, and what pairs
# of rows do in each group.
_Depths = tuple[Floats, NDArray[np.bool_], list[PairTerms]]


def _left_out_depths(
    x: Any, members: list[Rows], options: dict[str, Any], rng: np.random.Generator
) -> _Depths:
    depths = float64(score(x, groups=_codes(members, len(x)), **options))
    terms = [PairTerms()] * len(members)
    metric = options["metric"]
    if metric in MEAN_DISTANCE:
        rows = to_numpy(x)
        for a, own in enumerate(members):
            means = MEAN_DISTANCE[metric](depths[own, a])
            terms[a] = pair_terms(rows[own], means, metric, rng)
    return depths, np.ones(len(x), dtype=bool), terms


def _split_depths(
    x: Any, members: list[Rows], options: dict[str, Any], rng: np.random.Generator
) -> _Depths:
    """Let a random half of each group build its depths and the other half stand for it."""
    builders = np.sort(np.concatenate([own[split_rows(len(own), rng)[0]] for own in members]))
    group = _codes(members, len(x))[builders]
    with rows_numbered_in(x, options["metric"]):
        depths = float64(score(x, x[builders], groups=group, **options))
    held_out = np.ones(len(x), dtype=bool)
    held_out[builders] = False
    return depths, held_out, [PairTerms()] * len(members)


def _codes(members: list[Rows], count: int) -> Rows:
    codes = np.empty(count, dtype=np.int64)
    for a, own in enumerate(members):
        codes[own] = a
    return codes


def _compare(
    depths: Floats, compared: NDArray[np.bool_], terms: list[PairTerms], members: list[Rows]
) -> tuple[Floats, Floats, Floats]:
    """Q, numbers of pairs and standard errors of Q; each group's compared rows as reference."""
    count = len(members)
    q, pairs, errors = np.empty((3, count, count))
    for a, own in enumerate(members):
        column = depths[:, a]
        reference = np.sort(column[own[compared[own]]])
        n = len(reference)
        below = np.searchsorted(reference, column, "left")
        twice = below + np.searchsorted(reference, column, "right")
        tied = len(np.unique(column)) < len(column)
        for b, other in enumerate(members):
            m = len(other)
            values = np.concatenate([reference, column[other]]) if tied else column[:0]
            q[a, b], pairs[a, b] = twice[other].sum() / (2 * n * m), n * m
            errors[a, b] = standard_error(n, m, tie_counts(values), terms[a].share)
        q[a, a], pairs[a, a] = 0.5, n * n
    return q, pairs, errors


def _pvalue(gap: float, error: float, half_pair: float, alternative: str) -> float:
    less = normal_pvalue((gap + half_pair) / error, "less")
    greater = normal_pvalue((gap - half_pair) / error, "greater")
    return combine(less, greater, alternative)


def adjust(pvalues: Floats, correction: str | None) -> Floats:
    """Correct p-values for their number: Holm (1979), Bonferroni, Benjamini and Hochberg (1995)."""
    count = len(pvalues)
    if correction is None:
        return pvalues.copy()
    if correction == "bonferroni":
        return np.asarray(np.minimum(1.0, pvalues * count))
    order = np.argsort(pvalues, kind="stable")
    rank = np.arange(1, count + 1)
    if correction == "holm":
        stepped = np.maximum.accumulate(pvalues[order] * (count + 1 - rank))
    else:
        stepped = np.minimum.accumulate((pvalues[order] * count / rank)[::-1])[::-1]
    result = np.empty(count)
    result[order] = np.minimum(1.0, stepped)
    return result
