# SPDX-License-Identifier: Apache-2.0
"""Float64 oracle of the attention kernel: one sequence at a time, from its valid tokens alone.

For head j and valid token t of sequence b:

====  ======================================================================================
y     q_j . k_t
z     y + bias
a     tanh(z), or z
f     a / max(|a|, 1e-12) with the norm over the heads of one token, or a
s     (f + mask) / T
A     softmax of s over the valid tokens; out = sum_t A v_t; lse = log sum_t exp(s)
====  ======================================================================================

A token is valid if it lies within its sequence's length, its bool mask is true, or its float mask
is not -inf. A head whose every s is -inf, or a sequence without a valid token, gives 0 with lse
-inf and gradients of 0. Where the norm is at most 1e-12, no gradient flows.

`forward` and `backward` take the effective factor q and the layouts of the native kernel; the
public function's arguments are in `oracle.attention`.

Sources: arXiv 1912.00835 (tanh, norm over heads, softmax over tokens), arXiv 1610.04325 (rank r),
"Length-induced embedding collapse" (ACL 2025; the temperature divides score and mask alike).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

SMALLEST_NORM = 1e-12


class Result(NamedTuple):
    """Of B sequences with m heads; `weights` and `scores` (y) are (B, m, L); ragged (m, T)."""

    out: Floats
    lse: Floats
    weights: Floats
    scores: Floats


class Gradients(NamedTuple):
    """In the layouts of the native kernel: unreduced, heads before tokens or columns."""

    key: Floats  # as key; holds the whole gradient where value is None
    value: Floats | None
    query: Floats | None  # (1 or B, m, dk)
    temperature: Floats  # (B, m)
    bias: Floats  # (B, m, L) or (m, T)
    mask: Floats  # (B, L) or (T,)


@dataclass(frozen=True)
class Problem:
    """Every argument spelled out for N tokens, of which `rows[b]` are the valid ones of b."""

    key: Floats  # (N, dk)
    value: Floats  # (N, dv)
    rows: list[NDArray[np.intp]]
    query: Floats  # (B, dk, m)
    bias: Floats  # (N, m)
    mask: Floats  # (N,)
    temperature: Floats  # (B, m)
    shape: tuple[int, ...]  # (B, L) or (T,)

    def heads_first(self, per_token: Floats) -> Floats:
        """(N, m) to (B, m, L) or (m, T)."""
        return np.moveaxis(per_token.reshape(*self.shape, per_token.shape[1]), -1, -2).copy()


@dataclass(frozen=True)
class Head:
    """The steps of one sequence of n valid tokens: (n, m) each, `norm` (n, 1)."""

    y: Floats
    a: Floats
    norm: Floats
    f: Floats
    s: Floats
    weights: Floats
    lse: Floats  # (m,)
    out: Floats  # (m, dv)


def problem_of(
    key: ArrayLike,
    query: ArrayLike | None,
    value: ArrayLike | None,
    cu_seqlens: ArrayLike | None,
    lengths: ArrayLike | None,
    mask: ArrayLike | None,
    bias: ArrayLike | None,
    temperature: ArrayLike,
) -> Problem:
    k = np.asarray(key)
    shape = k.shape[:-1]
    v = k if value is None else np.asarray(value)
    count = int(np.prod(shape))
    if cu_seqlens is None:
        starts = np.arange(shape[0]) * shape[1]
        ends = starts + (shape[1] if lengths is None else np.asarray(lengths))
    else:
        starts, ends = np.asarray(cu_seqlens)[:-1], np.asarray(cu_seqlens)[1:]
    added, valid = np.zeros(count), np.ones(count, bool)
    if mask is not None:
        flat = np.asarray(mask).reshape(count)
        valid = flat if flat.dtype == bool else flat != -np.inf
        added = added if flat.dtype == bool else flat.astype(np.float64)
    rows = [np.arange(a, b)[valid[a:b]].astype(np.intp) for a, b in zip(starts, ends, strict=True)]
    q = np.zeros((k.shape[-1], 1)) if query is None else np.asarray(query).astype(np.float64)
    heads = q.shape[-1]
    inside = np.zeros((1,) * len(shape) + (1,)) if bias is None else np.asarray(bias)
    return Problem(
        key=k.reshape(count, k.shape[-1]).astype(np.float64),
        value=v.reshape(count, v.shape[-1]).astype(np.float64),
        rows=rows,
        query=np.broadcast_to(q, (len(rows), *q.shape[-2:])),
        bias=np.broadcast_to(inside, (*shape, heads)).reshape(count, heads).astype(np.float64),
        mask=added,
        temperature=np.broadcast_to(np.asarray(temperature, np.float64), (len(rows), heads)),
        shape=shape,
    )


def _norm_over_heads(a: Floats) -> Floats:
    """Length of each row, without overflow: (n, 1)."""
    largest = np.abs(a).max(axis=1, keepdims=True)
    unit = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
    return np.sqrt(((a / unit) ** 2).sum(axis=1, keepdims=True)) * unit


def one_forward(p: Problem, b: int, activation: str | None, norm: str | None) -> Head:
    rows = p.rows[b]
    y = np.zeros((len(rows), p.query.shape[-1]))
    for i, t in enumerate(rows):
        y[i] = p.key[t] @ p.query[b]
    z = y + p.bias[rows]
    a = np.tanh(z) if activation == "tanh" else z
    lengths = _norm_over_heads(a) if norm == "l2" else np.ones((len(rows), 1))
    f = a / np.maximum(lengths, SMALLEST_NORM) if norm == "l2" else a
    s = (f + p.mask[rows, None]) / p.temperature[b]
    top = s.max(axis=0)
    seen = top != -np.inf
    e = np.where(seen, np.exp(s - np.where(seen, top, 0.0)), 0.0)
    total = np.where(seen, e.sum(axis=0), 1.0)
    weights = e / total
    lse = np.where(seen, top + np.log(total), -np.inf)
    return Head(y, a, lengths, f, s, weights, lse, weights.T @ p.value[rows])


def forward(
    key: ArrayLike,
    query: ArrayLike | None,
    value: ArrayLike | None = None,
    *,
    cu_seqlens: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    activation: str | None = None,
    norm: str | None = None,
) -> Result:
    """Attention with the effective factor `query`: (dk, m), (B, dk, m), or None for equal weights.

    `key` is (B, L, dk), or (T, dk) with `cu_seqlens`. `bias` and `temperature` broadcast to
    (B, L, m) or (T, m), and to (B, m).
    """
    p = problem_of(key, query, value, cu_seqlens, lengths, mask, bias, temperature)
    heads = p.query.shape[-1]
    out = np.zeros((len(p.rows), heads, p.value.shape[1]))
    lse = np.full((len(p.rows), heads), -np.inf)
    weights, scores = np.zeros((len(p.key), heads)), np.zeros((len(p.key), heads))
    for b, rows in enumerate(p.rows):
        if len(rows) > 0:
            head = one_forward(p, b, activation, norm)
            out[b], lse[b] = head.out, head.lse
            weights[rows], scores[rows] = head.weights, head.y
    return Result(out, lse, p.heads_first(weights), p.heads_first(scores))


def _gradient_of_scores(head: Head, values: Floats, grad_out: Floats, grad_lse: Floats) -> Floats:
    """dL/ds, (n, m)."""
    grad_weights = values @ grad_out.T
    mean = (grad_out * head.out).sum(axis=1)
    return head.weights * (grad_weights - mean + grad_lse)


def _through_norm_and_activation(
    head: Head, grad_f: Floats, activation: str | None, norm: str | None
) -> Floats:
    """dL/dz, (n, m)."""
    grad_a = grad_f
    if norm == "l2":
        along = (head.f * grad_f).sum(axis=1, keepdims=True)
        inside = head.norm > SMALLEST_NORM
        grad_a = np.where(inside, (grad_f - head.f * along) / np.where(inside, head.norm, 1), 0.0)
    return grad_a * (1 - head.a**2) if activation == "tanh" else grad_a


def backward(
    key: ArrayLike,
    query: ArrayLike | None,
    value: ArrayLike | None = None,
    *,
    grad_out: ArrayLike,
    grad_lse: ArrayLike | None = None,
    cu_seqlens: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    activation: str | None = None,
    norm: str | None = None,
) -> Gradients:
    """Gradients of sum(grad_out * out) + sum(grad_lse * lse); arguments as of `forward`."""
    p = problem_of(key, query, value, cu_seqlens, lengths, mask, bias, temperature)
    sequences, heads = len(p.rows), p.query.shape[-1]
    g_out = np.asarray(grad_out).astype(np.float64)
    g_lse = np.zeros((sequences, heads)) if grad_lse is None else np.asarray(grad_lse, np.float64)
    d_key, d_value = np.zeros_like(p.key), np.zeros_like(p.value)
    d_query = np.zeros((sequences, heads, p.key.shape[1]))
    d_temperature = np.zeros((sequences, heads))
    d_bias, d_mask = np.zeros((len(p.key), heads)), np.zeros(len(p.key))
    for b, rows in enumerate(p.rows):
        if len(rows) == 0:
            continue
        head = one_forward(p, b, activation, norm)
        d_s = _gradient_of_scores(head, p.value[rows], g_out[b], g_lse[b])
        d_z = _through_norm_and_activation(head, d_s / p.temperature[b], activation, norm)
        d_value[rows] = head.weights @ g_out[b]
        d_key[rows] = d_z @ p.query[b].T
        d_query[b] = d_z.T @ p.key[rows]
        finite_s = np.where(head.s == -np.inf, 0.0, head.s)
        d_temperature[b] = -(d_s * finite_s).sum(axis=0) / p.temperature[b]
        d_bias[rows] = d_z
        d_mask[rows] = (d_s / p.temperature[b]).sum(axis=1)
    if query is not None and np.ndim(query) == 2:
        d_query = d_query.sum(axis=0, keepdims=True)
    return Gradients(
        key=(d_key if value is not None else d_key + d_value).reshape(np.shape(key)),
        value=None if value is None else d_value.reshape(np.shape(value)),
        query=None if query is None else d_query,
        temperature=d_temperature,
        bias=p.heads_first(d_bias),
        mask=d_mask.reshape(p.shape),
    )
