# SPDX-License-Identifier: Apache-2.0
"""Arguments of the functions of attention: kinds, devices and shapes, and the operator's forms."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
import torch

from ..attention._bias import resolve_bias
from ..attention._kinds import check_floating, is_floating, is_integer
from ..attention._temperature import count_tokens, resolve_temperature
from ._eager import is_plain
from ._kernels import ATTENTION, MEAN, fold, sequence_count

__all__ = [
    "check_operands",
    "check_tensors",
    "check_tokens",
    "limits",
    "log_weights",
    "positive_number",
    "resolve_scores",
]


def check_tokens(where: str, name: str, tokens: Any, offsets: Any) -> None:
    """Refuse tokens that are no tensor, or of another number of axes than the layout has."""
    if not isinstance(tokens, torch.Tensor):
        raise _no_tensor(where, name, tokens)
    if tokens.dim() != (3 if offsets is None else 2):
        wanted = "(sequences, tokens, columns)"
        if offsets is not None:
            wanted = "(tokens, columns) with 'cu_seqlens'"
        raise ValueError(
            f"{where}: '{name}' must have shape {wanted}; got shape {tuple(tokens.shape)}."
        )


def check_operands(key: Any, query: Any, value: Any) -> None:
    """Refuse a query or value that is no tensor, or has another number of axes."""
    if not isinstance(query, torch.Tensor):
        raise _no_tensor(ATTENTION, "query", query)
    if query.dim() < 2:
        raise ValueError(
            f"{ATTENTION}: 'query' must have two axes (columns, heads) or three; "
            f"got shape {tuple(query.shape)}."
        )
    if value is None:
        return
    if not isinstance(value, torch.Tensor):
        raise _no_tensor(ATTENTION, "value", value)
    if value.dim() != key.dim():
        raise ValueError(
            f"{ATTENTION}: 'value' must have one row for each token of 'key' "
            f"{tuple(key.shape[:-1])}; got shape {tuple(value.shape)}."
        )


def check_tensors(where: str, name: str, tokens: Any, **others: Any) -> None:
    """Refuse what is no tensor or None, tensors on several devices or on one without kernels.

    The message names `tokens` by `name`.
    """
    at_home = tokens.is_cpu
    for argument, tensor in ((name, tokens), *others.items()):
        if tensor is None:
            continue
        if not isinstance(tensor, torch.Tensor):
            raise _no_tensor(where, argument, tensor)
        if at_home and tensor.is_cpu:
            continue
        device = tensor.device
        if device.type not in ("cpu", "cuda", "meta"):
            raise TypeError(
                f"{where}: '{argument}' must be on the CPU or a CUDA device; got device {device}."
            )
        if device != tokens.device:
            raise TypeError(
                f"{where}: '{argument}' must be on the device of '{name}' ({tokens.device}); got "
                f"device {device}."
            )


def limits(
    where: str, name: str, tokens: Any, mask: Any, lengths: Any, offsets: Any
) -> tuple[Any, Any, Any]:
    """Return mask, lengths and offsets, which limit the tokens, in dtypes that the kernels take.

    Their shapes are checked, and that of `tokens`, which messages call `name`; not their values.
    """
    if lengths is not None and offsets is not None:
        raise ValueError(
            f"{where}: 'lengths' must not be given together with 'cu_seqlens', which has the "
            "lengths already; got both."
        )
    check_tokens(where, name, tokens, offsets)
    lengths = _integers(where, "lengths", lengths, tokens)
    offsets = _integers(where, "cu_seqlens", offsets, tokens)
    check_tensors(where, name, tokens, mask=mask, lengths=lengths, cu_seqlens=offsets)
    if offsets is not None and (offsets.dim() != 1 or offsets.shape[0] == 0):
        raise ValueError(
            f"{where}: 'cu_seqlens' must have shape (sequences + 1,); "
            f"got shape {tuple(offsets.shape)}."
        )
    if lengths is not None and lengths.shape != tokens.shape[:1]:
        raise ValueError(
            f"{where}: 'lengths' must have one value for each sequence ({tokens.shape[0]},); "
            f"got shape {tuple(lengths.shape)}."
        )
    return None if mask is None else _mask(where, name, tokens, mask), lengths, offsets


def resolve_scores(
    key: Any,
    query: Any,
    context: Any,
    P: Any,
    mask: Any,
    lengths: Any,
    offsets: Any,
    temperature: Any,
    length_scale: Any,
    bias: Any,
) -> tuple[Any, Any, Any, Any]:
    """Return query, P, bias and temperature for the operator; P for a mean context only."""
    tensors = {"query": query, "P": P, "bias": bias}
    for argument, given in (("temperature", temperature), ("length_scale", length_scale)):
        if isinstance(given, (torch.Tensor, np.ndarray)):
            tensors[argument] = given
    if not isinstance(context, str):
        tensors["context"] = context
    check_tensors(ATTENTION, "key", key, **tensors)
    sequences = sequence_count(key, offsets)
    if isinstance(context, str):
        _check_mean_context(key, query, context, P)
    elif context is not None or P is not None:
        query, P = fold(query, context, P, sequences), None
    heads = query.shape[-1]
    if length_scale is not None or type(temperature) is not float:
        counts = None
        if isinstance(length_scale, str):
            counts = count_tokens(sequences, key.shape[-2], mask, lengths, offsets)
        temperature = resolve_temperature(
            ATTENTION, temperature, length_scale, counts, sequences, heads
        )
        if isinstance(length_scale, torch.Tensor) and is_plain(length_scale):
            _check_scale(length_scale)
    return query, P, resolve_bias(ATTENTION, bias, tuple(key.shape[:-1]), heads), temperature


def log_weights(tokens: Any, mask: Any, lengths: Any, weights: Any) -> Any:
    """Return what is added to the scores, all 0, to make `weights` of them."""
    check_tensors(MEAN, "tokens", tokens, weights=weights)
    check_floating(MEAN, "weights", weights)
    if weights.shape != tokens.shape[:-1]:
        raise ValueError(
            f"{MEAN}: 'weights' must have one value for each token {tuple(tokens.shape[:-1])}; "
            f"got shape {tuple(weights.shape)}."
        )
    weights = weights.to(torch.float64 if tokens.dtype is torch.float64 else torch.float32)
    if is_plain(tokens, weights):
        bad = ~((weights >= 0) & (weights < torch.inf))
        bad = bad if mask is None else bad & mask
        if lengths is not None:
            bad &= torch.arange(bad.shape[1]) < lengths[:, None]
        if bad.any():
            first = tuple(bad.nonzero()[0].tolist())
            raise ValueError(
                f"{MEAN}: 'weights' must be non-negative and finite; "
                f"got {weights[first].item()} at {first}."
            )
    counted = weights > 0 if mask is None else (weights > 0) & mask
    # The inner choice keeps log(0), whose gradient is not finite, out of the graph.
    return torch.where(counted, torch.where(counted, weights, 1.0).log(), -torch.inf)


def positive_number(where: str, argument: str, value: Any) -> float:
    """Return a number as a float; refuse others, and what is not positive and finite."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{where}: '{argument}' must be a number; got {type(value).__name__}.")
    found = float(value)
    if not 0.0 < found < math.inf:
        raise ValueError(f"{where}: '{argument}' must be positive and finite; got {value}.")
    return found


