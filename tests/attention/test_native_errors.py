# SPDX-License-Identifier: Apache-2.0
"""What the native calls refuse by themselves: results, saved arrays and gradients."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from embedcore import _core
from support.attention import make_problem, native_forward

Array = np.ndarray[Any, Any]

P = make_problem(3, 7, 2, 4, value_columns=5, query="own", bias="both", temperature="both")
HALF = make_problem(3, 7, 2, 4, "bfloat16")
SHAPES = {"out": (3, 2, 5), "lse": (3, 2), "scores": (3, 2, 7), "weights": (3, 2, 7)}
GRADIENTS = {
    "grad_key": (3, 7, 4),
    "grad_value": (3, 7, 5),
    "grad_query": (3, 2, 4),
    "grad_temperature": (3, 2),
    "grad_bias": (3, 2, 7),
    "grad_mask": (3, 7),
}
HEAD = ("attention.test", P.key, P.value, P.query, None, None, None, P.bias, P.temperature, 1, 1, 1)


def zeros(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def forward(**replaced: Any) -> None:
    _core.attention_forward(*HEAD, *{**zeros(SHAPES), **replaced}.values())


def backward(**replaced: Any) -> None:
    saved = native_forward(P)
    given = {
        "grad_out": np.zeros((3, 2, 5), np.float32),
        "out": saved["out"],
        "lse": saved["lse"],
        "scores": saved["scores"],
        "grad_lse": np.zeros((3, 2), np.float32),
        "grad_weights": np.zeros_like(saved["scores"]),
        **zeros(GRADIENTS),
    }
    _core.attention_backward(*HEAD, *{**given, **replaced}.values(), False)


def refuses(error: type[Exception], text: str) -> Any:
    return pytest.raises(error, match="^" + re.escape(f"attention.test: {text}"))


CALLS = [(forward, name) for name in SHAPES] + [
    (backward, name)
    for name in ("grad_out", "grad_lse", "grad_weights", "out", "lse", "scores", *GRADIENTS)
]
each = pytest.mark.parametrize(("call", "name"), CALLS, ids=lambda x: getattr(x, "__name__", x))


def shape_of(name: str) -> tuple[int, ...]:
    of_results = {"grad_out": (3, 2, 5), "grad_lse": (3, 2), "grad_weights": SHAPES["weights"]}
    return {**of_results, **SHAPES, **GRADIENTS}[name]


@each
def test_shapes(call: Any, name: str) -> None:
    right = shape_of(name)
    for wrong in ((*right[:-1], right[-1] + 1), (right[0] - 1, *right[1:]), right[1:]):
        with refuses(ValueError, f"'{name}' must have shape {right}; got shape "):
            call(**{name: np.zeros(wrong, np.float32)})
    with refuses(ValueError, f"'{name}' must be an array of 1 to 3 axes; got shape (1, 1, 1, 1)."):
        call(**{name: np.zeros((1, 1, 1, 1), np.float32)})


@each
def test_dtypes(call: Any, name: str) -> None:
    if name in ("grad_out", "grad_lse"):
        with refuses(TypeError, f"'{name}' must "):
            call(**{name: np.zeros(shape_of(name), bool)})
        return
    for wrong in (np.float64, np.float16):
        with refuses(TypeError, f"'{name}' must have dtype float32; got "):
            call(**{name: np.zeros(shape_of(name), wrong)})
    with refuses(TypeError, f"'{name}' must "):
        call(**{name: np.zeros(shape_of(name), int)})


@each
def test_memory(call: Any, name: str) -> None:
    if name in ("grad_out", "grad_lse"):
        return  # any strides, only read
    wide = np.zeros((*shape_of(name)[:-1], 2 * shape_of(name)[-1]), np.float32)
    with refuses(ValueError, f"'{name}' must be C-contiguous; got strides that are not."):
        call(**{name: wide[..., ::2]})
    fixed = np.zeros(shape_of(name), np.float32)
    fixed.flags.writeable = False
    if call is backward and name in ("grad_weights", "out", "lse", "scores"):
        return  # only read
    with refuses(ValueError, f"'{name}' must be writable"):
        call(**{name: fixed})


@pytest.mark.parametrize("name", ["out", "lse", "scores"])
def test_what_the_forward_pass_gave_must_be_there(name: str) -> None:
    with refuses(ValueError, "'out', 'lse' and 'scores' must be what the forward pass gave"):
        backward(**{name: None})


def test_results_of_half_precision_tokens() -> None:
    arguments = ("attention.test", HALF.key, None, HALF.query, *[None] * 4, 1.0, 0, 0, 1)
    out, lse = np.zeros((3, 2, 4), HALF.key.dtype), np.zeros((3, 2), np.float32)
    _core.attention_forward(*arguments, out, lse, None, None)
    with refuses(TypeError, "'out' must have dtype bfloat16; got float32."):
        _core.attention_forward(*arguments, out.astype(np.float32), lse, None, None)
    with refuses(TypeError, "'lse' must have dtype float32; got bfloat16."):
        _core.attention_forward(*arguments, out, lse.astype(HALF.key.dtype), None, None)


@pytest.mark.parametrize("name", ["bias", "mask"])
def test_what_broadcasts(name: str) -> None:
    arguments: list[Any] = list(HEAD)
    at = {"mask": 6, "bias": 7}[name]
    shapes = {"mask": [(3, 6), (2, 7), (21,)], "bias": [(3, 7, 3), (2, 7, 2), (3, 7)]}[name]
    for shape in shapes:
        arguments[at] = np.zeros(shape, np.float32)
        with refuses(ValueError, f"'{name}' must have shape (3, 7"):
            _core.attention_forward(*arguments, *zeros(SHAPES).values())


def test_an_error_leaves_results_alone() -> None:
    out = np.full((3, 2, 5), 7, np.float32)
    arguments: list[Any] = list(HEAD)
    arguments[8] = np.zeros((3, 2), np.float32)
    with refuses(ValueError, "'temperature' must be positive and finite; got 0"):
        _core.attention_forward(*arguments, out, None, None, None)
    assert (out == 7).all()
