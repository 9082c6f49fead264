# SPDX-License-Identifier: Apache-2.0
"""How flat attention has become: what shrinks or grows when embeddings of long texts collapse."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ._arguments import as_integers, as_torch_or_numpy
from ._kinds import cast, namespace

__all__ = ["effective_tokens", "high_frequency_gain"]


def effective_tokens(weights: Any, cu_seqlens: Any = None) -> Any:
    r"""Return how many tokens each head attends to: the exponential of the entropy of its weights.

    Parameters
    ----------
    weights : array (..., L), or (m, T) with `cu_seqlens`
        Rows that sum to 1, as ``low_rank_attention(return_weights=True)`` gives them, or the
        attention of a Transformers model; NumPy, Torch (then differentiable) or another kind.
    cu_seqlens : array or sequence (B + 1,) of integers, optional
        Borders of the sequences in the ragged layout.

    Returns
    -------
    array (...,), or (B, m) with `cu_seqlens`
        float64, from 1 (one token) to the number of tokens (all alike); 0 for an empty sequence.

    Raises
    ------
    TypeError
        If `weights` is not a floating array, or `cu_seqlens` are no integers.
    ValueError
        If the shapes do not fit, or `cu_seqlens` does not rise from 0 to T.

    Examples
    --------
    >>> import numpy as np
    >>> from embedcore import attention
    >>> attention.effective_tokens(np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])).round(3)
    array([2., 1.])
    """
    where = "attention.effective_tokens"
    weights = as_torch_or_numpy(where, "weights", weights)
    axes = len(weights.shape)
    if axes == 0 or (cu_seqlens is not None and axes != 2):
        wanted = "at least one axis" if cu_seqlens is None else "shape (heads, tokens)"
        raise ValueError(
            f"{where}: 'weights' must have {wanted}; got shape {tuple(weights.shape)}."
        )
    xp = namespace(weights)
    wide = cast(weights, xp.float64)
    terms = -wide * xp.log(xp.where(wide > 0, wide, 1.0))
    if cu_seqlens is None:
        entropy, total = terms.sum(-1), wide.sum(-1)
    else:
        borders = _borders(where, cu_seqlens, wide.shape[-1])
        entropy, total = _segment_sums(terms, borders), _segment_sums(wide, borders)
    return xp.where(total == 0, 0.0, xp.exp(entropy))


def high_frequency_gain(weights: Any) -> Any:
    r"""Return the largest factor by which attention keeps what differs between its outputs.

    Parameters
    ----------
    weights : array (..., n, L)
        Attention weights of n queries: self-attention (n = L) of a Transformers model, or the heads
        of ``low_rank_attention(return_weights=True)``; NumPy, Torch (then differentiable) or
        another kind.

    Returns
    -------
    array (...,)
        float64: :math:`\sigma_a = \|(I - \mathbf{1}\mathbf{1}'/n) A\|_2`, the largest singular
        value. Below 1, each layer brings tokens closer together; it falls as texts grow longer, and
        rises again where the temperature is lowered.

    Raises
    ------
    TypeError
        If `weights` is not a floating array.
    ValueError
        If it has fewer than two axes, or values that are not finite.

    Notes
    -----
    Complexity: a singular value decomposition, O(n L min(n, L)).

    References
    ----------
    Zhou et al., Length-Induced Embedding Collapse in PLM-based Models, ACL 2025.

    Examples
    --------
    >>> import numpy as np
    >>> from embedcore import attention
    >>> attention.high_frequency_gain(np.stack([np.full((4, 4), 0.25), np.eye(4)])).round(3)
    array([0., 1.])
    """
    where = "attention.high_frequency_gain"
    weights = as_torch_or_numpy(where, "weights", weights)
    if len(weights.shape) < 2 or 0 in weights.shape[-2:]:
        raise ValueError(
            f"{where}: 'weights' must have shape (..., queries, tokens), at least one of each; "
            f"got shape {tuple(weights.shape)}."
        )
    xp = namespace(weights)
    wide = cast(weights, xp.float64)
    if not bool(xp.isfinite(wide).all()):
        raise ValueError(f"{where}: 'weights' must be finite; got NaN or an infinity.")
    centred = wide - wide.mean(-2)[..., None, :]
    if xp is np:
        return np.linalg.norm(centred, 2, axis=(-2, -1))
    return xp.linalg.matrix_norm(centred, 2)


def _borders(where: str, cu_seqlens: Any, tokens: int) -> list[int]:
    offsets = as_integers(where, "cu_seqlens", cu_seqlens)
    borders: list[int] = offsets.tolist()
    if offsets.ndim != 1:
        raise ValueError(
            f"{where}: 'cu_seqlens' must have shape (sequences + 1,); got shape {offsets.shape}."
        )
    if borders[:1] != [0] or borders[-1:] != [tokens] or borders != sorted(borders):
        raise ValueError(
            f"{where}: 'cu_seqlens' must rise from 0 to the number of tokens ({tokens}); "
            f"got {borders}."
        )
    return borders


def _segment_sums(rows: Any, borders: list[int]) -> Any:
    """(m, T) to (B, m)."""
    if len(borders) == 1:
        return rows.swapaxes(0, 1)[:0]
    sums = [rows[:, first:last].sum(-1) for first, last in itertools.pairwise(borders)]
    return namespace(rows).stack(sums)
