# SPDX-License-Identifier: Apache-2.0
"""Ordering by depth and picking examples of each class."""

from __future__ import annotations

import numpy as np
import pytest
from embedcore import depth
from hypothesis import given
from hypothesis import strategies as st
from oracle.depths import score

LINE = np.array([[0.0], [10.0], [4.0], [5.0], [7.0]])  # deepest by distance: 5, then 4, 7, 10, 0


def test_order_puts_the_deepest_row_first() -> None:
    assert depth.order(LINE, metric="l2").tolist() == [3, 2, 4, 1, 0]
    assert depth.order(LINE, metric="l2", k=2).tolist() == [3, 2]
    corpus = np.array([[9.0], [11.0]])
    assert depth.order(LINE, corpus, metric="l2").tolist() == [1, 4, 3, 2, 0]


def test_order_keeps_equal_depths_in_the_order_of_the_rows() -> None:
    rows = np.array([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    assert depth.order(rows, metric="l2").tolist() == [0, 1, 2, 3]
    assert depth.order(rows, rows[:1], metric="cosine").tolist() == [0, 2, 1, 3]


@pytest.mark.parametrize("metric", ["cosine", "arc", "spatial"])
def test_order_agrees_with_the_oracle(metric: str) -> None:
    rows = np.random.default_rng(0).standard_normal((30, 5)) + 0.3
    expected = np.argsort(-score(rows, metric=metric))
    assert depth.order(rows, metric=metric).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("strategy", "k", "expected"),
    [
        ("deepest", 2, [3, 2]),
        ("outermost", 2, [0, 1]),
        ("spread", 1, [4]),
        ("spread", 2, [3, 0]),
        ("spread", 3, [3, 4, 0]),
        ("spread", 5, [3, 2, 4, 1, 0]),
    ],
)
def test_select_within_one_class(strategy: str, k: int, expected: list[int]) -> None:
    got = depth.select(LINE, [7] * 5, k, strategy=strategy, metric="l2")
    assert got.tolist() == [expected] and got.dtype == np.int64


def test_select_gives_one_row_of_indices_per_sorted_class() -> None:
    rows = np.concatenate([LINE, LINE + 100])
    labels = np.array(["z"] * 5 + ["b"] * 5)
    got = depth.select(rows, labels, 2, metric="l2")
    assert got.tolist() == [[8, 7], [3, 2]]


def test_ties_go_to_the_lower_index() -> None:
    rows = np.ones((4, 2))
    for strategy in ("deepest", "outermost", "spread"):
        got = depth.select(rows, [0] * 4, 4, strategy=strategy, metric="l2")
        assert got.tolist() == [[0, 1, 2, 3]]


@given(n=st.integers(2, 60), k=st.integers(1, 60))
def test_spread_takes_distinct_evenly_spaced_ranks(n: int, k: int) -> None:
    if k > n:
        k = n
    rows = np.arange(1.0, n + 1)[:, None] ** 2  # no two depths in the first row are equal
    ranks = {row: rank for rank, row in enumerate(depth.order(rows, metric="l2").tolist())}
    chosen = [ranks[i] for i in depth.select(rows, [0] * n, k, strategy="spread", metric="l2")[0]]
    assert len(set(chosen)) == k and chosen == sorted(chosen)
    if k > 1:
        assert chosen[0] == 0 and chosen[-1] == n - 1
        gaps = np.diff(chosen)
        assert gaps.max() - gaps.min() <= 1


def test_select_takes_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    rows = torch.from_numpy(LINE)
    labels = torch.zeros(5, dtype=torch.int64)
    assert depth.select(rows, labels, 2, metric="l2").tolist() == [[3, 2]]
    assert depth.order(rows, metric="l2").tolist() == [3, 2, 4, 1, 0]


@pytest.mark.parametrize(
    ("labels", "k", "options", "words"),
    [
        (["a"] * 4 + ["b"], 1, {}, "each label in 'labels' must have at least 2 rows; 'b' has 1"),
        (["a", "a", "b", "b", "b"], 3, {}, "must have at least 3 rows; 'a' has 2"),
        ([0] * 4, 1, {}, "one label for each row of 'x' .5.; got shape .4,."),
        ([0] * 5, 0, {}, "'k' must be at least 1; got 0"),
        ([0] * 5, 1, {"strategy": "deep"}, "'strategy' must be one of .*did you mean 'deepest'"),
    ],
)
def test_bad_classes_and_options(
    labels: list[object], k: int, options: dict[str, str], words: str
) -> None:
    with pytest.raises(ValueError, match=r"depth\.select: .*" + words):
        depth.select(LINE, labels, k, **options)


def test_bad_k_of_order() -> None:
    with pytest.raises(ValueError, match=r"depth\.order: 'k' must be from 1 to 5; got 6"):
        depth.order(LINE, metric="l2", k=6)
    with pytest.raises(TypeError, match=r"depth\.order: 'k' must be an integer; got float"):
        depth.order(LINE, metric="l2", k=2.0)  # type: ignore[arg-type]


def test_a_bad_row_is_named_by_its_place() -> None:
    rows = np.concatenate([LINE, LINE])
    rows[8] = np.nan
    with pytest.raises(ValueError, match=r"depth\.select: .x. must be finite; row 8"):
        depth.select(rows, [0] * 5 + [1] * 5, 2, metric="l2")