def _no_tensor(where: str, argument: str, given: Any) -> TypeError:
    return TypeError(f"{where}: '{argument}' must be a torch.Tensor; got {type(given).__name__}.")


def _integers(where: str, argument: str, values: Any, like: Any) -> Any:
    """Return int32 or int64, for lists too; what is no tensor comes back."""
    if isinstance(values, (list, tuple)):
        dtype = None if values else torch.int64
        values = torch.tensor(values, dtype=dtype, device=like.device)
    if not isinstance(values, torch.Tensor) or values.dtype in (torch.int32, torch.int64):
        return values
    if not is_integer(values):
        raise TypeError(f"{where}: '{argument}' must have an integer dtype; got {values.dtype}.")
    return values.long()


def _mask(where: str, name: str, tokens: Any, mask: Any) -> Any:
    if mask.shape != tokens.shape[:-1]:
        raise ValueError(
            f"{where}: 'mask' must have one value for each token of '{name}' "
            f"{tuple(tokens.shape[:-1])}; got shape {tuple(mask.shape)}."
        )
    if mask.dtype in (torch.bool, torch.float32, torch.float64):
        return mask
    if not is_floating(mask):
        raise TypeError(
            f"{where}: 'mask' must be boolean (true where a token counts) or floating-point "
            f"(added to the scores); got {mask.dtype}. Use mask != 0."
        )
    return mask.float()


def _check_mean_context(key: Any, query: Any, context: str, P: Any) -> None:
    """Refuse what `fold` would refuse inside the operator."""
    if context != "mean":
        raise ValueError(f"{ATTENTION}: 'context' must be a tensor or 'mean'; got {context!r}.")
    fold(query, query.new_empty(query.shape[:1]), P, 1)
    if query.shape[0] != key.shape[-1]:
        raise ValueError(
            f"{ATTENTION}: 'query' must have as many rows as 'key' has columns "
            f"({key.shape[-1]}); got shape {tuple(query.shape)}."
        )


def _check_scale(length_scale: Any) -> None:
    bad = ~((length_scale > 0) & (length_scale < torch.inf))
    if bad.any():
        first = int(bad.nonzero()[0])
        raise ValueError(
            f"{ATTENTION}: 'length_scale' must be positive and finite; "
            f"got {length_scale[first].item()} for sequence {first}."
        )
