# SPDX-License-Identifier: Apache-2.0
"""Attention for plain eager calls: the kernels without the dispatcher, which costs more.

The operator (`_ops`) gives the same results; what watches or transforms calls goes there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad

from ._kernels import Inputs, Options, Results, Wanted, attend, attend_backward
from ._ops import call_backward

__all__ = ["is_plain", "needs_grad", "run_plain"]

_PLAIN = frozenset((torch.Tensor, torch.nn.Parameter, type(None), float))

# What says that somebody watches or transforms the calls of this thread.
_is_compiling = torch.compiler.is_compiling
_dispatch_modes = torch._C._len_torch_dispatch_stack
_function_modes = torch._C._len_torch_function_stack
_tracing_state = torch._C._get_tracing_state
_transform = torch._C._functorch.peek_interpreter_stack


def is_plain(*arguments: Any) -> bool:
    """Tell whether a call on these (tensors, floats, None) is plain eager work on the CPU.

    The first argument is a tensor.
    """
    if _is_compiling():
        return False
    for argument in arguments:
        if type(argument) not in _PLAIN:
            return False
    return (
        arguments[0].is_cpu
        and _dispatch_modes() == 0
        and _function_modes() == 0
        and _transform() is None
        and _tracing_state() is None
        and forward_ad._current_level < 0
    )


def needs_grad(arguments: tuple[Any, ...]) -> bool:
    """Tell whether one of these (tensors, numbers, None) requires grad."""
    for argument in arguments:
        if argument is not None and type(argument) is not float and argument.requires_grad:
            return True
    return False


def run_plain(
    arguments: Inputs,
    options: Options,
    keep_lse: bool,
    keep_weights: bool,
    out: Any = None,
) -> tuple[Any, Any, Any]:
    """Return out, lse and weights, the last two None where not kept."""
    if needs_grad(arguments):
        if torch.is_grad_enabled():
            found = _Attend.apply(*arguments, options, keep_lse, keep_weights)
            return found if keep_lse or keep_weights else (found, None, None)
        arguments = _detached(arguments)
    results = attend(arguments, options, keep_lse, False, keep_weights, out)
    return results.out, results.lse, results.weights


def _detached(arguments: Any) -> tuple[Any, ...]:
    """Return the same memory without autograd: the kernels refuse tensors that require grad."""
    return tuple(
        argument.detach()
        if argument is not None and type(argument) is not float and argument.requires_grad
        else argument
        for argument in arguments
    )


class _Attend(torch.autograd.Function):  # type: ignore[misc]
    """The operator's gradient, without the operator."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Any:
        options, keep_lse, keep_weights = arguments[9:]
        out, lse, scores, weights, context, context_lse = attend(
            _detached(arguments[:9]), options, True, True, keep_weights
        )
        temperature = arguments[8]
        number = type(temperature) is float
        ctx.temperature = temperature if number else 1.0
        ctx.options = options
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(
            *arguments[:8], None if number else temperature, out, lse, scores, context, context_lse
        )
        if not (keep_lse or keep_weights):
            return out
        if weights is not None:
            ctx.mark_non_differentiable(weights)
        return out, lse, weights

    @staticmethod
    def backward(ctx: Any, grad_out: Any, grad_lse: Any = None, _: Any = None) -> Any:
        saved = ctx.saved_tensors
        need = ctx.needs_input_grad
        wanted = Wanted(need[0], need[1], need[2], need[3], need[6], need[7], need[8])
        if grad_out is None:
            grad_out = torch.zeros_like(saved[9])
        if torch.is_grad_enabled():
            # Gradients of gradients may follow, and the operator says that there are none.
            found = _recorded_backward(ctx, grad_out, grad_lse, saved, wanted)
        else:
            plain = _detached(saved)
            temperature = ctx.temperature if plain[8] is None else plain[8]
            out, lse, scores, context, context_lse = plain[9:]
            found = attend_backward(
                grad_out,
                grad_lse,
                (*plain[:8], temperature),
                ctx.options,
                Results(out, lse, scores, None, context, context_lse),
                wanted,
            )
        key, query, value, P, mask, bias, temperature = found
        return key, query, value, P, None, None, mask, bias, temperature, None, None, None


def _recorded_backward(
    ctx: Any, grad_out: Any, grad_lse: Any, saved: Any, wanted: Wanted
) -> tuple[Any, ...]:
    kept = [grad_out.new_empty(0) if tensor is None else tensor for tensor in saved[9:]]
    found = call_backward(
        grad_out, grad_lse, *saved[:9], ctx.temperature, *ctx.options, *kept, list(wanted)
    )
    return tuple(gradient if want else None for gradient, want in zip(found, wanted, strict=True))
