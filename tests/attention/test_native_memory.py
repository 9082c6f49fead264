# SPDX-License-Identifier: Apache-2.0
"""What memory the kernels touch: guard pages, strides, padding, read-only arrays, outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from embedcore import _core
from support.attention import (
    MASKINGS,
    Problem,
    expected_of,
    make_problem,
    native_backward,
    native_forward,
)
from support.attention_limits import check, limits
from support.guard import guarded
from support.kinds import to_torch

Array = np.ndarray[Any, Any]
# Of one rounding to nearest.
UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-9, "float32": 2.0**-24, "float64": 2.0**-53}
ARRAYS = ("key", "value", "query", "cu_seqlens", "lengths", "mask", "bias", "temperature")


@cache
def solved(
    masking: str, dtype: str, value_columns: int | None = 7
) -> tuple[Problem, Array, Array, dict[str, Array], dict[str, float]]:
    p = make_problem(
        3,
        21,
        3,
        13,
        dtype,
        seed=5,
        masking=masking,
        value_columns=value_columns,
        query="own",
        bias="both",
        temperature="both",
        activation="tanh",
        norm="l2",
    )
    rng = np.random.default_rng(6)
    grad_out = rng.standard_normal(p.out_shape).astype(p.key.dtype)
    grad_lse = rng.standard_normal(p.out_shape[:2]).astype(p.real)
    forward, gradients = expected_of(p, grad_out, grad_lse)
    expected = {**forward, **gradients}
    return p, grad_out, grad_lse, expected, limits(p, expected, grad_out, grad_lse)


def moved(p: Problem, place: Callable[[Array], Any], names: tuple[str, ...] = ARRAYS) -> Problem:
    given = {name: getattr(p, name) for name in names}
    return replace(p, **{name: place(x) for name, x in given.items() if isinstance(x, np.ndarray)})


@pytest.mark.parametrize("masking", MASKINGS)
def test_nothing_outside_the_arrays_is_touched(isa: str, dtype_name: str, masking: str) -> None:
    for value_columns in (7, None):
        p, grad_out, grad_lse, expected, allowed = solved(masking, dtype_name, value_columns)
        tight = moved(p, guarded)
        saved = native_forward(tight, place=guarded)
        check(p, saved, expected, allowed)
        got = native_backward(tight, saved, guarded(grad_out), guarded(grad_lse), place=guarded)
        check(p, got, expected, allowed)


@pytest.mark.parametrize("columns", [*range(1, 18), 31, 32, 33, 47, 48, 49, 64, 65])
def test_rows_of_any_width_end_at_the_page(isa: str, dtype_name: str, columns: int) -> None:
    rng = np.random.default_rng(columns)
    for tokens, heads in ((1, 1), (9, 2), (65, 5)):
        p = make_problem(1, tokens, heads, columns, dtype_name, value_columns=18 - columns % 17)
        tight = moved(p, guarded)
        saved = native_forward(tight, place=guarded)
        grad_out = rng.standard_normal(p.out_shape).astype(p.key.dtype)
        native_backward(tight, saved, guarded(grad_out), place=guarded)


def beyond(readable: Array, tokens: int) -> Array:
    """A batch of one sequence of which only the rows of `readable` can be read at all."""
    row = readable.strides[0]
    return np.lib.stride_tricks.as_strided(
        readable, (1, tokens, readable.shape[1]), (row * tokens, row, readable.strides[1])
    )


@pytest.mark.parametrize("valid", [0, 1, 7, 8, 9, 63, 64, 65, 100])
def test_padding_is_never_read(isa: str, dtype_name: str, valid: int) -> None:
    p = make_problem(1, max(valid, 1), 3, 16, dtype_name, value_columns=5)
    longer = {"lengths": np.array([valid])}
    if valid > 0:
        longer.update(key=beyond(guarded(p.key[0]), 300), value=beyond(guarded(p.value[0]), 300))
    else:
        page = guarded(np.zeros((1, 1), p.key.dtype))
        past = np.lib.stride_tricks.as_strided(page, (2, 1))[1:]  # begins in the unreadable page
        wide = np.lib.stride_tricks.as_strided(past, (1, 300, 16), (4800, 16, past.itemsize))
        longer.update(key=wide, value=wide[:, :, :5])
    q = replace(p, **longer)
    got = native_forward(q)
    if valid == 0:
        assert (got["out"] == 0).all()
        assert (got["lse"] == -np.inf).all()
        return
    exact = native_forward(p)
    np.testing.assert_array_equal(got["out"], exact["out"])
    np.testing.assert_array_equal(got["weights"][..., :valid], exact["weights"])
    assert (got["weights"][..., valid:] == 0).all()
    grads = native_backward(q, got, np.ones(p.out_shape, p.key.dtype))
    assert np.isfinite(grads["key"].astype(np.float32)).all()
    assert (grads["key"][:, valid:] == 0).all()
    assert (grads["value"][:, valid:] == 0).all()


def _rows_apart(x: Array) -> Array:
    wide = np.full((*x.shape[:-1], x.shape[-1] + 5), np.nan, x.dtype)
    wide[..., 2:-3] = x
    return wide[..., 2:-3]


def _columns_apart(x: Array) -> Array:
    wide = np.full((*x.shape[:-1], 3 * x.shape[-1]), np.nan, x.dtype)
    wide[..., 1::3] = x
    return wide[..., 1::3]


def _backwards(x: Array) -> Array:
    turned = (slice(None, None, -1),) * (x.ndim - 1)
    return np.ascontiguousarray(x[turned])[turned]


def _all_backwards(x: Array) -> Array:
    turned = (slice(None, None, -1),) * x.ndim
    return np.ascontiguousarray(x[turned])[turned]


def _tokens_first(x: Array) -> Array:
    return np.ascontiguousarray(np.swapaxes(x, 0, -2)).swapaxes(0, -2) if x.ndim > 2 else x.copy()


def _misaligned(x: Array) -> Array:
    raw = np.zeros(x.nbytes + 1, np.uint8)
    view = raw[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def _read_only(x: Array) -> Array:
    copy = x.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS: dict[str, Callable[[Array], Any]] = {
    "rows apart": _rows_apart,
    "columns apart": _columns_apart,
    "backwards": _backwards,
    "all axes backwards": _all_backwards,
    "tokens first": _tokens_first,
    "Fortran order": lambda x: np.array(x, order="F"),
    "misaligned": _misaligned,
    "read-only": _read_only,
    "torch": to_torch,
}


@pytest.mark.parametrize("masking", ["lengths float", "ragged bool"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(isa: str, dtype_name: str, layout: str, masking: str) -> None:
    p, grad_out, grad_lse, expected, allowed = solved(masking, dtype_name)
    place = LAYOUTS[layout]
    names = tuple(n for n in ARRAYS if n not in ("cu_seqlens", "lengths"))
    other = moved(p, place, names)
    shapes = replace(p)  # outputs are made from the plain arrays
    saved = _forward_into(shapes, other)
    check(p, saved, expected, allowed)
    got = _backward_into(shapes, other, saved, place(grad_out), place(grad_lse))
    check(p, got, expected, allowed)


def _native(p: Problem) -> tuple[Any, ...]:
    arrays = (p.key, p.value, p.query, p.cu_seqlens, p.lengths, p.mask, p.bias, p.temperature)
    return ("attention.test", *arrays, 1, 1, 0)


def _forward_into(like: Problem, p: Problem) -> dict[str, Array]:
    saved = native_forward(like)
    for x in saved.values():
        x[...] = np.nan
    _core.attention_forward(*_native(p), *saved.values())
    return saved


def _backward_into(
    like: Problem, p: Problem, saved: dict[str, Array], grad_out: Any, grad_lse: Any
) -> dict[str, Array]:
    names = ("key", "value", "query", "temperature", "bias", "mask")
    got = native_backward(like, saved, np.zeros(like.out_shape, like.key.dtype))
    for x in got.values():
        x[...] = np.nan
    of_forward = (saved["wide"], saved["lse"], saved["scores"])
    gradients = [got.get(n) for n in names]
    _core.attention_backward(*_native(p), grad_out, *of_forward, grad_lse, None, *gradients, False)
    return got


@pytest.mark.parametrize("masking", MASKINGS)
def test_accumulate_adds_to_keys_and_leaves_their_padding_alone(
    isa: str, dtype_name: str, masking: str
) -> None:
    for value_columns in (7, None):
        p, grad_out, grad_lse, expected, allowed = solved(masking, dtype_name, value_columns)
        saved = native_forward(p)
        plain = native_backward(p, saved, grad_out, grad_lse)
        got = np.full(p.key.shape, 0.5, p.key.dtype)
        got[~p.valid()] = 77
        value = None if p.value is None else np.full_like(plain["value"], np.nan)
        of_forward = (saved["wide"], saved["lse"], saved["scores"])
        _core.attention_backward(
            *_native(p), grad_out, *of_forward, grad_lse, None, got, value, *[None] * 4, True
        )
        assert (got[~p.valid()] == 77).all()
        off = np.abs(got.astype(np.float64) - 0.5 - expected["key"])[p.valid()]
        rounding = UNIT[dtype_name] * (0.5 + np.abs(expected["key"]).max())
        assert off.max() <= allowed["key"] + rounding
        if value is not None:  # it has no second source
            assert value.tobytes() == plain["value"].tobytes()


@pytest.mark.parametrize("wanted", ["key", "value", "query", "temperature", "bias", "mask"])
def test_each_gradient_alone_has_the_same_bits(isa: str, dtype_name: str, wanted: str) -> None:
    p, grad_out, grad_lse, *_ = solved("lengths bool", dtype_name)
    saved = native_forward(p)
    together = native_backward(p, saved, grad_out, grad_lse)
    alone = np.full_like(together[wanted], np.nan)
    names = ("key", "value", "query", "temperature", "bias", "mask")
    gradients = [alone if name == wanted else None for name in names]
    of_forward = (saved["wide"], saved["lse"], saved["scores"])
    _core.attention_backward(*_native(p), grad_out, *of_forward, grad_lse, None, *gradients, False)
    assert alone.tobytes() == together[wanted].tobytes()


@pytest.mark.parametrize("wanted", [(), ("lse",), ("scores",), ("weights",), ("lse", "weights")])
def test_optional_outputs_do_not_change_the_others(
    isa: str, dtype_name: str, wanted: tuple[str, ...]
) -> None:
    p, *_ = solved("lengths bool", dtype_name)
    every = native_forward(p)
    some: dict[str, Any] = {
        name: np.full_like(x, np.nan) if name in ("out", *wanted) else None
        for name, x in every.items()
    }
    _core.attention_forward(*_native(p), *some.values())
    for name, x in some.items():
        if x is not None and name != "scores":
            assert x.tobytes() == every[name].tobytes()


def test_gradients_of_lse_may_be_left_out(isa: str, dtype_name: str) -> None:
    p, grad_out, grad_lse, *_ = solved("lengths bool", dtype_name)
    saved = native_forward(p)
    without = native_backward(p, saved, grad_out, None)
    zero = native_backward(p, saved, grad_out, np.zeros_like(grad_lse))
    for name, x in without.items():
        np.testing.assert_array_equal(x, zero[name])
