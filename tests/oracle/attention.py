# SPDX-License-Identifier: Apache-2.0
"""Float64 oracle of `embedcore.attention.low_rank_attention`: its arguments, its gradients.

`low_rank_attention` folds context and P into the effective factor of each sequence, length laws
into its temperature, and calls `forward` of `oracle.attention_kernel`, where the equations are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oracle.attention_kernel import Gradients, Problem, Result, backward, forward, problem_of

__all__ = [
    "Gradients",
    "Result",
    "backward",
    "effective_factor",
    "forward",
    "length_law",
    "low_rank_attention",
    "low_rank_attention_backward",
    "temperature_of",
    "token_counts",
]

Floats = NDArray[np.float64]

LENGTH_LAWS = {"log": 1.0, "sqrt_log": 0.5, "log_squared": 2.0}  # powers of log n


def _tokens_of(key: ArrayLike, options: dict[str, Any]) -> Problem:
    """Which tokens each sequence has."""
    chosen = [options.get(name) for name in ("cu_seqlens", "lengths", "mask")]
    return problem_of(key, None, None, *chosen, None, 1.0)


def token_counts(key: ArrayLike, **options: Any) -> NDArray[np.intp]:
    """Count the valid tokens of each sequence; `cu_seqlens`, `lengths` and `mask` are `options`."""
    return np.array([len(rows) for rows in _tokens_of(key, options).rows], np.intp)


def length_law(name: str, counts: ArrayLike) -> Floats:
    """max(1, (log n)^p), the factor on scores of sequences with n tokens."""
    logs = np.log(np.maximum(np.asarray(counts), 1))
    return np.maximum(1.0, logs ** LENGTH_LAWS[name])


def temperature_of(
    temperature: ArrayLike, length_scale: str | ArrayLike | None, counts: NDArray[np.intp], m: int
) -> tuple[Floats, Floats]:
    """Return T and the length law, both (B, m); a vector that fits both is per head."""
    t = np.asarray(temperature, np.float64)
    if t.ndim == 1 and len(t) != m:
        t = t[:, None]
    if length_scale is None:
        law = np.ones(len(counts))
    elif isinstance(length_scale, str):
        law = length_law(length_scale, counts)
    else:
        law = np.asarray(length_scale, np.float64)
    shape = (len(counts), m)
    return np.broadcast_to(t, shape), np.broadcast_to(law[:, None], shape)


def _contexts(key: ArrayLike, context: Any, options: dict[str, Any]) -> Floats:
    """(dk,) or (B, dk); "mean" of a sequence without tokens is 0."""
    if not isinstance(context, str):
        return np.asarray(context).astype(np.float64)
    p = _tokens_of(key, options)
    means = [p.key[rows].sum(axis=0) / max(len(rows), 1) for rows in p.rows]
    return np.array(means).reshape(len(p.rows), p.key.shape[1])


def effective_factor(query: ArrayLike, P: ArrayLike, context: Floats) -> Floats:
    """q_j = sum_r (p_rj . c) q_rj: (dk, m), or (B, dk, m) for contexts (B, dk)."""
    if context.ndim == 2:
        return np.array([effective_factor(query, P, c) for c in context]).reshape(
            len(context), np.shape(query)[0], np.shape(query)[-1]
        )
    q, p = np.asarray(query).astype(np.float64), np.asarray(P).astype(np.float64)
    if q.ndim == 2:
        q, p = q[:, None], p[:, None]
    return np.einsum("irj,i,drj->dj", p, context, q)


def _native_bias(bias: ArrayLike | None, ragged: bool, m: int) -> Any:
    b = None if bias is None else np.asarray(bias)
    if b is None or b.ndim == (2 if ragged else 3):
        return b
    if b.ndim == 1 and len(b) == m:
        return b.reshape((1,) * (1 if ragged else 2) + (m,))
    return b[..., None]


class _Native(NamedTuple):
    """The public arguments as `forward` takes them."""

    query: Any
    law: Floats
    context: Floats | None
    arguments: dict[str, Any]


def _native(key: ArrayLike, query: ArrayLike, value: ArrayLike | None, **options: Any) -> _Native:
    tokens = {name: options.get(name) for name in ("cu_seqlens", "lengths", "mask")}
    context, factor = None, np.asarray(query)
    if options.get("P") is not None:
        context = _contexts(key, options["context"], tokens)
        factor = effective_factor(query, options["P"], context)
    m = factor.shape[-1]
    counts = token_counts(key, **tokens)
    t, law = temperature_of(options.get("temperature", 1.0), options.get("length_scale"), counts, m)
    arguments = {
        **tokens,
        "value": value,
        "bias": _native_bias(options.get("bias"), tokens["cu_seqlens"] is not None, m),
        "temperature": t / law,
        "activation": options.get("activation"),
        "norm": options.get("norm"),
    }
    return _Native(factor, law, context, arguments)


def low_rank_attention(
    key: ArrayLike, query: ArrayLike, value: ArrayLike | None = None, **options: Any
) -> Result:
    """What `embedcore.attention.low_rank_attention` computes, with its arguments and shapes."""
    native = _native(key, query, value, **options)
    return forward(key, native.query, **native.arguments)


def _reduce_to(gradient: Floats, like: ArrayLike) -> Floats:
    """Sum over the axes that `like` was broadcast along; shapes aligned at the right."""
    shape = np.shape(like)
    total = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    spread = tuple(i for i, n in enumerate(shape) if n == 1)
    return np.asarray(total.sum(axis=spread, keepdims=True)).reshape(shape)


def _through_factor(
    key: ArrayLike, query: ArrayLike, native: _Native, d_factor: Floats, options: dict[str, Any]
) -> dict[str, Floats]:
    """Gradients of query, P and context, and what a mean context adds to that of key."""
    q, p = np.asarray(query).astype(np.float64), np.asarray(options["P"]).astype(np.float64)
    q3, p3 = (q[:, None], p[:, None]) if q.ndim == 2 else (q, p)
    assert native.context is not None
    d_query, d_p, d_contexts = np.zeros_like(q3), np.zeros_like(p3), []
    for c, d in zip(np.atleast_2d(native.context), d_factor, strict=True):
        g = np.einsum("irj,i->rj", p3, c)
        d_g = np.einsum("drj,jd->rj", q3, d)
        d_query += np.einsum("rj,jd->drj", g, d)
        d_p += np.einsum("i,rj->irj", c, d_g)
        d_contexts.append(np.einsum("irj,rj->i", p3, d_g))
    found = {"query": d_query.reshape(q.shape), "P": d_p.reshape(p.shape)}
    if not isinstance(options["context"], str):
        return {**found, "context": np.array(d_contexts).reshape(native.context.shape)}
    problem = _tokens_of(key, options)
    added = np.zeros_like(problem.key)
    for rows, d_context in zip(problem.rows, d_contexts, strict=True):
        added[rows] += d_context / max(len(rows), 1)
    return {**found, "key": added.reshape(np.shape(key))}


def low_rank_attention_backward(
    key: ArrayLike,
    query: ArrayLike,
    value: ArrayLike | None = None,
    *,
    grad_out: ArrayLike,
    grad_lse: ArrayLike | None = None,
    **options: Any,
) -> dict[str, Floats]:
    """Gradients of sum(grad_out * out) + sum(grad_lse * lse), one for each argument that was given.

    Shapes are those of the arguments; `options` are as of `low_rank_attention`.
    """
    native = _native(key, query, value, **options)
    g = backward(key, native.query, grad_out=grad_out, grad_lse=grad_lse, **native.arguments)
    assert g.query is not None
    found = {"key": g.key}
    if options.get("P") is None:
        found["query"] = np.moveaxis(g.query, 1, 2).reshape(np.shape(query))
    else:
        through = _through_factor(key, query, native, g.query, options)
        found["key"] = found["key"] + through.pop("key", 0.0)
        found.update(through)
    if g.value is not None:
        found["value"] = g.value
    if options.get("mask") is not None and np.asarray(options["mask"]).dtype != bool:
        found["mask"] = g.mask
    if native.arguments["bias"] is not None:
        bias = _reduce_to(np.moveaxis(g.bias, -2, -1), native.arguments["bias"])
        found["bias"] = bias.reshape(np.shape(options["bias"]))
    t = np.asarray(options.get("temperature", 1.0), np.float64)
    per_sequence = t.ndim == 1 and len(t) != native.query.shape[-1]
    found["temperature"] = _reduce_to(
        g.temperature / native.law, t[:, None] if per_sequence else t
    ).reshape(t.shape)
    return found
