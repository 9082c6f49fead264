# SPDX-License-Identifier: Apache-2.0
"""Kinds of arguments that `embedcore.attention` takes nowhere, each message by its words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from embedcore import attention
from support.kinds import Exporter, to_torch

Array = np.ndarray[Any, Any]
FLOATS = "must be float16, bfloat16, float32 or float64; got"


def normal(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape)


KEY, QUERY = normal(3, 7, 4), normal(4, 2)
FLOATING: dict[str, Any] = {
    "key": KEY, "query": QUERY, "value": KEY, "context": normal(4), "P": QUERY,
    "mask": normal(3, 7), "temperature": np.ones(2), "length_scale": np.ones(3), "bias": normal(2),
    "out": np.empty((3, 2, 4)),
}  # fmt: skip
CONVERTIBLE = [name for name in FLOATING if name not in ("temperature", "length_scale")]


def refused(kind: type[Exception], function: str, text: str) -> Any:
    return pytest.raises(kind, match="^" + re.escape(f"attention.{function}: {text}"))


def call(**changed: Any) -> Any:
    return attention.low_rank_attention(**{**FLOATING, **changed})


@pytest.mark.parametrize("name", FLOATING)
def test_another_byte_order(name: str) -> None:
    swapped = FLOATING[name].astype(">f8")
    text = f"'{name}' must be in this machine's byte order; got dtype >f8."
    with refused(TypeError, "low_rank_attention", text):
        call(**{name: swapped})


def test_another_byte_order_elsewhere() -> None:
    order, swapped = "must be in this machine's byte order; got dtype", KEY.astype(">f8")
    with refused(TypeError, "low_rank_attention", f"'lengths' {order} >i8."):
        attention.low_rank_attention(KEY, QUERY, lengths=np.ones(3, ">i8"))
    with refused(TypeError, "mean_pool", f"'weights' {order} >f8."):
        attention.mean_pool(KEY, weights=swapped[..., 0])
    with refused(TypeError, "merge_states", f"'outs[0]' {order} >f8."):
        attention.merge_states([swapped], [KEY[..., 0]])
    with refused(TypeError, "length_law", f"'lengths' {order} >i4."):
        attention.length_law(np.ones(3, ">i4"))
    with refused(TypeError, "effective_tokens", f"'weights' {order} >f8."):
        attention.effective_tokens(swapped)


@pytest.mark.parametrize("name", FLOATING)
def test_masked_arrays(name: str) -> None:
    text = f"'{name}' must not be a masked array, because the mask would be ignored; got MaskedArr"
    with refused(TypeError, "low_rank_attention", text):
        call(**{name: np.ma.array(FLOATING[name])})


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_lists(name: str) -> None:
    text = f"'{name}' must be an array (NumPy, Torch, or another with __dlpack__ or the buffer "
    with refused(TypeError, "low_rank_attention", text):
        call(**{name: FLOATING[name].tolist()})


@pytest.mark.parametrize("place", [np.asarray, to_torch], ids=["numpy", "torch"])
@pytest.mark.parametrize("name", ["temperature", "length_scale"])
def test_lists_of_temperatures(name: str, place: Callable[[Array], Any]) -> None:
    text = f"'{name}' must be a number" if name == "temperature" else f"'{name}' must be one of"
    with refused(TypeError, "low_rank_attention", text):
        given: dict[str, Any] = {name: [1.0, 2.0]}
        attention.low_rank_attention(place(KEY), place(QUERY), **given)


@pytest.mark.parametrize("name", [n for n in FLOATING if n != "mask"])
def test_dtypes_wider_than_float64(name: str) -> None:
    if np.dtype(np.longdouble).itemsize == 8:
        pytest.skip("long double is double here")
    with refused(TypeError, "low_rank_attention", f"'{name}' {FLOATS} "):
        call(**{name: FLOATING[name].astype(np.longdouble)})


def test_exporters_that_numpy_cannot_read() -> None:
    torch = pytest.importorskip("torch")
    text = "'key' must be an array that NumPy can read; got Exporter, of which NumPy says: "
    with refused(TypeError, "low_rank_attention", text):
        call(key=Exporter(torch.ones(3, 7, 4, dtype=torch.bfloat16)))


def test_merging() -> None:
    text = "must be a sequence of arrays; got NoneType."
    with refused(TypeError, "merge_states", f"'outs' {text}"):
        attention.merge_states(None, None)  # type: ignore[arg-type]
    with refused(TypeError, "merge_states", f"'lses' {text}"):
        attention.merge_states([KEY], None)  # type: ignore[arg-type]
    with refused(TypeError, "merge_states", "'outs' must be a sequence of arrays; got Tensor."):
        attention.merge_states(to_torch(np.array(1.0)), [])
    with refused(TypeError, "merge_states", "'lses[0]' must be an array (NumPy, Torch, or"):
        attention.merge_states([KEY], [None])
    with refused(ValueError, "merge_states", "'outs' must have parts of one shape (B, m, dv); got"):
        attention.merge_states([np.float64(1)], [np.float64(1)])
    text = "'outs' and 'lses' must be of one kind; got Torch tensors and others."
    with refused(TypeError, "merge_states", text):
        attention.merge_states([KEY, to_torch(KEY)], [KEY[..., 0], to_torch(KEY[..., 0])])


@pytest.mark.parametrize("value", [True, np.True_, 2.5, np.float64(2), "8", None])
def test_lengths_that_are_no_integers(value: Any) -> None:
    with refused(TypeError, "length_law", "'lengths' must "):
        attention.length_law(value)


def test_negative_lengths() -> None:
    for value in (-3, np.int64(-3)):
        with refused(ValueError, "length_law", "'lengths' must be at least 0; got -3."):
            attention.length_law(value)
    for values in ([5, -3], np.array([[5], [-3]])):
        with refused(ValueError, "length_law", "'lengths' must be at least 0; got -3."):
            attention.length_law(values)


@pytest.mark.parametrize("place", [np.asarray, to_torch], ids=["numpy", "torch"])
def test_lengths_of_another_dtype(place: Callable[[Array], Any]) -> None:
    for dtype in (float, bool, complex):
        with refused(TypeError, "length_law", "'lengths' must have an integer dtype; got"):
            attention.length_law(place(np.ones(2, dtype)))


@pytest.mark.parametrize("place", [np.asarray, to_torch], ids=["numpy", "torch"])
def test_effective_tokens(place: Callable[[Array], Any]) -> None:
    for shape in ((), (5,), (2, 3, 5)):
        with refused(ValueError, "effective_tokens", "'weights' must have shape (heads, tokens);"):
            attention.effective_tokens(place(normal(*shape)), [0, 5])
    with refused(ValueError, "effective_tokens", "'weights' must have at least one axis; got"):
        attention.effective_tokens(place(np.array(1.0)))
    with refused(TypeError, "effective_tokens", "'cu_seqlens' must have an integer dtype; got"):
        attention.effective_tokens(place(normal(2, 5)), place(np.array([0.0, 5.0])))
    with refused(ValueError, "effective_tokens", "'cu_seqlens' must have shape (sequences + 1,)"):
        attention.effective_tokens(place(normal(2, 5)), place(np.array([[0, 5]])))
    for borders in ([], [1, 5], [0, 4], [0, 4, 3, 5]):
        with refused(ValueError, "effective_tokens", "'cu_seqlens' must rise from 0 to the number"):
            attention.effective_tokens(place(normal(2, 5)), np.array(borders, int))
    with refused(ValueError, "high_frequency_gain", "'weights' must have shape (..., queries, "):
        attention.high_frequency_gain(place(np.ones((0, 3))))


def test_folding() -> None:
    probe, weights = normal(1, 8), normal(24, 8)
    parts = tuple(np.split(weights, 3))
    name = "fold_multihead_attention"
    with refused(ValueError, name, "'in_proj_weight' must have three parts (query, key, value);"):
        attention.fold_multihead_attention(probe, 2, parts[:2])
    with refused(ValueError, name, "'in_proj_weight' must have parts of two axes with as many"):
        attention.fold_multihead_attention(probe, 2, (parts[0], parts[1][:7], parts[2]))
    with refused(ValueError, name, "'in_proj_bias' must have three parts (query, key, value);"):
        attention.fold_multihead_attention(probe, 2, parts, [None, None])
    with refused(ValueError, name, "'in_proj_bias' must have 8 values for the key; got shape (7,)"):
        attention.fold_multihead_attention(probe, 2, parts, [None, normal(7), None])
    with refused(
        ValueError, name, "'in_proj_bias' must have shape (3 * E,), or be three arrays; go"
    ):
        attention.fold_multihead_attention(probe, 2, weights, normal(23))
    with refused(TypeError, name, "'in_proj_weight' must be an array (NumPy, Torch, or another"):
        attention.fold_multihead_attention(probe, 2, None)
    with refused(TypeError, name, "'probe' and the weights must be of one kind; got Torch tensors"):
        attention.fold_multihead_attention(to_torch(probe), 2, weights)


def test_projecting() -> None:
    folded = attention.fold_multihead_attention(normal(1, 8), 2, normal(24, 8))
    name, shape = "FoldedAttention.project", "'pooled' must have shape (sequences, probes * 2, 8);"
    for pooled in (normal(2, 3, 8), normal(2, 2, 7), normal(2, 8)):
        with refused(ValueError, name, f"{shape} got shape {pooled.shape}."):
            folded.project(pooled)
    with refused(TypeError, name, f"'pooled' {FLOATS} int64."):
        folded.project(np.ones((2, 2, 8), np.int64))
    with refused(TypeError, name, "'pooled' must be an array (NumPy, Torch, or another with"):
        folded.project([1.0])
    with refused(TypeError, name, "'pooled' and the weights must be of one kind; got Torch"):
        folded.project(to_torch(normal(2, 2, 8)))
