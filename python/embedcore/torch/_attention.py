# SPDX-License-Identifier: Apache-2.0
"""`embedcore.torch.low_rank_attention` and `mean_pool`: arguments to the form of the operator."""

from __future__ import annotations

from typing import Any

import torch

from .. import _core
from .._check import integer
from ..attention._arguments import ACTIVATIONS, NORMS, option_code
from ._arguments import (
    check_operands,
    check_tensors,
    check_tokens,
    limits,
    log_weights,
    resolve_scores,
)
from ._eager import is_plain, needs_grad, run_plain
from ._kernels import ATTENTION, MEAN, sequence_count
from ._ops import REVISION, call_operator

__all__ = ["low_rank_attention", "mean_pool"]


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
    described, on tensors of the CPU or of a CUDA device.

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
        Of the dtype of `key`; lse and weights in float32, float64 for float64. All have gradients;
        those of the weights cost one more reading of the values.

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
        0 if activation is None else option_code(ATTENTION, "activation", activation, ACTIVATIONS),
        0 if norm is None else option_code(ATTENTION, "norm", norm, NORMS),
        0 if threads is None else integer(ATTENTION, "threads", threads, minimum=1, maximum=1024),
    )
    if (
        type(temperature) is float and isinstance(query, torch.Tensor)
        and value is None and context is None and P is None and mask is None and lengths is None
        and cu_seqlens is None and length_scale is None and bias is None and out is None
        and not return_lse and not return_weights
        and is_plain(key, query) and key.dim() == 3 and query.dim() == 2
        and not (torch.is_grad_enabled() and (key.requires_grad or query.requires_grad))
    ):  # fmt: skip
        # As in the function for NumPy: the kernel checks what is not checked here.
        sequences, _, columns = key.shape
        pooled = key.new_empty(sequences, query.shape[1], columns)
        _core.attention_forward(
            ATTENTION, key, None, query, None, None, None, None, temperature, *options, pooled,
            None, None, None,
        )  # fmt: skip
        return pooled
    if mask is not None or lengths is not None or cu_seqlens is not None:
        mask, lengths, cu_seqlens = limits(ATTENTION, "key", key, mask, lengths, cu_seqlens)
    else:
        check_tokens(ATTENTION, "key", key, None)
    check_operands(key, query, value)
    if (
        context is not None
        or P is not None
        or bias is not None
        or length_scale is not None
        or type(temperature) is not float
    ):
        query, P, bias, temperature = resolve_scores(
            key, query, context, P, mask, lengths, cu_seqlens, temperature, length_scale, bias
        )
    if out is not None:
        check_tensors(ATTENTION, "key", key, out=out)
    arguments = (key, query, value, P, cu_seqlens, lengths, mask, bias, temperature)
    result, lse, weights = _run(
        ATTENTION, "key", arguments, options, return_lse, return_weights, out
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

    The function of :func:`embedcore.attention.mean_pool` on tensors of the CPU or of a CUDA device.

    Parameters
    ----------
    tokens : tensor (B, L, d), or (T, d) with `cu_seqlens`
        float16, bfloat16, float32 or float64.
    mask : boolean tensor (B, L) or (T,), optional
        Which tokens are valid.
    lengths, cu_seqlens : tensor of integers or sequence of int, optional
        (B,) and (B + 1,), as there.
    weights : tensor (B, L) or (T,), optional
        Non-negative weight of each token. The gradient of a weight of 0 is taken as 0. On a
        CUDA device, under compilation and in other transforms of Torch values are not checked, and
        negative weights count as 0.
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
    workers = 0 if threads is None else integer(MEAN, "threads", threads, minimum=1, maximum=1024)
    if mask is not None or lengths is not None or cu_seqlens is not None:
        mask, lengths, cu_seqlens = limits(MEAN, "tokens", tokens, mask, lengths, cu_seqlens)
    else:
        check_tokens(MEAN, "tokens", tokens, None)
    if mask is not None and mask.dtype is not torch.bool:
        raise TypeError(
            f"{MEAN}: 'mask' must be boolean (true where a token counts); got {mask.dtype}. "
            "Give numbers as 'weights'."
        )
    if weights is not None:
        mask = log_weights(tokens, mask, lengths, weights)
    out_rows = None
    if out is not None:
        check_tensors(MEAN, "tokens", tokens, out=out)
        shape = (sequence_count(tokens, cu_seqlens), tokens.shape[-1])
        if tuple(out.shape) != shape:
            raise ValueError(
                f"{MEAN}: 'out' must have the shape {shape}; got shape {tuple(out.shape)}."
            )
        out_rows = out[:, None]
    arguments = (tokens, None, None, None, cu_seqlens, lengths, mask, None, 1.0)
    pooled, _, _ = _run(MEAN, "tokens", arguments, (0, 0, workers), False, False, out_rows)
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
    if out is not None and torch.is_grad_enabled() and needs_grad((*arguments, out)):
        raise TypeError(
            f"{where}: 'out' must not be given where a gradient is recorded; got inputs that "
            "require grad. Use torch.no_grad(), or take the result without 'out'."
        )
    if is_plain(*arguments):
        return run_plain(arguments, options, keep_lse, keep_weights, out)
    key, query, value, P, offsets, lengths, mask, bias, temperature = arguments
    check_tensors(
        where, tokens_name, key, query=query, value=value, P=P, cu_seqlens=offsets,
        lengths=lengths, mask=mask, bias=bias,
    )  # fmt: skip
    scores = torch.is_grad_enabled() and needs_grad(arguments)
    number = isinstance(temperature, float)
    found = call_operator(
        *arguments[:8],
        None if number else temperature,
        temperature if number else 1.0,
        *options,
        REVISION,
        scores and not torch.compiler.is_exporting(),
        keep_weights,
    )
    if out is not None:
        return out.copy_(found[0]), found[1], found[3]
    return found[0], found[1], found[3]
