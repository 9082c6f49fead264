# SPDX-License-Identifier: Apache-2.0
"""`embedcore.torch.low_rank_attention` and `mean_pool`: arguments to the form of the operator."""

from __future__ import annotations

from typing import Any

import torch

from .._check import integer
from ..attention._arguments import ACTIVATIONS, NORMS, option_code
from ..attention._bias import resolve_bias
from ..attention._temperature import count_tokens, resolve_temperature
from ._eager import is_plain, needs_grad, run_plain
from ._kernels import fold
from ._ops import call_operator

__all__ = ["low_rank_attention", "mean_pool"]

_ATTENTION = "attention.low_rank_attention"
_MEAN = "attention.mean_pool"


def low_rank_attention(
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
    return_lse: bool = False,
    return_weights: bool = False,
    threads: int | None = None,
    out: Any = None,
) -> Any:
    """Pool the tokens of each sequence by m heads; differentiable.

    The function of :func:`embedcore.attention.low_rank_attention`, where the arguments are
    described, on CPU tensors.

    Parameters
    ----------
    key, query, value, context, P, mask, bias, temperature, length_scale
        Tensors as there; gradients flow to those that are floating. With ``context="mean"`` that
        of the mean is added to that of `key` in place.
    lengths, cu_seqlens : tensor of integers or sequence of int, optional
    activation, norm, return_lse, return_weights, threads
        As there.
    out : tensor (B, m, dv), optional
        Only where no gradient is recorded.

    Returns
    -------
    tensor (B, m, dv), or tuple of it, lse and weights
        Of the dtype of `key`. `lse` is differentiable, the weights are not.

    Raises
    ------
    TypeError
        Arguments that are no tensors, or of another dtype; tensors on several devices or on one
        without kernels; `out` where a gradient is recorded.
    ValueError
        Shapes and values as there.
    NotImplementedError
        Gradients of gradients, and forward-mode derivatives.

    Notes
    -----
    Works under ``torch.compile(fullgraph=True)``, ``torch.export``, ``torch.vmap`` and
    ``torch.func.grad`` as the operator ``embedcore::low_rank_attention``. Autocast casts nothing:
    bfloat16 tokens go with a float32 `query` as they are. Accumulated in float32, float64 for
    float64 tokens.

    Complexity: as there; the backward does three times the work of the forward. Memory beyond the
    inputs: the gradient of the tokens, and 4 m bytes per token for the scores.

    References
    ----------
    As there.

    Examples
    --------
    >>> import torch
    >>> from embedcore.torch import low_rank_attention
    >>> hidden = torch.randn(4, 10, 16)
    >>> Q = torch.randn(16, 3, requires_grad=True)
    >>> pooled = low_rank_attention(hidden, Q, activation="tanh", norm="l2", temperature=0.25)
    >>> pooled.square().sum().backward()
    >>> tuple(pooled.shape), tuple(Q.grad.shape)
    ((4, 3, 16), (16, 3))
    """
    options = (
        0 if activation is None else option_code(_ATTENTION, "activation", activation, ACTIVATIONS),
        0 if norm is None else option_code(_ATTENTION, "norm", norm, NORMS),
        0 if threads is None else integer(_ATTENTION, "threads", threads, minimum=1, maximum=1024),
    )
    if mask is not None or lengths is not None or cu_seqlens is not None:
        mask, lengths, cu_seqlens = _limits(_ATTENTION, key, mask, lengths, cu_seqlens)
    if (
        context is not None
        or P is not None
        or bias is not None
        or length_scale is not None
        or type(temperature) is not float
    ):
        _check_tensors(_ATTENTION, "key", key, query=query, P=P, bias=bias)
        query, P, bias, temperature = _resolve(
            key, query, context, P, mask, lengths, cu_seqlens, temperature, length_scale, bias
        )
    arguments = (key, query, value, P, cu_seqlens, lengths, mask, bias, temperature)
    result, lse, weights = _run(
        _ATTENTION, "key", arguments, options, return_lse, return_weights, out
    )
    if return_lse:
        return (result, lse, weights) if return_weights else (result, lse)
    return (result, weights) if return_weights else result


