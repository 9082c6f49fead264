# SPDX-License-Identifier: Apache-2.0
"""The oracle of the depths against cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from oracle.depths import METRICS, covariance, directions, inverse_square_root, score

EAST, NORTH, WEST = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)
AXES = np.eye(2)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("cosine", 2 - (0 + 1 + 2) / 3),
        ("chord", 2 - (0 + math.sqrt(2) + 2) / 3),
        ("arc", math.pi - (0 + math.pi / 2 + math.pi) / 3),
    ],
)
def test_angular_depth_of_east_among_east_north_west(metric: str, expected: float) -> None:
    corpus = [EAST, (0.0, 7.0), (-0.5, 0.0)]  # lengths do not matter
    assert score([(3.0, 0.0)], corpus, metric=metric)[0] == pytest.approx(expected, abs=1e-15)


def test_l2_depth_is_one_over_one_plus_the_mean_distance() -> None:
    assert score([(0.0, 0.0)], [(3.0, 4.0), (0.0, 1.0)], metric="l2")[0] == pytest.approx(
        1 / (1 + 3)
    )


def test_spatial_depth_adds_unit_vectors_and_skips_zero_differences() -> None:
    centre = score([(0.0, 0.0)], [EAST, WEST], metric="spatial")
    outside = score([(5.0, 0.0)], [EAST, WEST], metric="spatial")
    on_a_row = score([EAST], [EAST, (9.0, 0.0)], metric="spatial")
    assert (centre[0], outside[0], on_a_row[0]) == (1.0, 0.0, 0.5)


def test_mahalanobis_depth_of_a_cross() -> None:
    cross = [(2.0, 0.0), (-2.0, 0.0), (0.0, 1.0), (0.0, -1.0)]  # S = diag(8/3, 2/3)
    depth = score([(2.0, 1.0)], cross, metric="mahalanobis")
    assert depth[0] == pytest.approx(1 / (1 + 4 * 3 / 8 + 1 * 3 / 2))
    shrunk = score([(2.0, 0.0)], cross, metric="mahalanobis", shrinkage=1.0)  # S = 5/3 I
    assert shrunk[0] == pytest.approx(1 / (1 + 4 * 3 / 5))


def test_halfspace_and_irw_are_the_minimum_and_the_mean_of_the_tails() -> None:
    corpus = [(0.0, 0.0), (1.0, 3.0), (2.0, 1.0), (3.0, 2.0)]
    # East: 1 of 4 lies at or below 0.5. North: 2 of 4 lie at or below 1.
    assert score([(0.5, 1.0)], corpus, metric="halfspace", u=AXES)[0] == 0.25
    assert score([(0.5, 1.0)], corpus, metric="irw", u=AXES)[0] == (0.25 + 0.5) / 2


def test_projection_depth_takes_the_worst_direction() -> None:
    corpus = [(0.0, 0.0), (1.0, 10.0), (2.0, 20.0)]  # medians 1 and 10, MADs 1 and 10
    assert score([(3.0, 0.0)], corpus, metric="projection", u=AXES)[0] == pytest.approx(1 / 3)


def test_ai_irw_does_not_see_a_change_of_units() -> None:
    rng = np.random.default_rng(1)
    corpus, u = rng.standard_normal((30, 3)), directions(20, 3, seed=2)
    turned = corpus * np.array([1.0, 100.0, 0.01])
    whiten = inverse_square_root(covariance(corpus, np.ones(30), 0.0))
    assert np.allclose(np.cov((corpus @ whiten).T), np.eye(3))
    plain = score(corpus[:5], corpus, metric="mahalanobis")
    assert np.allclose(plain, score(turned[:5], turned, metric="mahalanobis"))
    white = corpus @ whiten
    assert np.array_equal(
        score(white[:5], white, metric="irw", u=u), score(corpus[:5], corpus, metric="ai_irw", u=u)
    )


@pytest.mark.parametrize("metric", METRICS)
def test_leave_one_out_groups_and_weights_agree_with_taking_rows_out(metric: str) -> None:
    rng = np.random.default_rng(3)
    x, u = rng.standard_normal((8, 2)), directions(6, 2, seed=4)
    labels = np.array([0, 1, 0, 0, 1, 1, 0, 1])
    by_group = score(x, metric=metric, groups=labels, u=u, shrinkage=0.5)
    assert by_group.shape == (8, 2)
    others = [0, 3, 6]
    assert by_group[2, 0] == score(x[[2]], x[others], metric=metric, u=u, shrinkage=0.5)[0]
    assert by_group[2, 1] == score(x[[2]], x[labels == 1], metric=metric, u=u, shrinkage=0.5)[0]
    if metric != "projection":  # a median of weighted rows is not defined here
        twice = score(x[[2]], x[[0, 0, 1, 3]], metric=metric, u=u, ddof=0)[0]
        weighted = score(x[[2]], x[[0, 1, 3]], metric=metric, u=u, ddof=0, weights=[2, 1, 1])[0]
        assert weighted == pytest.approx(twice, rel=1e-12)


def test_directions_are_unit_rows() -> None:
    assert np.allclose(np.linalg.norm(directions(5, 7, seed=0), axis=1), 1)
