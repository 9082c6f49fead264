# SPDX-License-Identifier: Apache-2.0
"""Attention problems, the native calls on them, and how far their results may be off.

Every token that is not valid holds NaN: a kernel that reads one shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from embedcore import _core
from oracle import attention as oracle

from .kinds import dtype_of

Array = np.ndarray[Any, Any]

ACTIVATIONS = {None: 0, "tanh": 1}
NORMS = {None: 0, "l2": 1}
MASKINGS = (
    "none",
    "lengths",
    "bool",
    "float",
    "ragged",
    "lengths bool",
    "ragged bool",
    "lengths float",
    "ragged float",
)


@dataclass(frozen=True)
class Problem:
    """Arguments of the native kernel."""

    key: Any
    query: Any
    value: Any = None
    cu_seqlens: Any = None
    lengths: Any = None
    mask: Any = None
    bias: Any = None
    temperature: Any = 1.0
    activation: str | None = None
    norm: str | None = None

    @property
    def sequences(self) -> int:
        return len(self.key) if self.cu_seqlens is None else len(self.cu_seqlens) - 1

    @property
    def heads(self) -> int:
        return 1 if self.query is None else int(self.query.shape[-1])

    @property
    def out_shape(self) -> tuple[int, int, int]:
        width = (self.key if self.value is None else self.value).shape[-1]
        return (self.sequences, self.heads, width)

    @property
    def per_token(self) -> tuple[int, ...]:
        """Shape of weights and scores."""
        if self.cu_seqlens is None:
            return (len(self.key), self.heads, self.key.shape[1])
        return (self.heads, len(self.key))

    @property
    def real(self) -> Any:
        """Dtype of sums: lse, weights and gradients of what is not a token."""
        return np.float64 if self.key.dtype == np.float64 else np.float32

    def options(self) -> dict[str, Any]:
        """What the oracle takes beside key and query."""
        return {n: v for n, v in vars(self).items() if n not in ("key", "query")}

    def valid(self) -> Array:
        """Bool (B, L) or (T,)."""
        shape = self.key.shape[:-1]
        mask = np.ones(shape, bool)
        if self.lengths is not None:
            mask &= np.arange(shape[1]) < np.asarray(self.lengths)[:, None]
        if self.mask is not None:
            mask &= self.mask if self.mask.dtype == bool else self.mask != -np.inf
        return mask


def _tokens(rng: np.random.Generator, valid: Array, width: int, dtype: np.dtype[Any]) -> Array:
    rows = rng.standard_normal((*valid.shape, width)).astype(np.float32)
    rows[~valid] = np.nan
    return rows.astype(dtype)


def _coarse(x: Array) -> Array:
    """Multiples of 1/32 below 4: they are the same numbers in every dtype."""
    return np.round(np.clip(x, -3.9, 3.9) * 32) / 32


def make_problem(
    sequences: int,
    tokens: int,
    heads: int,
    columns: int,
    dtype: str = "float32",
    *,
    seed: int = 0,
    value_columns: int | None = None,
    masking: str = "none",
    query: str = "shared",
    bias: str = "none",
    temperature: str = "number",
    activation: str | None = None,
    norm: str | None = None,
) -> Problem:
    """Return normal tokens and a query of unit-length heads.

    `value_columns` None: value is the key. `query`: shared, own (per sequence). `bias`: none,
    heads, tokens, both. `temperature`: number, heads, sequences, both.
    """
    rng = np.random.default_rng(seed)
    width, wide = dtype_of(dtype), np.float64 if dtype == "float64" else np.float32
    offsets = lengths = mask = None
    shape: tuple[int, ...] = (sequences, tokens)
    if "ragged" in masking:
        sizes = rng.integers(0, tokens + 1, sequences)
        sizes[-1] = tokens
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        shape = (int(offsets[-1]),)
    if "lengths" in masking:
        lengths = rng.integers(0, tokens + 1, sequences)
    if "bool" in masking:
        mask = rng.random(shape) < 0.7
    elif "float" in masking:
        mask = np.where(rng.random(shape) < 0.7, _coarse(rng.standard_normal(shape)), -np.inf)
        mask = mask.astype(wide)
    p = Problem(np.empty((*shape, columns), width), None, None, offsets, lengths, mask)
    valid = p.valid()
    leading = (sequences,) if query == "own" else ()
    factor = rng.standard_normal((*leading, columns, heads)) / np.sqrt(columns)
    extents = {"none": None, "heads": (1, heads), "tokens": (0, 1), "both": (0, heads)}[bias]
    inside = None
    if extents is not None:
        axes = (1,) * len(shape) if extents[0] == 1 else shape
        inside = _coarse(rng.standard_normal((*axes, extents[1]))).astype(wide)
    extents = {"heads": (1, heads), "sequences": (sequences, 1), "both": (sequences, heads)}
    t: Any = 0.75
    if temperature != "number":
        t = _coarse(rng.uniform(0.3, 1.5, extents[temperature])).astype(wide)
    return replace(
        p,
        key=_tokens(rng, valid, columns, width),
        query=factor.astype(width),
        value=None if value_columns is None else _tokens(rng, valid, value_columns, width),
        bias=inside,
        temperature=t,
        activation=activation,
        norm=norm,
    )


def _arguments(p: Problem, where: str, threads: int) -> tuple[Any, ...]:
    return (
        where,
        p.key,
        p.value,
        p.query,
        p.cu_seqlens,
        p.lengths,
        p.mask,
        p.bias,
        p.temperature,
        ACTIVATIONS[p.activation],
        NORMS[p.norm],
        threads,
    )


def _fresh(shape: tuple[int, ...], dtype: Any) -> Array:
    return np.full(shape, np.nan, dtype)


def native_forward(
    p: Problem,
    threads: int = 0,
    *,
    place: Callable[[Array], Array] = np.asarray,
    where: str = "attention.test",
) -> dict[str, Array]:
    """Return out, lse, scores and weights; `place` puts the memory of each somewhere."""
    got = {
        "out": place(_fresh(p.out_shape, p.key.dtype)),
        "lse": place(_fresh(p.out_shape[:2], p.real)),
        "scores": place(_fresh(p.per_token, p.real)),
        "weights": place(_fresh(p.per_token, p.real)),
        "wide": place(_fresh(p.out_shape, p.real)),
    }
    _core.attention_forward(*_arguments(p, where, threads), *got.values())
    return got


def native_backward(
    p: Problem,
    saved: dict[str, Array],
    grad_out: Any,
    grad_lse: Any = None,
    threads: int = 0,
    *,
    grad_weights: Any = None,
    place: Callable[[Array], Array] = np.asarray,
    where: str = "attention.test",
) -> dict[str, Array]:
    """Return the gradients, in the layouts of `oracle.Gradients`."""
    got: dict[str, Any] = {"key": place(_fresh(p.key.shape, p.key.dtype)), "value": None}
    if p.value is not None:
        got["value"] = place(_fresh(p.value.shape, p.key.dtype))
    got["query"] = None
    if p.query is not None:
        leading = p.sequences if p.query.ndim == 3 else 1
        got["query"] = place(_fresh((leading, p.heads, p.key.shape[-1]), p.real))
    got["temperature"] = place(_fresh((p.sequences, p.heads), p.real))
    got["bias"] = place(_fresh(p.per_token, p.real))
    got["mask"] = place(_fresh(p.key.shape[:-1], p.real))
    _core.attention_backward(
        *_arguments(p, where, threads),
        grad_out,
        saved["wide"],
        saved["lse"],
        saved["scores"],
        grad_lse,
        grad_weights,
        *got.values(),
        False,
    )
    return {name: array for name, array in got.items() if array is not None}


def expected_of(
    p: Problem, grad_out: Any = None, grad_lse: Any = None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """What the oracle gives for `native_forward` and `native_backward`."""
    options = p.options()
    forward = oracle.forward(p.key, p.query, **options)._asdict()
    forward["wide"] = forward["out"]
    if grad_out is None:
        return forward, {}
    options.update(grad_out=grad_out, grad_lse=grad_lse)
    gradients = oracle.backward(p.key, p.query, **options)._asdict()
    return forward, {name: x for name, x in gradients.items() if x is not None}
