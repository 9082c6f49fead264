# SPDX-License-Identifier: Apache-2.0
"""`embedcore::low_rank_attention` and its backward as operators that Torch's transforms know.

Compilation, export, `torch.func` and subclasses of Tensor come through here; plain eager calls do
not (`_eager`), because the dispatcher costs more than a small problem. Registered with
`torch.library.Library`, whose calls are cheaper than those of `custom_op`. Autocast has no rule on
purpose: the kernels take mixed dtypes as they are, and the output has the dtype of the tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad

from ._kernels import (
    Inputs,
    Options,
    Results,
    Wanted,
    attend,
    attend_backward,
    per_token,
    real_dtype,
    sequence_count,
    wide_dtype,
)
from ._revision import revision_of
from ._vmap import vmap_backward, vmap_forward

__all__ = ["REVISION", "attention_op", "call_backward", "call_operator"]

_NAMESPACE = "embedcore"
_FORWARD = "low_rank_attention"
_BACKWARD = "low_rank_attention_backward"

_OPTIONS = (
    "Tensor key, Tensor? query, Tensor? value, Tensor? P, Tensor? offsets, Tensor? lengths, "
    "Tensor? mask, Tensor? bias, Tensor? temperature, float temperature_value, int activation, "
    "int norm, int threads, str revision"
)

# Of two ways to give the temperature, the tensor wins. Outputs that are not asked for, or not
# wanted as gradients, are empty: an operator cannot return None. The revision changes nothing.
_SCHEMAS = (
    f"{_FORWARD}({_OPTIONS}, bool keep_scores, bool keep_weights) -> "
    "(Tensor out, Tensor lse, Tensor scores, Tensor weights, Tensor context, Tensor context_lse, "
    "Tensor wide)",
    f"{_BACKWARD}(Tensor grad_out, Tensor? grad_lse, Tensor? grad_weights, {_OPTIONS}, Tensor out, "
    "Tensor lse, Tensor scores, Tensor context, Tensor context_lse, Tensor wide, bool[] wanted) -> "
    "(Tensor grad_key, Tensor grad_query, Tensor grad_value, Tensor grad_P, Tensor grad_mask, "
    "Tensor grad_bias, Tensor grad_temperature)",
)
REVISION = revision_of(*_SCHEMAS)
_LIBRARY = torch.library.Library(_NAMESPACE, "FRAGMENT")
for _schema in _SCHEMAS:
    _LIBRARY.define(_schema)

# Positions in _OPTIONS of what has a gradient, in the order of Wanted.
_DIFFERENTIABLE = (0, 1, 2, 3, 6, 7, 8)
_OPTION_COUNT = 14


def _forward_native(*arguments: Any) -> tuple[Any, ...]:
    *options, keep_scores, keep_weights = arguments
    results = attend(
        *_inputs_and_options(options),
        keep_lse=True,
        keep_scores=keep_scores,
        keep_weights=keep_weights,
    )
    return tuple(_or_empty(result, results.out) for result in results)


def _backward_native(
    grad_out: Any, grad_lse: Any, grad_weights: Any, *arguments: Any
) -> tuple[Any, ...]:
    options, results, wanted = _split_backward(arguments)
    gradients = attend_backward(
        grad_out, grad_lse, grad_weights, *_inputs_and_options(options), results, Wanted(*wanted)
    )
    return tuple(_or_empty(gradient, grad_out).contiguous() for gradient in gradients)


def _forward_fake(*arguments: Any) -> tuple[Any, ...]:
    key, query, value, P, offsets = arguments[:5]
    keep_scores, keep_weights = arguments[-2:]
    sequences = sequence_count(key, offsets)
    heads = 1 if query is None else query.shape[-1]
    real = real_dtype(key)
    tokens = per_token(key, heads, offsets)
    columns = (key if value is None else value).shape[-1]
    return (
        key.new_empty((sequences, heads, columns)),
        key.new_empty((sequences, heads), dtype=real),
        key.new_empty(tokens, dtype=real)
        if keep_scores and query is not None
        else key.new_empty(0),
        key.new_empty(tokens, dtype=real) if keep_weights else key.new_empty(0),
        key.new_empty(0) if P is None else key.new_empty((sequences, 1, key.shape[-1]), dtype=real),
        key.new_empty(0) if P is None else key.new_empty((sequences, 1), dtype=real),
        key.new_empty((sequences, heads, columns), dtype=wide_dtype(key))
        if keep_scores and key.dtype is not real
        else key.new_empty(0),
    )


def _backward_fake(
    grad_out: Any, grad_lse: Any, grad_weights: Any, *arguments: Any
) -> tuple[Any, ...]:
    options, _, wanted = _split_backward(arguments)
    return tuple(
        options[position].new_empty(options[position].shape) if want else grad_out.new_empty(0)
        for position, want in zip(_DIFFERENTIABLE, wanted, strict=True)
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    options = inputs[:_OPTION_COUNT]
    out, lse, scores, weights, context, context_lse, wide = output
    fixed = (scores, context, context_lse, wide)
    ctx.mark_non_differentiable(*fixed, *(() if inputs[-1] else (weights,)))
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*options[:9], out, lse, scores, context, context_lse, wide)
    ctx.numbers = options[9:]


def _forward_gradient(
    ctx: Any, grad_out: Any, grad_lse: Any, _: Any, grad_weights: Any, *__: Any
) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[position] for position in _DIFFERENTIABLE]
    grad_out = torch.zeros_like(saved[9]) if grad_out is None else grad_out
    found = call_backward(
        grad_out, grad_lse, grad_weights, *saved[:9], *ctx.numbers, *saved[9:], wanted
    )
    gradients: list[Any] = [None] * (_OPTION_COUNT + 2)
    for position, gradient, want in zip(_DIFFERENTIABLE, found, wanted, strict=True):
        if want:
            gradients[position] = gradient
    return tuple(gradients)


def _setup_nothing(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    del ctx, inputs, output


def _refuse_twice(ctx: Any, *gradients: Any) -> Any:
    raise NotImplementedError(
        "attention.low_rank_attention: gradients of gradients must not be asked for, because the "
        "backward has none; got a second backward through it."
    )


def _split_backward(arguments: tuple[Any, ...]) -> tuple[tuple[Any, ...], Results, list[bool]]:
    options = arguments[:_OPTION_COUNT]
    out, lse, scores, context, context_lse, wide, wanted = arguments[_OPTION_COUNT:]
    kept = scores if scores.dim() > 1 else None
    rounded = wide if wide.dim() > 1 else None
    return options, Results(out, lse, kept, None, context, context_lse, rounded), wanted


def _inputs_and_options(arguments: Any) -> tuple[Inputs, Options]:
    *tensors, temperature, number, activation, norm, threads, _ = arguments
    inputs = (*tensors, number if temperature is None else temperature)
    return inputs, (activation, norm, threads)


def _or_empty(array: Any, like: Any) -> Any:
    return like.new_empty(0) if array is None else array


def _register() -> None:
    forward, backward = f"{_NAMESPACE}::{_FORWARD}", f"{_NAMESPACE}::{_BACKWARD}"
    for device in ("CPU", "CUDA"):
        _LIBRARY.impl(_FORWARD, _forward_native, device)
        _LIBRARY.impl(_BACKWARD, _backward_native, device)
    torch.library.register_fake(forward, _forward_fake, lib=_LIBRARY)
    torch.library.register_fake(backward, _backward_fake, lib=_LIBRARY)
    torch.library.register_autograd(
        forward, _forward_gradient, setup_context=_setup_context, lib=_LIBRARY
    )
    torch.library.register_autograd(
        backward, _refuse_twice, setup_context=_setup_nothing, lib=_LIBRARY
    )
    torch.library.register_vmap(forward, vmap_forward, lib=_LIBRARY)
    torch.library.register_vmap(backward, vmap_backward, lib=_LIBRARY)


_register()

attention_op = torch.ops.embedcore.low_rank_attention.default
_backward_op = torch.ops.embedcore.low_rank_attention_backward.default


class _Transformed(torch.autograd.Function):  # type: ignore[misc]
    """The operator for `torch.func.grad` and its kin, which cannot use registered gradients."""

    generate_vmap_rule = True
    setup_context = staticmethod(_setup_context)
    backward = staticmethod(_forward_gradient)

    @staticmethod
    def forward(*arguments: Any) -> Any:
        return attention_op(*arguments)


class _TransformedBackward(torch.autograd.Function):  # type: ignore[misc]
    generate_vmap_rule = True
    setup_context = staticmethod(_setup_nothing)
    backward = staticmethod(_refuse_twice)

    @staticmethod
    def forward(*arguments: Any) -> Any:
        return _backward_op(*arguments)


def call_operator(*arguments: Any) -> Any:
    """Call the operator in whatever transforms are active."""
    return _Transformed.apply(*arguments) if _is_transformed() else attention_op(*arguments)


def call_backward(*arguments: Any) -> Any:
    """Call the operator of the backward."""
    return _TransformedBackward.apply(*arguments) if _is_transformed() else _backward_op(*arguments)


def _is_transformed() -> bool:
    if torch.compiler.is_compiling():
        return False
    return (
        forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None
    )
