# SPDX-License-Identifier: Apache-2.0
"""Attention for plain eager calls: the kernels without the dispatcher, which costs more.

The operator (`_ops`) gives the same results; what watches or transforms calls goes there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.autograd import forward_ad

from ._kernels import Inputs, Options, Results, Wanted, attend, attend_backward
from ._ops import REVISION, call_backward

__all__ = ["is_plain", "needs_grad", "run_plain"]

_PLAIN = frozenset((torch.Tensor, torch.nn.Parameter, type(None), float))

# What says that somebody watches or transforms the calls of this thread.
_is_compiling = torch.compiler.is_compiling
_dispatch_modes = torch._C._len_torch_dispatch_stack
_function_modes = torch._C._len_torch_function_stack
_tracing_state = torch._C._get_tracing_state
_transform = torch._C._functorch.peek_interpreter_stack
# Of torch.autograd.grad(is_grads_batched=True), which is no transform of those.
_is_batched = torch._C._functorch.is_legacy_batchedtensor


def is_plain(*arguments: Any) -> bool:
    """Tell whether a call on these is plain eager work on the CPU.

    The first must be a tensor, the others tensors, floats or None.
    """
    if _is_compiling():
        return False
    for argument in arguments:
        if type(argument) not in _PLAIN:
            return False
    return (
        getattr(arguments[0], "is_cpu", False)
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
    if not torch.is_grad_enabled() or not needs_grad(arguments):
        results = attend(arguments, options, keep_lse, False, keep_weights, out)
        return results.out, results.lse, results.weights
    call = _Call(arguments, options, keep_lse, keep_weights)
    key, query, value, P, _, _, mask, bias, temperature = arguments
    if needs_grad((value, P, mask, bias, temperature)):
        found = _apply(key, query, call, value, P, mask, bias, temperature)
    else:
        found = _apply_few(key, query, call)
    return found if keep_lse or keep_weights else (found, None, None)


class _Call(NamedTuple):
    """What autograd need not see."""

    inputs: Inputs
    options: Options
    keep_lse: bool
    keep_weights: bool


class _AttendFew(torch.autograd.Function):  # type: ignore[misc]
    """Gradients of key and query alone: autograd takes time for each argument of a function."""

    @staticmethod
    def forward(ctx: Any, key: Any, query: Any, call: _Call) -> Any:
        return _record(ctx, call)

    @staticmethod
    def backward(ctx: Any, grad_out: Any, grad_lse: Any = None, grad_weights: Any = None) -> Any:
        key, query = ctx.needs_input_grad[:2]
        wanted = Wanted(key, query, False, False, False, False, False)
        found = _gradients(ctx, grad_out, grad_lse, grad_weights, wanted)
        return found[0], found[1], None


class _Attend(torch.autograd.Function):  # type: ignore[misc]
    """Gradients of whatever is differentiable."""

    @staticmethod
    def forward(ctx: Any, key: Any, query: Any, call: _Call, *others: Any) -> Any:
        return _record(ctx, call)

    @staticmethod
    def backward(ctx: Any, grad_out: Any, grad_lse: Any = None, grad_weights: Any = None) -> Any:
        key, query, _, *others = ctx.needs_input_grad
        found = _gradients(ctx, grad_out, grad_lse, grad_weights, Wanted(key, query, *others))
        return found[0], found[1], None, *found[2:]


# Of the class below Function, whose own `apply` first asks whether a transform is active.
_apply = super(torch.autograd.Function, _Attend).apply
_apply_few = super(torch.autograd.Function, _AttendFew).apply


def _record(ctx: Any, call: _Call) -> Any:
    inputs, options, keep_lse, keep_weights = call
    out, lse, scores, weights, context, context_lse, wide = attend(
        inputs, options, True, True, keep_weights
    )
    temperature = inputs[8]
    number = type(temperature) is float
    ctx.temperature = temperature if number else 1.0
    ctx.options = options
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(
        *inputs[:8], None if number else temperature, out, lse, scores, context, context_lse, wide
    )
    if not (keep_lse or keep_weights):
        return out
    return out, lse, weights


def _gradients(
    ctx: Any, grad_out: Any, grad_lse: Any, grad_weights: Any, wanted: Wanted
) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    if grad_out is None:
        grad_out = torch.zeros_like(saved[9])
    if (
        torch.is_grad_enabled()
        or not is_plain(grad_out, grad_lse, grad_weights)
        or _is_batched(grad_out)
    ):
        # Gradients of gradients may follow, and the operator says that there are none; or the
        # backward alone is watched or batched.
        kept = [grad_out.new_empty(0) if tensor is None else tensor for tensor in saved[9:]]
        found = call_backward(
            grad_out, grad_lse, grad_weights, *saved[:9], ctx.temperature, *ctx.options,
            REVISION, *kept, list(wanted),
        )  # fmt: skip
        return tuple(
            gradient if want else None for gradient, want in zip(found, wanted, strict=True)
        )
    *inputs, temperature, out, lse, scores, context, context_lse, wide = saved
    inputs.append(ctx.temperature if temperature is None else temperature)
    results = Results(out, lse, scores, None, context, context_lse, wide)
    return attend_backward(
        grad_out, grad_lse, grad_weights, tuple(inputs), ctx.options, results, wanted
    )
