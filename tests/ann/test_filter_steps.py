# SPDX-License-Identifier: Apache-2.0
"""Filters as steps over a stack of bits, which a GPU runs: few bits, whatever the nesting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embedcore import ann
from oracle.ann import Tree
from support.ann import expression

ROWS = 60
PUSH_FALSE, PUSH_TRUE, NOT, AND, OR = range(5)
PUSH_INTERVAL = 9


@pytest.fixture(scope="module")
def table() -> Any:
    index = ann.Index(2, metric="l2")
    index.add(np.zeros((ROWS, 2), np.float32), attributes={"rank": range(ROWS)})
    return index._state.table


def run(table: Any, tree: Tree) -> tuple[list[int], int]:
    """Return the rows that pass a filter over `rank`, and how high the stack gets."""
    steps, starts, constants = table.steps([expression(tree)._program])
    assert starts.tolist() == [0, len(steps)] and len(constants) == 0
    ranks = np.arange(ROWS)
    stack: list[Any] = []
    highest = 0
    for kind, column, low, high in steps.tolist():
        assert column == 0
        if kind == NOT:
            stack.append(~stack.pop())
        elif kind in (AND, OR):
            top, below = stack.pop(), stack.pop()
            stack.append(top & below if kind == AND else top | below)
        elif kind in (PUSH_FALSE, PUSH_TRUE):
            stack.append(np.full(ROWS, kind == PUSH_TRUE))
        else:
            assert kind == PUSH_INTERVAL
            stack.append((low <= ranks) & (ranks <= high))
        highest = max(highest, len(stack))
    assert len(stack) == 1
    return np.flatnonzero(stack[0]).tolist(), highest


def balanced(levels: int, number: int = 0) -> Tree:
    if levels == 0:
        return ("==", "rank", number % ROWS)
    name = "or" if levels % 2 else "and"
    return (
        name,
        balanced(levels - 1, 2 * number),
        ("not", balanced(levels - 1, 2 * number + 1)),
    )


def passing(tree: Tree, rank: int) -> bool:
    name, *rest = tree
    if name == "not":
        return not passing(rest[0], rank)
    if name in ("and", "or"):
        return (all if name == "and" else any)(passing(part, rank) for part in rest)
    return rank == rest[1] if name == "==" else rank < rest[1]


@pytest.mark.parametrize("side", ["left", "right"])
def test_filters_nested_to_one_side_take_two_bits(table: Any, side: str) -> None:
    tree: Tree = ("<", "rank", 7)
    for level in range(190):
        other = ("<", "rank", ROWS if level % 2 else 0)
        parts = (tree, other) if side == "left" else (other, tree)
        tree = ("and" if level % 2 else "or", *parts)
    assert run(table, tree) == (list(range(7)), 2)


def test_balanced_filters_take_a_bit_for_each_level(table: Any) -> None:
    tree = balanced(7)
    rows, highest = run(table, tree)
    assert rows == [rank for rank in range(ROWS) if passing(tree, rank)]
    assert highest == 8


def test_programs_and_constants_stand_one_behind_the_other(table: Any) -> None:
    programs = [
        expression(("isin", "rank", [5, 1, 9]))._program,
        expression(("<", "rank", 3))._program,
        expression(("isin", "rank", [2, 8]))._program,
    ]
    steps, starts, constants = table.steps(programs)
    assert starts.tolist() == [0, 1, 2, 3]
    assert constants.tolist() == [1, 5, 9, 2, 8]
    assert steps[[0, 2], 2:].tolist() == [[0, 3], [3, 5]]


def test_what_is_no_program_is_refused(table: Any) -> None:
    with pytest.raises(TypeError, match="programs must be a list of bytes"):
        table.steps(b"")
    with pytest.raises(ValueError, match="the bytes of the filter are malformed"):
        table.steps([b"\x63"])
