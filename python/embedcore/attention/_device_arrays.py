# SPDX-License-Identifier: Apache-2.0
"""`low_rank_attention` and `mean_pool` of arrays on a GPU that are not Torch's.

What surrounds the kernel (factors, temperatures) is computed by the arrays' own library, on the
device; values are not looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._device import Call, call_of
from ._arguments import as_integers
from ._bias import resolve_bias
from ._fold import fold_query
from ._kinds import namespace, widen
from ._on_device import attention_forward
from ._temperature import count_tokens, resolve_temperature

__all__ = ["attend_on_device", "pool_on_device"]

_ATTENTION = "attention.low_rank_attention"
_MEAN = "attention.mean_pool"


class _Tokens:
    """B sequences of tokens on a device, and what says which of them count."""

    def __init__(
        self, where: str, name: str, key: Any, mask: Any, lengths: Any, cu_seqlens: Any
    ) -> None:
        call = call_of(where, name, key, differentiable=True)
        assert call is not None, "only arrays on a GPU come here"
        if lengths is not None and cu_seqlens is not None:
            raise ValueError(
                f"{where}: 'lengths' must not be given together with 'cu_seqlens', which has the "
                "lengths already; got both."
            )
        self.call: Call = call
        self.key, self.mask = key, mask
        self.lengths = _integers(call, "lengths", lengths)
        self.offsets = _integers(call, "cu_seqlens", cu_seqlens)
        layout = call.floats(name, key, 3 if cu_seqlens is None else 2)
        self.dtype, self.lead, self.columns = layout.dtype, layout.shape[:-1], layout.shape[-1]
        self.sequences = layout.shape[0] if cu_seqlens is None else int(self.offsets.shape[0]) - 1

    @property
    def limits(self) -> tuple[Any, Any, Any]:
        return self.offsets, self.lengths, self.mask


def _integers(call: Call, argument: str, values: Any) -> Any:
    """Return lists as arrays on the device."""
    if not isinstance(values, (list, tuple)):
        return values
    return call.copied_from_host(as_integers(call.where, argument, values).astype(np.int64))


def attend_on_device(
    key: Any,
    query: Any,
    value: Any,
    context: Any,
    P: Any,
    mask: Any,
    lengths: Any,
    cu_seqlens: Any,
    temperature: Any,
    length_scale: Any,
    codes: tuple[int, int],
    bias: Any,
    return_lse: bool,
    return_weights: bool,
    out: Any,
) -> Any:
    """Return what `low_rank_attention` returns."""
    tokens = _Tokens(_ATTENTION, "key", key, mask, lengths, cu_seqlens)
    with tokens.call.on_device():
        return _attend(
            tokens, query, value, context, P, temperature, length_scale, codes, bias, return_lse,
            return_weights, out,
        )  # fmt: skip


def _attend(
    tokens: _Tokens,
    query: Any,
    value: Any,
    context: Any,
    P: Any,
    temperature: Any,
    length_scale: Any,
    codes: tuple[int, int],
    bias: Any,
    return_lse: bool,
    return_weights: bool,
    out: Any,
) -> Any:
    call = tokens.call
    if isinstance(context, str):
        if context != "mean":
            raise ValueError(
                f"{_ATTENTION}: 'context' must be an array or 'mean'; got {context!r}."
            )
        context = _mean(_ATTENTION, tokens)
    factor = fold_query(_ATTENTION, query, context, P, tokens.sequences)
    heads = call.floats("query", factor, 2, 3).shape[-1]
    counts = None
    if isinstance(length_scale, str):
        counts = count_tokens(
            tokens.sequences, tokens.lead[-1], tokens.mask, tokens.lengths, tokens.offsets
        )
    if length_scale is not None or type(temperature) is not float:
        temperature = resolve_temperature(
            _ATTENTION, temperature, length_scale, counts, tokens.sequences, heads
        )
    bias = resolve_bias(_ATTENTION, bias, tokens.lead, heads)
    columns = tokens.columns
    if value is not None:
        columns = call.floats("value", value, len(tokens.lead) + 1).shape[-1]
    pooled = call.made((tokens.sequences, heads, columns), tokens.dtype) if out is None else out
    lse = call.made((tokens.sequences, heads), "float32") if return_lse else None
    shape = (*tokens.lead[:-1], heads, tokens.lead[-1])
    weights = call.made(shape, "float32") if return_weights else None
    attention_forward(
        _ATTENTION, tokens.key, value, factor, *tokens.limits, bias, temperature, *codes, 0, pooled,
        lse, None, weights,
    )  # fmt: skip
    found = tuple(part for part in (pooled, lse, weights) if part is not None)
    return found if len(found) > 1 else pooled


def pool_on_device(
    tokens: Any, mask: Any, lengths: Any, cu_seqlens: Any, weights: Any, out: Any
) -> Any:
    """Return what `mean_pool` returns."""
    given = _Tokens(_MEAN, "tokens", tokens, mask, lengths, cu_seqlens)
    if mask is not None and given.call.booleans("mask", mask, len(given.lead)) is None:
        raise TypeError(
            f"{_MEAN}: 'mask' must be boolean (true where a token counts); got {mask.dtype}."
        )
    shape = (given.sequences, given.columns)
    pooled = given.call.made(shape, given.dtype) if out is None else out
    given.call.target("out", pooled, shape, given.dtype)
    with given.call.on_device():
        limits = mask if weights is None else _log_weights(given, weights)
        _pool(_MEAN, given, limits, pooled.reshape(given.sequences, 1, given.columns))
    return pooled


def _log_weights(tokens: _Tokens, weights: Any) -> Any:
    """Return what is added to the scores, all 0, to make `weights` of them."""
    shape = tokens.call.floats("weights", weights, len(tokens.lead)).shape
    if shape != tokens.lead:
        raise ValueError(
            f"{_MEAN}: 'weights' must have one value for each token {tokens.lead}; got shape "
            f"{shape}."
        )
    return log_weights(weights, tokens.mask)


def log_weights(weights: Any, mask: Any) -> Any:
    """Return the logarithms of `weights`, -infinity where `mask` is false."""
    xp = namespace(weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithms = xp.log(widen(weights)[0])
    return logarithms if mask is None else xp.where(mask, logarithms, -xp.inf)


def _mean(where: str, tokens: _Tokens) -> Any:
    """Return the means (B, d) of the valid tokens in float32."""
    shape = (tokens.sequences, 1, tokens.columns)
    mean = tokens.call.made(shape, "float32")
    mask = tokens.mask
    if mask is not None and tokens.call.booleans("mask", mask, len(tokens.lead)) is None:
        mask = mask != -np.inf
    _pool(where, tokens, mask, tokens.call.made(shape, tokens.dtype), mean)
    return mean.reshape(tokens.sequences, tokens.columns)


def _pool(where: str, tokens: _Tokens, mask: Any, pooled: Any, wide: Any = None) -> None:
    offsets, lengths, _ = tokens.limits
    attention_forward(
        where, tokens.key, None, None, offsets, lengths, mask, None, 1.0, 0, 0, 0, pooled, None,
        None, None, wide,
    )  # fmt: skip
