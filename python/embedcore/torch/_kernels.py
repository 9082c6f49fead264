# SPDX-License-Identifier: Apache-2.0
"""The native forward and backward, where the tensors are: outputs are allocated here.

Both functions know nothing of autograd. With `P` the context of each sequence is the mean of its
valid tokens: the forward keeps it, and the backward adds its gradient in place to that of the
tokens, so that no second array of the size of the tokens is made.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple, TypeAlias

import torch

from .. import _core
from ..attention import _on_device
from ..attention._fold import fold_query

__all__ = [
    "ATTENTION",
    "MEAN",
    "Inputs",
    "Options",
    "Results",
    "Wanted",
    "attend",
    "attend_backward",
    "fold",
    "per_token",
    "real_dtype",
    "sequence_count",
    "wide_dtype",
]

# key, query, value, P, offsets, lengths, mask, bias and temperature (a float or a tensor).
Inputs: TypeAlias = tuple[Any, ...]
# Activation, norm and threads.
Options: TypeAlias = tuple[int, int, int]

# What errors name.
ATTENTION = "attention.low_rank_attention"
MEAN = "attention.mean_pool"


class Results(NamedTuple):
    """What the forward computes; None for what was not asked for."""

    out: Any
    lse: Any
    scores: Any
    weights: Any
    context: Any  # in float32 or float64, as lse and all that follow scores
    context_lse: Any
    wide: Any  # out before it is rounded to a half precision; on a GPU, in int8, what that leaves


class Wanted(NamedTuple):
    """Which gradients are wanted."""

    key: bool
    query: bool
    value: bool
    P: bool
    mask: bool
    bias: bool
    temperature: bool


def attend(
    inputs: Inputs,
    options: Options,
    keep_lse: bool = False,
    keep_scores: bool = False,
    keep_weights: bool = False,
    out: Any = None,
) -> Results:
    """Run the forward; `query` None pools with equal weights, `out` is written where given."""
    key, query, value, P, offsets, lengths, mask, bias, temperature = inputs
    where = MEAN if query is None else ATTENTION
    real = real_dtype(key)
    sequences = sequence_count(key, offsets)
    context = context_lse = None
    if P is not None:
        mean = key.new_empty(sequences, 1, key.shape[-1])
        context = mean if real is key.dtype else mean.to(real)
        context_lse = key.new_empty(sequences, 1, dtype=real)
        _native(key).attention_forward(
            where, key, None, None, offsets, lengths, valid(mask), None, 1.0, 0, 0, options[2],
            mean, context_lse, None, None, None if context is mean else context,
        )  # fmt: skip
        query = fold(query, context[:, 0], P, sequences)
    heads = 1 if query is None else query.shape[-1]
    if out is None:
        out = key.new_empty(sequences, heads, (key if value is None else value).shape[-1])
    lse = key.new_empty(sequences, heads, dtype=real) if keep_lse else None
    scores = weights = wide = None
    if keep_scores:
        if query is not None:
            scores = key.new_empty(*per_token(key, heads, offsets), dtype=real)
        if real is not key.dtype:
            wide = key.new_empty(*out.shape, dtype=wide_dtype(key))
    if keep_weights:
        weights = key.new_empty(*per_token(key, heads, offsets), dtype=real)
    _native(key).attention_forward(
        where, key, value, query, offsets, lengths, mask, bias, temperature, *options, out,
        lse, scores, weights, *((wide,) if key.is_cpu else (None, wide)),
    )  # fmt: skip
    return Results(out, lse, scores, weights, context, context_lse, wide)


def attend_backward(
    grad_out: Any,
    grad_lse: Any,
    grad_weights: Any,
    inputs: Inputs,
    options: Options,
    results: Results,
    wanted: Wanted,
) -> tuple[Any, Any, Any, Any, Any, Any, Any]:
    """Run the backward; the gradients come in the order of `Wanted`, None where not wanted.

    Scores that the forward did not keep are computed again.
    """
    key, query, value, P, offsets, lengths, mask, bias, temperature = inputs
    where = MEAN if query is None else ATTENTION
    real = real_dtype(key)
    effective = query
    if P is not None:
        effective = fold(query, results.context[:, 0], P, grad_out.shape[0])
    sequences, heads, _ = grad_out.shape
    if results.scores is None and query is not None:
        again = (key, effective, value, None, *inputs[4:])
        found = attend(again, options, keep_scores=True)
        results = results._replace(scores=found.scores, wide=found.wide)
    whole = key.is_cpu and results.wide is not None
    out = results.wide if whole else results.out
    if grad_weights is not None:
        grad_weights = grad_weights.to(real).contiguous()
    grad_key = key.new_empty(*key.shape) if wanted.key else None
    grad_value = value.new_empty(*value.shape) if wanted.value else None
    grad_effective: Any = None
    if wanted.query or wanted.P or (P is not None and wanted.key):
        lead = sequences if effective.dim() == 3 else 1
        grad_effective = key.new_empty(lead, heads, key.shape[-1], dtype=real)
    grad_temperature = key.new_empty(sequences, heads, dtype=real) if wanted.temperature else None
    grad_bias = key.new_empty(*per_token(key, heads, offsets), dtype=real) if wanted.bias else None
    grad_mask = key.new_empty(*key.shape[:-1], dtype=real) if wanted.mask else None
    _native(key).attention_backward(
        where, key, value, effective, offsets, lengths, mask, bias, temperature, *options,
        grad_out, out, results.lse, results.scores, grad_lse, grad_weights, grad_key, grad_value,
        grad_effective, grad_temperature, grad_bias, grad_mask, False,
        *(() if key.is_cpu else (results.wide,)),
    )  # fmt: skip
    grad_query = grad_P = None
    if P is not None and grad_effective is not None:
        with without_autocast(key):
            grad_query, grad_P, grad_context = _fold_backward(
                grad_effective, query, P, results.context[:, 0], wanted
            )
        if grad_key is not None:
            _add_mean_backward(grad_context, grad_key, inputs, options, results)
    elif wanted.query:
        grad_query = _as_query(grad_effective, query)
    if grad_temperature is not None:
        grad_temperature = _as_broadcast(grad_temperature, temperature)
    if grad_bias is not None:
        grad_bias = _as_broadcast(grad_bias.mT, bias)
    if grad_mask is not None:
        grad_mask = grad_mask.to(mask.dtype)
    return grad_key, grad_query, grad_value, grad_P, grad_mask, grad_bias, grad_temperature


def _native(key: Any) -> Any:
    """Return the module whose kernels run where `key` lies."""
    return _core if key.is_cpu else _on_device


def fold(query: Any, context: Any, P: Any, sequences: int) -> Any:
    """Return `fold_query` in the dtypes that it asks for, under autocast too."""
    with without_autocast(query):
        return fold_query(ATTENTION, query, context, P, sequences)


def without_autocast(like: Any) -> Any:
    """Return a context in which products of matrices on the device of `like` keep their dtype."""
    device = like.device.type
    if device in ("cpu", "cuda") and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


def real_dtype(key: Any) -> Any:
    """Return the dtype of sums and of what is not of the dtype of the tokens."""
    return torch.float64 if key.dtype is torch.float64 else torch.float32


def wide_dtype(key: Any) -> Any:
    """Return the dtype of `Results.wide`."""
    return real_dtype(key) if key.device.type == "cpu" else torch.int8


def sequence_count(key: Any, offsets: Any) -> Any:
    """Return B."""
    return key.shape[0] if offsets is None else offsets.shape[0] - 1


def per_token(key: Any, heads: int, offsets: Any) -> tuple[Any, ...]:
    """Return the shape of what has a value for each head and token."""
    if offsets is not None:
        return (heads, key.shape[0])
    return (key.shape[0], heads, key.shape[1])


def valid(mask: Any) -> Any:
    """Return a float mask as the boolean mask of the tokens that it keeps."""
    if mask is None or mask.dtype is torch.bool:
        return mask
    return mask != -torch.inf


def _as_query(grad: Any, query: Any) -> Any:
    """Return the gradient of the factor, (1 or B, m, dk), with the shape and dtype of `query`."""
    if grad.dtype is not query.dtype:
        grad = grad.to(query.dtype)
    if grad.shape[1] > 1:
        grad = grad.mT
    return grad.view_as(query)


def _as_broadcast(grad: Any, given: Any) -> Any:
    """Return the gradient of what was broadcast from `given`, with its shape and dtype."""
    if grad.shape != given.shape:
        grad = grad.sum_to_size(given.shape)
    return grad.to(given.dtype)


def _add_mean_backward(
    grad_context: Any, grad_key: Any, inputs: Inputs, options: Options, results: Results
) -> None:
    """Add the gradient that tokens have through their mean to `grad_key`."""
    key, _, _, _, offsets, lengths, mask, _, _ = inputs
    _native(key).attention_backward(
        ATTENTION, key, None, None, offsets, lengths, valid(mask), None, 1.0, 0, 0, options[2],
        grad_context[:, None], results.context, results.context_lse, None, None, None,
        grad_key, None, None, None, None, None, True,
    )  # fmt: skip


def _fold_backward(
    grad: Any, query: Any, P: Any, context: Any, wanted: Wanted
) -> tuple[Any, Any, Any]:
    """Return the gradients of query, P and context from that of the factor, (B, m, dk)."""
    width, heads = query.shape[0], query.shape[-1]
    q = query.to(grad.dtype).reshape(width, -1, heads)
    p = P.to(grad.dtype).reshape(width, -1, heads)
    c = context.to(grad.dtype)
    grad_query = grad_P = None
    if wanted.query:
        gate = torch.einsum("be,erj->brj", c, p)
        grad_query = torch.einsum("brj,bjd->drj", gate, grad)
        grad_query = grad_query.reshape(query.shape).to(query.dtype)
    grad_gate = torch.einsum("bjd,drj->brj", grad, q)
    if wanted.P:
        grad_P = torch.einsum("be,brj->erj", c, grad_gate).reshape(P.shape).to(P.dtype)
    grad_context = torch.einsum("brj,erj->be", grad_gate, p)
    return grad_query, grad_P, grad_context
