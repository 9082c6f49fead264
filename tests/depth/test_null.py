# SPDX-License-Identifier: Apache-2.0
"""Null distributions of the rank-sum test against counting every relabelling."""

from __future__ import annotations

import math

import numpy as np
import pytest
from embedcore.depth import _null, _pairs, _permutation
from oracle import rank_sum as oracle

ALTERNATIVES = ("less", "greater", "two-sided")
TIED = (np.array([1.0, 1, 2, 2, 2]), np.array([2.0, 2, 3, 1]))
DISTINCT = (np.array([0.1, 0.5, 0.7, 1.9]), np.array([0.2, 0.9, 1.1, 2.0, 2.5]))


@pytest.mark.parametrize("samples", [TIED, DISTINCT], ids=["tied", "distinct"])
def test_quality_index_and_standard_error_match_the_oracle(
    samples: tuple[np.ndarray, np.ndarray],
) -> None:
    n, m = map(len, samples)
    ties = _null.tie_counts(np.concatenate(samples))
    assert _null.quality_index(*samples) == oracle.quality_index(*samples)
    expected = oracle.standard_error(*samples)
    assert _null.standard_error(n, m, ties) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (3, 2), (2, 5), (4, 4)])
def test_exact_null_is_the_distribution_over_relabellings(n: int, m: int) -> None:
    values = np.arange(n + m, dtype=float)
    counts = np.rint(oracle.relabellings(values[:n], values[n:]) * n * m).astype(int)
    expected = np.bincount(counts, minlength=n * m + 1) / len(counts)
    assert np.allclose(_null.exact_null(n, m), expected, rtol=1e-14, atol=0)


def test_exact_null_of_a_hundred_by_a_hundred_adds_up_and_has_the_right_variance() -> None:
    null = _null.exact_null(100, 100)
    u = np.arange(10_001)
    assert null.sum() == pytest.approx(1, abs=1e-12)
    assert null @ u == pytest.approx(5000, rel=1e-12)
    assert null @ (u - 5000.0) ** 2 == pytest.approx(100 * 100 * 201 / 12, rel=1e-12)


@pytest.mark.parametrize("alternative", ALTERNATIVES)
def test_exchangeable_pvalue_is_exact_without_ties(alternative: str) -> None:
    rng = np.random.default_rng(0)
    got = _null.exchangeable_pvalue(*DISTINCT, alternative, 9, rng)
    assert got == pytest.approx(oracle.exact_pvalue(*DISTINCT, alternative), rel=1e-12)


@pytest.mark.parametrize("alternative", ALTERNATIVES)
def test_exchangeable_pvalue_with_ties_draws_the_exact_distribution(alternative: str) -> None:
    draws = 40_000
    got = _null.exchangeable_pvalue(*TIED, alternative, draws, np.random.default_rng(0))
    expected = oracle.exact_pvalue(*TIED, alternative)
    # Five standard errors of a share; a two-sided p-value is twice one.
    assert got == pytest.approx(expected, abs=5 * 2 * 0.5 / math.sqrt(draws))


@pytest.mark.parametrize("alternative", ALTERNATIVES)
def test_exchangeable_pvalue_of_many_pairs_matches_scipy(alternative: str) -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    a, b = np.round(rng.standard_normal(150), 1), np.round(rng.standard_normal(90) + 0.2, 1)
    got = _null.exchangeable_pvalue(a, b, alternative, 9, rng)
    expected = stats.mannwhitneyu(b, a, alternative=alternative, method="asymptotic").pvalue
    assert got == pytest.approx(expected, rel=1e-12)


def test_equal_depths_give_a_pvalue_of_one() -> None:
    rng = np.random.default_rng(2)
    assert _null.exchangeable_pvalue(np.ones(200), np.ones(300), "two-sided", 9, rng) == 1.0
    assert _null.exchangeable_pvalue(np.ones(5), np.ones(3), "less", 9, rng) == 1.0


