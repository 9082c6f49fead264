# SPDX-License-Identifier: Apache-2.0
"""The oracle of filtered search against cases worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from oracle.ann import METRICS, Table, distance, distance_matrix, merge, passes, recall

ROW = {
    "year": 2020,
    "score": math.nan,
    "kind": "paper",
    "topics": frozenset({"nlp", "law"}),
    "none": frozenset(),
    "day": np.datetime64("2024-02-29"),
    "draft": None,
}


def test_distances_by_hand() -> None:
    assert distance([3, 4], [3, 0], "cosine") == pytest.approx(1 - 0.6)
    assert distance([3, 4], [-6, -8], "cosine") == pytest.approx(2)
    assert distance([3, 4], [1, 2], "ip") == -11
    assert distance([3, 4], [0, 0], "l2") == 5
    assert distance([1e8, 1], [1e8, 0], "l2") == 1


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("columns", [7, 5])
def test_the_matrix_of_distances(metric: str, columns: int) -> None:
    rng = np.random.default_rng(0)
    queries, rows = rng.standard_normal((3, columns)), rng.standard_normal((4, 7)) + 100
    expected = [[distance(q, x, metric) for x in rows] for q in queries]
    np.testing.assert_allclose(
        distance_matrix(queries, rows, metric), expected, rtol=1e-13, atol=1e-13
    )


def test_a_prefix_of_the_dimensions() -> None:
    assert distance([3, 4], [3, 4, 100], "l2") == 0
    assert distance([1], [5, 9], "cosine") == 0


@pytest.mark.parametrize(
    "tree",
    [
        ("==", "year", 2020),
        ("!=", "year", 2021),
        ("<", "year", 2020.5),
        ("<=", "year", 2020),
        (">", "year", 2019),
        (">=", "year", 2020),
        ("between", "year", 2020, 2020),
        ("isin", "year", [1, 2020]),
        ("==", "kind", "paper"),
        ("contains", "topics", "nlp"),
        ("contains_any", "topics", ["art", "law"]),
        ("contains_all", "topics", ["nlp", "law"]),
        ("contains_all", "topics", []),
        ("contains_all", "none", []),
        (">", "day", np.datetime64("2024-02-28")),
        ("is_null", "score"),
        ("is_null", "draft"),
        ("is_null", "never given"),
        ("!=", "draft", True),
        ("!=", "score", 1.0),
        ("not", ("<", "score", 1.0)),
        ("not", ("contains", "never given", "nlp")),
        ("and", ("==", "kind", "paper"), ("not", ("==", "year", 1))),
        ("or", ("==", "kind", "book"), (">", "year", 2000)),
        ("not", ("or", ("==", "kind", "book"), ("==", "year", 1))),
    ],
)
def test_a_row_passes(tree: Any) -> None:
    assert passes(tree, ROW)
    assert not passes(("not", tree), ROW)


@pytest.mark.parametrize(
    "tree",
    [
        ("==", "score", math.nan),
        ("<", "score", 1.0),
        (">=", "score", 1.0),
        ("isin", "draft", [None]),
        ("isin", "year", []),
        ("between", "year", 2021, 2019),
        ("contains", "none", "nlp"),
        ("contains_any", "topics", []),
        ("contains_all", "draft", []),
        ("is_null", "none"),
        ("is_null", "year"),
    ],
)
def test_a_row_does_not_pass(tree: Any) -> None:
    assert not passes(tree, ROW)
    assert passes(("not", tree), ROW)


def test_search_by_hand() -> None:
    table = Table("l2")
    table.add(
        np.array([[0.0], [2.0], [-1.0], [1.0]]), attributes={"even": [True, True, False, None]}
    )
    assert table.search([0.0], 3) == [(0.0, 0), (1.0, 2), (1.0, 3)]  # a tie: the smaller id
    assert table.search([0.0], 9, ("==", "even", True)) == [(0.0, 0), (2.0, 1)]
    assert table.search([0.0], 1, [3, 2, 99]) == [(1.0, 2)]
    assert table.search([0.0], 0) == []
    assert table.count(("not", ("==", "even", True))) == 2


def test_changes_by_hand() -> None:
    table = Table("ip")
    assert table.add(np.ones((2, 1)), attributes={"a": [1, 2]}) == [0, 1]
    assert table.add(np.ones((1, 1)), ids=[7], attributes={"b": [3]}) == [7]
    before = table.copy()
    table.delete([1])
    assert table.add(np.ones((1, 1))) == [8]
    table.upsert(np.full((2, 1), 2.0), [0, 5], {"b": [4, 5]})
    table.update_attributes([7], {"a": [9]})
    assert table.rows == {0: {"b": 4}, 7: {"a": 9, "b": 3}, 8: {}, 5: {"b": 5}}
    assert list(table.rows) == list(table.vectors) == [0, 7, 8, 5]
    assert table.search([1.0], 2) == [(-2.0, 0), (-2.0, 5)]
    assert before.rows == {0: {"a": 1}, 1: {"a": 2}, 7: {"b": 3}} and before.next_id == 8


def test_merge_and_recall() -> None:
    assert merge([[(0.5, 1), (0.7, 2)], [(0.5, 0)], []], 2) == [(0.5, 0), (0.5, 1)]
    assert recall([1, 2, -1], [2, 3]) == 0.5
    assert recall([-1], []) == 1.0
