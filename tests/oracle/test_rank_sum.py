# SPDX-License-Identifier: Apache-2.0
"""The oracle of the rank-sum test against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from oracle.rank_sum import (
    exact_pvalue,
    fit_pairs,
    pair_share,
    pair_shift,
    quality_index,
    relabellings,
    standard_error,
)


def test_quality_index_counts_pairs_and_half_of_the_ties() -> None:
    # (1,2) yes, (1,0) no, (2,2) half, (2,0) no
    assert quality_index([1, 2], [2, 0]) == 1.5 / 4
    assert quality_index([3, 3, 3], [3, 3]) == 0.5
    assert quality_index([5, 6], [1, 2, 3]) == 0.0


def test_relabellings_of_three_numbers() -> None:
    # one of {1, 2, 3} is f: Q = 1, 1/2, 0
    assert sorted(relabellings([1], [2, 3])) == [0.0, 0.5, 1.0]
    assert exact_pvalue([1], [2, 3], "greater") == pytest.approx(1 / 3)
    assert exact_pvalue([1], [2, 3], "less") == 1.0
    assert exact_pvalue([1], [2, 3], "two-sided") == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "depths", [([1, 4, 2], [3, 5]), ([1, 1, 2], [2, 2]), ([0, 0, 0, 1], [1, 2, 2])]
)
def test_standard_error_is_that_of_all_relabellings(depths: tuple[list[int], list[int]]) -> None:
    assert standard_error(*depths) == pytest.approx(float(np.std(relabellings(*depths))))


def test_pair_share_of_an_additive_table_is_zero() -> None:
    a = np.array([0.0, 1.0, 3.0, 7.0, 8.0])
    assert pair_share(a[:, None] + a[None, :]) == pytest.approx(0.0, abs=1e-20)


def test_pair_share_of_independent_distances_is_near_one() -> None:
    rng = np.random.default_rng(0)
    table = np.triu(rng.standard_normal((60, 60)), 1)
    assert pair_share(table + table.T) == pytest.approx(
        1.0, abs=0.4
    )  # sd of a variance of 60: 0.18


def test_fit_of_pairs_by_hand() -> None:
    # e adds to 0 in each row; the mean distances are 1/3, 1, 1, 5/3.
    a = np.array([-1.0, 0, 0, 1])
    e = np.array([[0, 1, -1, 0], [1, 0, 0, -1], [-1, 0, 0, 1], [0, -1, 1, 0]], dtype=float)
    fitted, errors = fit_pairs(1 + a[:, None] + a[None, :] + e)
    assert np.allclose(fitted, a) and np.allclose(errors, e)
    # A kernel so wide that all pairs weigh the same: a and e add to 0.
    assert pair_shift(1 + a[:, None] + a[None, :] + e, 1e9) == pytest.approx(0, abs=1e-20)
    # A kernel so narrow that only rows 1 and 2, equally deep, count: a = e = 0 there.
    assert pair_shift(1 + a[:, None] + a[None, :] + e, 0.01) == pytest.approx(0, abs=1e-12)


def test_pair_shift_of_equally_deep_rows() -> None:
    e = np.array([[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]]) - 2 / 3
    np.fill_diagonal(e, 0)
    table = 5 + e  # all a are 0, all mean distances are equal, the errors add to 0
    assert pair_shift(table, 1.0) == pytest.approx(0, abs=1e-15)
    assert np.allclose(fit_pairs(table)[1], e)