@pytest.mark.parametrize("z", [-3.0, -0.5, 0.0, 1.2])
def test_normal_pvalue_matches_scipy(z: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert _null.normal_pvalue(z, "less") == pytest.approx(stats.norm.cdf(z), rel=1e-14)
    assert _null.normal_pvalue(z, "greater") == pytest.approx(stats.norm.sf(z), rel=1e-14)
    assert _null.normal_pvalue(z, "two-sided") == pytest.approx(2 * stats.norm.sf(abs(z)))


def test_mid_ranks() -> None:
    assert _null.mid_ranks(np.array([5.0, 1, 5, 3])).tolist() == [3.5, 1, 3.5, 2]


def _distance_table(rows: np.ndarray, metric: str) -> np.ndarray:
    prepared = _pairs.prepare(rows, metric, 1.0)
    table = _pairs.distances(prepared, prepared, metric)
    np.fill_diagonal(table, 0)
    return table


@pytest.mark.parametrize("metric", ["cosine", "chord", "arc", "l2"])
def test_distances_and_their_means_match_the_depth(metric: str) -> None:
    from oracle.depths import score

    rows = np.random.default_rng(3).standard_normal((7, 5))
    means = _distance_table(rows, metric).sum(axis=1) / 6
    depths = score(rows, metric=metric)
    assert np.allclose(_pairs.MEAN_DISTANCE[metric](depths), means, rtol=1e-12)


@pytest.mark.parametrize("metric", ["cosine", "chord", "arc", "l2"])
def test_pair_terms_of_all_pairs_match_the_oracle(metric: str) -> None:
    rows = np.random.default_rng(4).standard_normal((30, 6)) + 0.3
    table = _distance_table(rows, metric)
    means = table.sum(axis=1) / 29
    got = _pairs.pair_terms(rows, means, metric, np.random.default_rng(0))
    assert got.share == pytest.approx(min(1.0, oracle.pair_share(table)), rel=1e-9)
    shift = oracle.pair_shift(table, _pairs.kernel_width(means))
    assert got.shift == pytest.approx(shift, rel=1e-9)


def test_pair_terms_of_sampled_pairs_are_near_those_of_all_pairs() -> None:
    rows = np.random.default_rng(5).standard_normal((200, 20)) + 0.4
    table = _distance_table(rows, "cosine")
    means = table.sum(axis=1) / 199
    got = _pairs.pair_terms(rows, means, "cosine", np.random.default_rng(0))
    assert got.share == pytest.approx(oracle.pair_share(table), rel=0.1)  # 6,000 of 20,000 pairs
    shift = oracle.pair_shift(table, _pairs.kernel_width(means))
    assert got.shift == pytest.approx(shift, abs=0.3 / 200)  # a few hundredths of an error of Q


def test_pair_terms_at_the_edges() -> None:
    rng = np.random.default_rng(6)
    assert _pairs.pair_terms(np.eye(3), np.array([1.0, 2, 3]), "l2", rng) == (1.0, 0.0)
    assert _pairs.pair_terms(np.ones((5, 2)), np.zeros(5), "l2", rng) == (0.0, 0.0)
    means = np.array([1.0, 2, 2, 2, 2, 2, 3])  # the middle half is tied
    assert _pairs.kernel_width(means) == pytest.approx(0.9 * means.std(ddof=1) * 7**-0.2)


@pytest.mark.parametrize("metric", ["cosine", "chord", "arc", "l2"])
def test_permuted_quality_recomputes_the_depths_of_each_labelling(metric: str) -> None:
    from oracle.depths import score

    rows = np.random.default_rng(7).standard_normal((9, 4))
    seen: list[np.ndarray] = list(
        np.concatenate(list(_permutation._labellings(9, 4, 6, np.random.default_rng(8))))
    )
    expected = [
        oracle.quality_index(
            score(rows[flags], metric=metric), score(rows[~flags], rows[flags], metric=metric)
        )
        for flags in seen
    ]
    observed, drawn = _permutation.permuted_quality(
        rows, 4, metric, 6, np.random.default_rng(8), lambda a, b: (a[:, 0], b[:, 0])
    )
    assert seen[0].tolist() == [True] * 4 + [False] * 5
    assert [observed, *drawn] == pytest.approx(expected)


def test_permuted_quality_counts_ties_by_halves() -> None:
    flags = np.array([[True, True, False, False], [True, False, True, False]])
    depths = np.array([[1.0, 2, 2, 3], [4.0, 1, 2, 3]])
    # (1,2) (1,3) (2,3) yes, (2,2) half; then f is 4 and 2, g is 1 and 3: only (2,3) yes
    assert _permutation._quality_of_each(depths, flags).tolist() == [3.5 / 4, 1 / 4]
