# SPDX-License-Identifier: Apache-2.0
"""Low-rank attention in plain Torch, one sequence after the other: what autograd can follow.

Written from the equations of `attention.low_rank_attention`, for gradients; values have an oracle.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch

LAWS = {"sqrt_log": 0.5, "log": 1.0, "log_squared": 2.0}


def reference(
    key: Any,
    query: Any,
    value: Any = None,
    *,
    context: Any = None,
    P: Any = None,
    mask: Any = None,
    lengths: Any = None,
    cu_seqlens: Any = None,
    temperature: Any = 1.0,
    length_scale: Any = None,
    activation: str | None = None,
    norm: str | None = None,
    bias: Any = None,
) -> tuple[Any, Any]:
    """Return out and lse."""
    if cu_seqlens is None:
        spans: list[Any] = [(b, slice(0, n)) for b, n in enumerate(_counts(key, lengths))]
    else:
        ends = [int(end) for end in cu_seqlens]
        spans = [slice(*pair) for pair in itertools.pairwise(ends)]
    values = key if value is None else value
    heads = query.shape[-1]
    bias = _bias(bias, key.shape[:-1], heads)
    outs, lses = [], []
    for b, span in enumerate(spans):
        k, v, z = key[span], values[span], bias[span]
        added = torch.zeros(len(k), dtype=key.dtype)
        if mask is not None:
            kept = mask[span] if mask.dtype is torch.bool else mask[span] > -math.inf
            added = mask[span][kept] if mask.dtype is not torch.bool else added[kept]
            k, v, z = k[kept], v[kept], z[kept]
        if len(k) == 0:
            outs.append(torch.zeros(heads, v.shape[-1], dtype=key.dtype))
            lses.append(torch.full((heads,), -math.inf, dtype=key.dtype))
            continue
        a = k @ _factor(query, context, P, k, b) + z
        if activation == "tanh":
            a = a.tanh()
        if norm == "l2":
            a = a / a.norm(dim=1, keepdim=True)
        s = (a + added[:, None]) / _temperature(temperature, length_scale, len(spans), heads, b, k)
        outs.append(s.softmax(0).T @ v)
        lses.append(s.logsumexp(0))
    return torch.stack(outs), torch.stack(lses)


def _counts(key: Any, lengths: Any) -> list[int]:
    if lengths is None:
        return [key.shape[1]] * key.shape[0]
    return [int(length) for length in lengths]


def _bias(bias: Any, tokens: tuple[int, ...], heads: int) -> Any:
    if bias is None:
        return torch.zeros(*tokens, heads)
    if tuple(bias.shape) == (heads,):
        return bias.expand(*tokens, heads)
    if bias.dim() == len(tokens):
        bias = bias[..., None]
    return bias.expand(*tokens, heads)


def _factor(query: Any, context: Any, P: Any, tokens: Any, b: int) -> Any:
    if P is None:
        return query if query.dim() == 2 else query[b]
    if isinstance(context, str):
        c = tokens.mean(0)
    else:
        c = context if context.dim() == 1 else context[b]
    if query.dim() == 2:
        return query * (c @ P)
    return torch.einsum("d,drj,erj->ej", c, P, query)


def _temperature(
    temperature: Any, length_scale: Any, sequences: int, heads: int, b: int, tokens: Any
) -> Any:
    if isinstance(temperature, torch.Tensor):
        if temperature.dim() == 2:
            temperature = temperature.expand(sequences, heads)[b]
        elif temperature.shape == (sequences,) != (heads,):
            temperature = temperature[b]
    if length_scale is None:
        return temperature
    if isinstance(length_scale, str):
        return temperature / max(1.0, math.log(len(tokens)) ** LAWS[length_scale])
    return temperature / length_scale[b]