def mean_pool(
    tokens: Any,
    *,
    mask: Any = None,
    lengths: Any = None,
    cu_seqlens: Any = None,
    weights: Any = None,
    threads: int | None = None,
    out: Any = None,
) -> Any:
    """Return the mean of the valid tokens of each sequence, weighted if wanted; differentiable.

    The function of :func:`embedcore.attention.mean_pool` on CPU tensors.

    Parameters
    ----------
    tokens : tensor (B, L, d), or (T, d) with `cu_seqlens`
        float16, bfloat16, float32 or float64.
    mask : boolean tensor (B, L) or (T,), optional
        Which tokens are valid.
    lengths, cu_seqlens : tensor of integers or sequence of int, optional
        (B,) and (B + 1,), as there.
    weights : tensor (B, L) or (T,), optional
        Non-negative weight of each token. The gradient of a weight of 0 is taken as 0. Under
        compilation and other transforms of Torch values are not checked, and negative weights count
        as 0.
    threads : int, optional
        Default: :func:`embedcore.get_num_threads`.
    out : tensor (B, d), optional
        Only where no gradient is recorded.

    Returns
    -------
    tensor (B, d)
        Of the dtype of `tokens`; accumulated in float32, float64 for float64. 0 for a sequence
        without valid tokens.

    Raises
    ------
    TypeError
        Arguments that are no tensors, or of another dtype or device; `out` where a gradient is
        recorded.
    ValueError
        Shapes and values as there.

    Notes
    -----
    Complexity: O(n d) for n valid tokens; the others are not read.

    Examples
    --------
    >>> import torch
    >>> from embedcore.torch import mean_pool
    >>> mean_pool(torch.arange(12.0).reshape(2, 3, 2), lengths=[2, 3])
    tensor([[1., 2.],
            [8., 9.]])
    """
    workers = 0 if threads is None else integer(_MEAN, "threads", threads, minimum=1, maximum=1024)
    if mask is not None or lengths is not None or cu_seqlens is not None:
        mask, lengths, cu_seqlens = _limits(_MEAN, tokens, mask, lengths, cu_seqlens)
    if mask is not None and mask.dtype is not torch.bool:
        raise TypeError(
            f"{_MEAN}: 'mask' must be boolean (true where a token counts); got {mask.dtype}. "
            "Give numbers as 'weights'."
        )
    if weights is not None:
        mask = _log_weights(tokens, mask, weights)
    if out is not None:
        _check_tensors(_MEAN, "tokens", tokens, out=out)
        shape = (_sequences(tokens, cu_seqlens), tokens.shape[-1])
        if tuple(out.shape) != shape:
            raise ValueError(
                f"{_MEAN}: 'out' must have the shape {shape}; got shape {tuple(out.shape)}."
            )
        out_rows = out[:, None]
    else:
        out_rows = None
    arguments = (tokens, None, None, None, cu_seqlens, lengths, mask, None, 1.0)
    pooled, _, _ = _run(_MEAN, "tokens", arguments, (0, 0, workers), False, False, out_rows)
    return pooled.squeeze(1) if out is None else out


def _run(
    where: str,
    tokens_name: str,
    arguments: tuple[Any, ...],
    options: tuple[int, int, int],
    keep_lse: bool,
    keep_weights: bool,
    out: Any,
) -> tuple[Any, Any, Any]:
    if out is not None and torch.is_grad_enabled() and (needs_grad(arguments) or out.requires_grad):
        raise TypeError(
            f"{where}: 'out' must not be given where a gradient is recorded; got inputs that "
            "require grad. Use torch.no_grad(), or take the result without 'out'."
        )
    if is_plain(*arguments):
        return run_plain(arguments, options, keep_lse, keep_weights, out)
    key, query, value, P, offsets, lengths, mask, bias, temperature = arguments
    _check_tensors(
        where, tokens_name, key, query=query, value=value, P=P, cu_seqlens=offsets,
        lengths=lengths, mask=mask, bias=bias, out=out,
    )  # fmt: skip
    scores = torch.is_grad_enabled() and needs_grad(arguments)
    number = isinstance(temperature, float)
    found = call_operator(
        *arguments[:8],
        None if number else temperature,
        temperature if number else 1.0,
        *options,
        scores and not torch.compiler.is_exporting(),
        keep_weights,
    )
    if out is not None:
        return out.copy_(found[0]), found[1], found[3]
    return found[0], found[1], found[3]


def _limits(
    where: str, tokens: Any, mask: Any, lengths: Any, cu_seqlens: Any
) -> tuple[Any, Any, Any]:
    """Return what limits the tokens in dtypes that the kernels take, on the device of `tokens`."""
    name = "tokens" if where == _MEAN else "key"
    lengths = _integers(where, "lengths", lengths, tokens)
    cu_seqlens = _integers(where, "cu_seqlens", cu_seqlens, tokens)
    _check_tensors(where, name, tokens, mask=mask, lengths=lengths, cu_seqlens=cu_seqlens)
    if lengths is not None and cu_seqlens is not None:
        raise ValueError(
            f"{where}: 'lengths' must not be given together with 'cu_seqlens', which has the "
            "lengths already; got both."
        )
    if mask is not None and mask.dtype not in (torch.bool, torch.float32, torch.float64):
        if not mask.dtype.is_floating_point:
            raise TypeError(
                f"{where}: 'mask' must be boolean (true where a token counts) or floating-point "
                f"(added to the scores); got {mask.dtype}. Use mask != 0."
            )
        mask = mask.float()
    return mask, lengths, cu_seqlens


