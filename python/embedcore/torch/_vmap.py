# SPDX-License-Identifier: Apache-2.0
"""`torch.vmap` of the attention operators: the mapped axis becomes part of the batch."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["vmap_backward", "vmap_forward"]

_KEY, _QUERY, _VALUE, _P, _OFFSETS, _LENGTHS, _MASK, _BIAS, _TEMPERATURE = range(9)


def vmap_forward(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
    """Flatten the mapped axis into the batch where the tokens have it, else take turns.

    Tokens that are shared are not copied: the parts run one after the other over them.
    """
    size = info.batch_size
    fixed = arguments[9:]
    tensors = [_to_front(*pair) for pair in zip(arguments[:9], in_dims[:9], strict=True)]
    mapped = [dim is not None for dim in in_dims[:9]]
    shared = (_KEY,) if tensors[_VALUE] is None else (_KEY, _VALUE)
    # The P of a mean context is one for all sequences.
    if size == 0 or not all(mapped[i] for i in shared) or tensors[_P] is not None:
        return _in_turn(torch.ops.embedcore.low_rank_attention, size, arguments, in_dims)
    ragged = tensors[_OFFSETS] is not None
    key = tensors[_KEY]
    sequences = tensors[_OFFSETS].shape[-1] - 1 if ragged else key.shape[1]
    if ragged:
        tensors[_OFFSETS] = _joined_offsets(tensors[_OFFSETS], mapped[_OFFSETS], size, key.shape[1])
    for i in (_KEY, _VALUE):
        tensors[i] = _flat(tensors[i])
    for i in (_LENGTHS, _MASK):
        tensors[i] = _flat(_spread(tensors[i], mapped[i], size))
    if mapped[_QUERY]:
        tensors[_QUERY] = _for_each(tensors[_QUERY], 2, size, sequences)
    elif tensors[_QUERY] is not None and tensors[_QUERY].dim() == 3:
        tensors[_QUERY] = _flat(_spread(tensors[_QUERY], False, size))
    if tensors[_BIAS] is not None and (mapped[_BIAS] or tensors[_BIAS].shape[0] > 1):
        count = key.shape[1] if ragged else sequences
        bias = _spread(tensors[_BIAS], mapped[_BIAS], size)
        tensors[_BIAS] = _flat(bias.expand(size, count, *bias.shape[2:]))
    if tensors[_TEMPERATURE] is not None and (
        mapped[_TEMPERATURE] or tensors[_TEMPERATURE].shape[0] > 1
    ):
        spread = _spread(tensors[_TEMPERATURE], mapped[_TEMPERATURE], size)
        tensors[_TEMPERATURE] = _flat(spread.expand(size, sequences, spread.shape[-1]))
    out, lse, *rest = torch.ops.embedcore.low_rank_attention(*tensors, *fixed)
    scores, weights, context, context_lse, wide = rest
    unflattened = [out.unflatten(0, (size, sequences)), lse.unflatten(0, (size, sequences))]
    for kept in (scores, weights):
        if kept.dim() == 1:
            unflattened.append(kept.expand(size, 0))
        elif ragged:
            unflattened.append(kept.unflatten(1, (size, key.shape[1])).movedim(1, 0).contiguous())
        else:
            unflattened.append(kept.unflatten(0, (size, sequences)))
    unflattened += [context.expand(size, 0), context_lse.expand(size, 0)]
    unflattened.append(
        wide.expand(size, 0) if wide.dim() == 1 else wide.unflatten(0, (size, sequences))
    )
    return tuple(unflattened), (0,) * 7


def vmap_backward(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
    """Take turns: gradients of what is shared are wanted for each part."""
    operator = torch.ops.embedcore.low_rank_attention_backward
    return _in_turn(operator, info.batch_size, arguments, in_dims)


def _in_turn(
    operator: Any, size: int, arguments: tuple[Any, ...], in_dims: tuple[Any, ...]
) -> tuple[Any, Any]:
    parts = [
        operator(*(_select(*pair, turn) for pair in zip(arguments, in_dims, strict=True)))
        for turn in range(size)
    ]
    stacked = tuple(torch.stack(results) for results in zip(*parts, strict=True))
    return stacked, (0,) * len(stacked)


def _select(argument: Any, dim: Any, turn: int) -> Any:
    return argument.select(dim, turn) if isinstance(dim, int) else argument


def _to_front(tensor: Any, dim: Any) -> Any:
    return tensor.movedim(dim, 0) if dim is not None else tensor


def _spread(tensor: Any, mapped: bool, size: int) -> Any:
    return tensor if mapped or tensor is None else tensor.expand(size, *tensor.shape)


def _flat(tensor: Any) -> Any:
    return None if tensor is None else tensor.flatten(0, 1)


def _for_each(tensor: Any, axes: int, size: int, sequences: int) -> Any:
    """Return (size * sequences, ...) from what has `axes` axes or one of the sequences more."""
    if tensor.dim() == axes + 1:
        tensor = tensor[:, None].expand(size, sequences, *tensor.shape[1:])
    return _flat(tensor)


def _joined_offsets(offsets: Any, mapped: bool, size: int, tokens: int) -> Any:
    """Return the offsets of parts of `tokens` tokens that lie behind one another."""
    starts = torch.arange(size, device=offsets.device) * tokens
    each = _spread(offsets, mapped, size) + starts[:, None]
    return torch.cat([each[:, :-1].flatten(), starts[-1:] + tokens])
