# SPDX-License-Identifier: Apache-2.0
"""The native kernels against the oracle: sizes at the seams, every option, every dtype and thread.

Each test runs one problem on one instruction set with 1, 2 and 7 threads; bits must not differ.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from support.attention import (
    MASKINGS,
    Problem,
    expected_of,
    make_problem,
    native_backward,
    native_forward,
)
from support.attention_limits import check, limits

Array = np.ndarray[Any, Any]

# (sequences, tokens, heads, columns): each size in turn at its seams.
COLUMNS = [(2, 9, 3, d) for d in (*range(1, 10), 15, 16, 17, 31, 32, 33, 63, 64, 65)]
WIDE = [(2, 5, 4, d) for d in (383, 384, 385, 767, 768, 769)]
HEADS = [(2, 19, m, 20) for m in (*range(1, 10), 15, 16, 17, 31, 32, 33, 70)]
TOKENS = [(3, n, 5, 24) for n in (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129)]
LONG = [(2, 300, 4, 33), (1, 1500, 2, 9), (1, 1025, 17, 40), (9, 40, 8, 16)]
SHAPES = [*COLUMNS, *WIDE, *HEADS, *TOKENS, *LONG]


class Case(NamedTuple):
    problem: Problem
    grad_out: Array
    grad_lse: Array
    forward: dict[str, Array]
    gradients: dict[str, Array]
    allowed: dict[str, float]


def options_of(seed: int, columns: int) -> dict[str, Any]:
    """A draw of every option."""
    rng = np.random.default_rng(seed)
    return {
        "seed": seed,
        "value_columns": rng.choice([None, columns, columns + 3]),
        "masking": rng.choice(MASKINGS),
        "query": rng.choice(["shared", "own"]),
        "bias": rng.choice(["none", "heads", "tokens", "both"]),
        "temperature": rng.choice(["number", "heads", "sequences", "both"]),
        "activation": rng.choice([None, "tanh"]),
        "norm": rng.choice([None, "l2"]),
    }


def solve(problem: Problem, seed: int) -> Case:
    rng = np.random.default_rng(seed + 1)
    grad_out = rng.standard_normal(problem.out_shape).astype(problem.key.dtype)
    grad_lse = rng.standard_normal(problem.out_shape[:2]).astype(problem.real)
    forward, gradients = expected_of(problem, grad_out, grad_lse)
    both = {**forward, **gradients}
    allowed = limits(problem, both, grad_out, grad_lse)
    return Case(problem, grad_out, grad_lse, forward, gradients, allowed)


@cache
def case(shape: tuple[int, int, int, int], dtype: str) -> Case:
    seed = 100 * SHAPES.index(shape)
    return solve(make_problem(*shape, dtype, **options_of(seed, shape[-1])), seed)


@cache
def option_case(activation: str | None, norm: str | None, masking: str, own: bool) -> Case:
    problem = make_problem(
        3,
        70,
        6,
        21,
        masking=masking,
        activation=activation,
        norm=norm,
        value_columns=None if own else 13,
        bias="both",
        temperature="both",
        query="own" if own else "shared",
    )
    return solve(problem, 0)


def run(c: Case) -> None:
    """Check forward and backward, and that threads do not show in the bits."""
    seen = set()
    for threads in (1, 2, 7):
        saved = native_forward(c.problem, threads)
        gradients = native_backward(c.problem, saved, c.grad_out, c.grad_lse, threads)
        if threads == 1:
            check(c.problem, saved, c.forward, c.allowed)
            check(c.problem, gradients, c.gradients, c.allowed)
        del saved["scores"]  # not promised at tokens that are not valid
        seen.add(b"".join(x.tobytes() for x in (*saved.values(), *gradients.values())))
    assert len(seen) == 1, "threads show in the bits"


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
def test_sizes(isa: str, dtype_name: str, shape: tuple[int, int, int, int]) -> None:
    run(case(shape, dtype_name))


@pytest.mark.parametrize("masking", MASKINGS)
@pytest.mark.parametrize("own", [False, True], ids=["value", "key"])
@pytest.mark.parametrize("norm", [None, "l2"])
@pytest.mark.parametrize("activation", [None, "tanh"])
def test_options(
    isa: str, activation: str | None, norm: str | None, own: bool, masking: str
) -> None:
    run(option_case(activation, norm, masking, own))


@pytest.mark.parametrize("masking", ["none", "bool", "ragged"])
def test_equal_weights_without_a_query(isa: str, dtype_name: str, masking: str) -> None:
    made = make_problem(3, 50, 1, 19, dtype_name, masking=masking, bias="tokens")
    run(solve(Problem(**{**vars(made), "query": None}), 0))


@pytest.mark.parametrize("factor", ["float16", "bfloat16", "float32", "float64"])
def test_the_factor_may_have_another_dtype(isa: str, dtype_name: str, factor: str) -> None:
    made = make_problem(2, 20, 5, 19, dtype_name)
    query = make_problem(2, 20, 5, 19, factor).query
    c = solve(Problem(**{**vars(made), "query": query}), 0)
    run(c)