def _integers(where: str, argument: str, values: Any, like: Any) -> Any:
    if isinstance(values, (list, tuple)):
        values = torch.tensor(values, dtype=torch.int64, device=getattr(like, "device", None))
    if not isinstance(values, torch.Tensor) or values.dtype in (torch.int32, torch.int64):
        return values
    if values.dtype.is_floating_point or values.dtype.is_complex or values.dtype is torch.bool:
        raise TypeError(f"{where}: '{argument}' must have an integer dtype; got {values.dtype}.")
    return values.long()


def _check_tensors(where: str, name: str, tokens: Any, **others: Any) -> None:
    for argument, tensor in ((name, tokens), *others.items()):
        if tensor is None and argument != name:
            continue
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(
                f"{where}: '{argument}' must be a torch.Tensor; got {type(tensor).__name__}."
            )
        if tensor.device.type not in ("cpu", "meta"):
            raise TypeError(
                f"{where}: '{argument}' must be on the CPU, because this build has no kernels for "
                f"other devices; got device {tensor.device}."
            )
        if tensor.device != tokens.device:
            raise TypeError(
                f"{where}: '{argument}' must be on the device of '{name}' ({tokens.device}); "
                f"got device {tensor.device}."
            )


def _sequences(key: Any, offsets: Any) -> Any:
    return key.shape[0] if offsets is None else offsets.shape[0] - 1


def _resolve(
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
    if key.dim() != (3 if offsets is None else 2):
        wanted = "3-D (sequences, tokens, columns)" if offsets is None else "2-D (tokens, columns)"
        raise ValueError(f"{_ATTENTION}: 'key' must be {wanted}; got shape {tuple(key.shape)}.")
    sequences = _sequences(key, offsets)
    if isinstance(context, str):
        if context != "mean":
            raise ValueError(
                f"{_ATTENTION}: 'context' must be a tensor or 'mean'; got {context!r}."
            )
        _check_mean_context(key, query, P)
    else:
        _check_tensors(_ATTENTION, "key", key, context=context)
        query = fold(query, context, P, sequences)
        P = None
    heads = query.shape[-1]
    if length_scale is not None or not isinstance(temperature, float):
        temperature = resolve_temperature(
            _ATTENTION,
            temperature,
            length_scale,
            count_tokens(sequences, key.shape[-2], mask, lengths, offsets)
            if isinstance(length_scale, str)
            else None,
            sequences,
            heads,
        )
    return query, P, resolve_bias(_ATTENTION, bias, tuple(key.shape[:-1]), heads), temperature


def _check_mean_context(key: Any, query: Any, P: Any) -> None:
    """Refuse what `fold` would refuse inside the operator."""
    stand_in = query.new_empty(query.shape[:1])
    fold(query, stand_in, P, 1)
    if query.shape[0] != key.shape[-1]:
        raise ValueError(
            f"{_ATTENTION}: 'query' must have as many rows as 'key' has columns "
            f"({key.shape[-1]}); got shape {tuple(query.shape)}."
        )


def _log_weights(tokens: Any, mask: Any, weights: Any) -> Any:
    """Return what is added to the scores, all 0, to make `weights` of them."""
    _check_tensors(_MEAN, "tokens", tokens, weights=weights)
    if not weights.dtype.is_floating_point:
        raise TypeError(f"{_MEAN}: 'weights' must have a floating dtype; got {weights.dtype}.")
    if weights.shape != tokens.shape[:-1]:
        raise ValueError(
            f"{_MEAN}: 'weights' must have one value for each token {tuple(tokens.shape[:-1])}; "
            f"got shape {tuple(weights.shape)}."
        )
    weights = weights.to(torch.float64 if tokens.dtype is torch.float64 else torch.float32)
    if is_plain(tokens, weights):
        bad = ~((weights >= 0) & (weights < torch.inf))
        bad = bad if mask is None else bad & mask
        if bad.any():
            first = tuple(bad.nonzero()[0].tolist())
            raise ValueError(
                f"{_MEAN}: 'weights' must be non-negative and finite; "
                f"got {weights[first].item()} at {first}."
            )
    counted = weights > 0 if mask is None else (weights > 0) & mask
    # The inner choice keeps log(0), whose gradient is not finite, out of the graph.
    return torch.where(counted, torch.where(counted, weights, 1.0).log(), -torch.inf)
