# SPDX-License-Identifier: Apache-2.0
"""All pairs of groups: equal to the tests of two samples, and corrected for their number."""

from __future__ import annotations

import numpy as np
import pytest
from embedcore import depth
from embedcore.depth import _rank_sum_matrix


def _groups() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(["b", "a", "d", "c"], [20, 35, 28, 17]))
    rows = rng.standard_normal((100, 8)) + 0.6
    rows[labels == "c"] *= 2.5
    return rows, labels


@pytest.mark.parametrize("metric", ["cosine", "arc", "l2", "spatial"])
@pytest.mark.parametrize("alternative", ["less", "greater", "two-sided"])
def test_each_entry_is_the_test_of_two_samples(metric: str, alternative: str) -> None:
    x, groups = _groups()
    result = depth.rank_sum_matrix(
        x, groups, metric=metric, alternative=alternative, method="asymptotic", correction=None
    )
    assert result.labels.tolist() == ["a", "b", "c", "d"]
    for a, one in enumerate(result.labels):
        for b, other in enumerate(result.labels):
            if a != b:
                expected = depth.rank_sum_test(
                    x[groups == one],
                    x[groups == other],
                    metric=metric,
                    alternative=alternative,
                    method="asymptotic",
                )
                got = [m[a, b] for m in (result.statistic, result.q, result.zscore, result.pvalue)]
                pair = [expected.statistic, expected.q, expected.zscore, expected.pvalue]
                assert got == pytest.approx(pair, rel=1e-5)
    assert np.array_equal(result.pvalue, result.pvalue_adjusted)


def test_the_diagonal_tests_nothing() -> None:
    result = depth.rank_sum_matrix(*_groups())
    assert np.diag(result.q).tolist() == [0.5] * 4
    assert np.diag(result.zscore).tolist() == [0.0] * 4
    assert np.diag(result.pvalue).tolist() == np.diag(result.pvalue_adjusted).tolist() == [1.0] * 4
    statistic, pvalue = result
    assert statistic is result.statistic and pvalue is result.pvalue


def test_split_builds_depths_from_half_of_each_group() -> None:
    x, groups = _groups()
    result = depth.rank_sum_matrix(x, groups, metric="spatial", seed=3)
    assert result.method == "split"
    # Group a has 35 rows: 18 are held out; group b has 20.
    assert result.statistic[0, 1] == pytest.approx(result.q[0, 1] * 18 * 20)
    assert result.statistic[0, 1] * 2 == round(result.statistic[0, 1] * 2)


def test_the_wide_group_is_found_outlying_in_all_others() -> None:
    x, groups = _groups()
    for method in ("asymptotic", "split"):
        result = depth.rank_sum_matrix(x, groups, metric="l2", method=method, alternative="less")
        assert (result.q[[0, 1, 3], 2] < 0.2).all()
        assert (result.pvalue_adjusted[[0, 1, 3], 2] < 0.05).all()


def test_tied_rows_change_the_standard_error_of_their_pairs() -> None:
    x = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 1]])
    result = depth.rank_sum_matrix(x, [0, 0, 0, 1, 1, 1], correction=None)
    # Depths in group 0: 2, 2, 2 of its own, 1, 1, 1 of group 1.
    assert result.q.tolist() == [[0.5, 0.0], [0.0, 0.5]]
    assert np.isfinite(result.zscore).all() and (result.pvalue[[0, 1], [1, 0]] < 0.1).all()


def test_corrections_of_hand_computed_cases() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.5])
    adjust = _rank_sum_matrix.adjust
    assert adjust(p, None).tolist() == p.tolist()
    assert adjust(p, "bonferroni").tolist() == pytest.approx([0.04, 0.16, 0.12, 1.0])
    assert adjust(p, "holm").tolist() == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert adjust(p, "fdr_bh").tolist() == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])


def test_benjamini_hochberg_matches_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    p = np.random.default_rng(1).random(50) ** 3
    assert np.allclose(_rank_sum_matrix.adjust(p, "fdr_bh"), stats.false_discovery_control(p))


def test_corrections_are_ordered() -> None:
    x, groups = _groups()
    raw, bh, holm, bonferroni = (
        depth.rank_sum_matrix(x, groups, correction=c).pvalue_adjusted
        for c in (None, "fdr_bh", "holm", "bonferroni")
    )
    assert (raw <= bh).all() and (bh <= holm + 1e-15).all() and (holm <= bonferroni).all()


@pytest.mark.parametrize(
    ("groups", "options", "words"),
    [
        ([0] * 50, {}, "one label for each row of 'x' .100.; got shape .50,."),
        ([0] * 100, {}, "'groups' must name at least 2 groups; got 1"),
        ([0] * 99 + [1], {}, "each label in 'groups' must have at least 2 rows; 1 has 1"),
        ([0] * 97 + [1] * 3, {"method": "split"}, "must have at least 4 rows; 1 has 3"),
        ([0, 1] * 50, {"correction": "hol"}, "'correction' must be one of .*did you mean 'holm'"),
        ([0, 1] * 50, {"method": "permutation"}, "'method' must be one of 'auto', 'asymptotic'"),
        ([0, 1] * 50, {"metric": "chrod"}, "'metric' must be one of .*did you mean 'chord'"),
    ],
)
def test_bad_groups_and_options(groups: list[int], options: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=r"depth\.rank_sum_matrix: .*" + words):
        depth.rank_sum_matrix(_groups()[0], groups, **options)


def test_groups_must_be_integers_or_strings() -> None:
    with pytest.raises(TypeError, match="'groups' must hold integers or strings; got dtype fl"):
        depth.rank_sum_matrix(_groups()[0], np.zeros(100))


@pytest.mark.parametrize("method", ["asymptotic", "split"])
def test_a_bad_row_is_named_by_its_place(method: str) -> None:
    x, groups = _groups()
    x[71, 2] = np.inf
    with pytest.raises(ValueError, match=r"rank_sum_matrix: .x. must be finite; row 71"):
        depth.rank_sum_matrix(x, groups, method=method)
