# SPDX-License-Identifier: Apache-2.0
r"""Attention pooling with learned probes, folded into low-rank attention.

A probe p that attends to tokens x in multi-head attention scores them, in head h, by
:math:`(W_Q p + b_Q)_h \cdot (W_K x + b_K)_h / \sqrt{e}`. What is fixed comes first:
:math:`q_h = W_{K,h}' (W_Q p + b_Q)_h` makes the score :math:`q_h \cdot x / \sqrt{e}` but for a term
of b_K, the same for all tokens, which softmax does not see. Values are projected after pooling:
weights sum to 1, so :math:`\sum_t A_t (W_V x_t + b_V) = W_V \sum_t A_t x_t + b_V`. Neither keys nor
values of the tokens are ever made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .._check import integer
from ._arguments import as_torch_or_numpy, check_one_kind
from ._kinds import cast, widen

__all__ = ["FoldedAttention", "fold_multihead_attention"]

_WHERE = "attention.fold_multihead_attention"
_PARTS = ("query", "key", "value")


@dataclass(frozen=True)
class FoldedAttention:
    """Multi-head attention of N probes as low-rank attention with m = N * heads.

    ``folded.project(low_rank_attention(x, folded.query, temperature=folded.temperature))`` is what
    ``nn.MultiheadAttention`` returns for the probes as queries and x as keys and values.

    Attributes
    ----------
    query : array (dk, N * heads), or (B, dk, N * heads) for probes of each sequence
        The factor; head h of probe n is column ``n * heads + h``.
    temperature : float
        Square root of the width of a head.
    """

    query: Any
    temperature: float
    value_weight: Any  # (heads, dv, e)
    value_bias: Any  # (E,) or None
    out_weight: Any  # (E out, E) or None
    out_bias: Any

    def project(self, pooled: Any) -> Any:
        """Apply the value projection and the output projection to pooled tokens.

        Parameters
        ----------
        pooled : array (B, N * heads, dv)
            What :func:`low_rank_attention` returned; NumPy or Torch as the weights are.

        Returns
        -------
        array (B, N, E)
            In the dtype of `pooled`, computed in float32 (float64 if an input is). A sequence
            without tokens gets what the biases alone give.

        Raises
        ------
        TypeError
            No floating array, or one of another kind than the weights.
        ValueError
            Another shape.
        """
        where = "attention.FoldedAttention.project"
        pooled = as_torch_or_numpy(where, "pooled", pooled)
        check_one_kind(where, "'pooled' and the weights", pooled, self.value_weight)
        heads, columns, width = self.value_weight.shape
        shape = tuple(pooled.shape)
        if len(shape) != 3 or shape[1] % heads != 0 or shape[2] != columns:
            raise ValueError(
                f"{where}: 'pooled' must have shape (sequences, probes * {heads}, {columns}); "
                f"got shape {shape}."
            )
        sequences, rows = shape[0], shape[1] // heads
        wide, weight = widen(pooled, self.value_weight)
        # (heads, e, dk) @ (heads, dk, B N): the weight as it lies, and so its gradient.
        by_head = wide.reshape(sequences * rows, heads, columns).swapaxes(0, 1).swapaxes(1, 2)
        found = weight.swapaxes(1, 2) @ by_head
        found = found.swapaxes(1, 2).swapaxes(0, 1).reshape(sequences, rows, heads * width)
        if self.value_bias is not None:
            found = found + widen(self.value_bias, found)[0]
        if self.out_weight is not None:
            found = found @ widen(self.out_weight, found)[0].swapaxes(0, 1)
        if self.out_bias is not None:
            found = found + widen(self.out_bias, found)[0]
        return cast(found, pooled.dtype)


def fold_multihead_attention(
    probe: Any,
    num_heads: int,
    in_proj_weight: Any,
    in_proj_bias: Any = None,
    out_proj_weight: Any = None,
    out_proj_bias: Any = None,
) -> FoldedAttention:
    r"""Fold multi-head attention pooling (SigLIP's MAP head, PMA, CoCa's pooler) into a factor.

    Parameters
    ----------
    probe : array (N, E) or (E,), or (B, N, E)
        The queries, before projection; with 3 axes those of each sequence, or of all if B = 1.
    num_heads : int
        Must divide E.
    in_proj_weight : array (3 E, E), or sequence of arrays (E, E), (E, dk), (E, dv)
        As in ``nn.MultiheadAttention``: query, key and value weights, stacked or apart.
    in_proj_bias : array (3 E,), or sequence of three arrays (E,) or None, optional
    out_proj_weight : array (E', E), optional
    out_proj_bias : array (E',), optional

    Returns
    -------
    FoldedAttention
        Its `query` and `temperature` go to :func:`low_rank_attention`, and the result of that to
        its method `project`. Exact but for rounding; of the kind of the weights, under Torch
        differentiable in all of them.

    Raises
    ------
    TypeError
        Arrays of another kind or dtype; `num_heads` that is no integer.
    ValueError
        Shapes that do not fit.

    Notes
    -----
    N * heads multiply-adds for each column of a token replace the E of its projections. The bias of
    the keys changes nothing. Heads that normalise their keys cannot be folded.

    References
    ----------
    Lee et al., Set Transformer, arXiv 1810.00825 (PMA). Zhai et al., Sigmoid Loss for Language
    Image Pre-Training, arXiv 2303.15343 (MAP head).

    Examples
    --------
    >>> import numpy as np
    >>> from embedcore import attention
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((2, 10, 8))
    >>> folded = attention.fold_multihead_attention(
    ...     rng.standard_normal((1, 8)), 4, rng.standard_normal((24, 8))
    ... )
    >>> pooled = attention.low_rank_attention(x, folded.query, temperature=folded.temperature)
    >>> folded.project(pooled).shape
    (2, 1, 8)
    """
    heads = integer(_WHERE, "num_heads", num_heads, minimum=1)
    probe = _array("probe", probe)
    weights, biases = _weights(in_proj_weight), _biases(in_proj_bias)
    out_weight, out_bias = (
        _optional("out_proj_weight", out_proj_weight),
        _optional("out_proj_bias", out_proj_bias),
    )
    check_one_kind(
        _WHERE, "'probe' and the weights", probe, *weights, *biases, out_weight, out_bias
    )
    _check_shapes(probe, heads, weights, biases, out_weight, out_bias)
    embed = weights[0].shape[0]
    width = embed // heads
    wide, query_weight, key_weight = widen(probe, weights[0], weights[1])
    projected = wide @ query_weight.swapaxes(0, 1)
    if biases[0] is not None:
        projected = projected + widen(biases[0], projected)[0]
    lead = tuple(projected.shape[:-2]) if len(probe.shape) > 1 else ()
    rows = projected.shape[-2] if len(probe.shape) > 1 else 1
    # (heads, B N, e) @ (heads, e, dk)
    by_head = projected.reshape(-1, heads, width).swapaxes(0, 1)
    factor = by_head @ key_weight.reshape(heads, width, -1)
    factor = factor.swapaxes(0, 1).reshape(*lead, rows * heads, -1).swapaxes(-1, -2)
    value_weight = weights[2].reshape(heads, width, -1).swapaxes(1, 2)
    return FoldedAttention(
        query=factor[0] if lead == (1,) else factor,
        temperature=math.sqrt(width),
        value_weight=value_weight,
        value_bias=biases[2],
        out_weight=out_weight,
        out_bias=out_bias,
    )


def _array(argument: str, array: Any) -> Any:
    return as_torch_or_numpy(_WHERE, argument, array)


def _optional(argument: str, array: Any) -> Any:
    return None if array is None else _array(argument, array)


def _parts(argument: str, given: Any, axes: int, shape: str) -> tuple[Any, ...]:
    """Return the parts of query, key and value of what is stacked, or three arrays."""
    if isinstance(given, (list, tuple)):
        if len(given) != 3:
            raise ValueError(
                f"{_WHERE}: '{argument}' must have three parts (query, key, value); "
                f"got {len(given)}."
            )
        return tuple(_optional(f"{argument}[{i}]", part) for i, part in enumerate(given))
    stacked = _array(argument, given)
    if len(stacked.shape) != axes or stacked.shape[0] % 3 != 0:
        raise ValueError(
            f"{_WHERE}: '{argument}' must have shape {shape}, or be three arrays; "
            f"got shape {tuple(stacked.shape)}."
        )
    # Taken apart at once: each slice of a tensor would get a gradient as large as the whole.
    return tuple(stacked.reshape(3, -1, *stacked.shape[1:]))


def _weights(given: Any) -> tuple[Any, ...]:
    parts = _parts("in_proj_weight", given, 2, "(3 * E, E)")
    return tuple(_array(f"in_proj_weight[{i}]", part) for i, part in enumerate(parts))


def _biases(given: Any) -> tuple[Any, ...]:
    return (None, None, None) if given is None else _parts("in_proj_bias", given, 1, "(3 * E,)")


def _check_shapes(
    probe: Any,
    heads: int,
    weights: tuple[Any, ...],
    biases: tuple[Any, ...],
    out_weight: Any,
    out_bias: Any,
) -> None:
    for name, weight in zip(_PARTS, weights, strict=True):
        if len(weight.shape) != 2 or weight.shape[0] != weights[0].shape[0]:
            raise ValueError(
                f"{_WHERE}: 'in_proj_weight' must have parts of two axes with as many rows each; "
                f"got shape {tuple(weight.shape)} for the {name}."
            )
    embed = weights[0].shape[0]
    if embed == 0 or embed % heads != 0:
        raise ValueError(
            f"{_WHERE}: 'num_heads' must divide the width of the projections ({embed}); "
            f"got {heads}."
        )
    if not 1 <= len(probe.shape) <= 3 or probe.shape[-1] != weights[0].shape[1]:
        raise ValueError(
            f"{_WHERE}: 'probe' must have as many columns as the query weight has "
            f"({weights[0].shape[1]}); got shape {tuple(probe.shape)}."
        )
    for name, bias in zip(_PARTS, biases, strict=True):
        if bias is not None and tuple(bias.shape) != (embed,):
            raise ValueError(
                f"{_WHERE}: 'in_proj_bias' must have {embed} values for the {name}; "
                f"got shape {tuple(bias.shape)}."
            )
    if out_weight is not None and (len(out_weight.shape) != 2 or out_weight.shape[1] != embed):
        raise ValueError(
            f"{_WHERE}: 'out_proj_weight' must have shape (columns of the result, {embed}); "
            f"got shape {tuple(out_weight.shape)}."
        )
    rows = embed if out_weight is None else out_weight.shape[0]
    if out_bias is not None and tuple(out_bias.shape) != (rows,):
        raise ValueError(
            f"{_WHERE}: 'out_proj_bias' must have shape ({rows},); "
            f"got shape {tuple(out_bias.shape)}."
        )
