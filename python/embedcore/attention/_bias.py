# SPDX-License-Identifier: Apache-2.0
"""The bias of the scores: the forms that users give to the one of the kernel."""

from __future__ import annotations

from typing import Any

from ._kinds import check_floating, widen

__all__ = ["resolve_bias"]


def resolve_bias(where: str, bias: Any, token_shape: tuple[int, ...], heads: int) -> Any:
    """Return the bias with the axes of the tokens and one of the heads, each full or 1.

    Parameters
    ----------
    where : str
        The public function that is called.
    bias : array (m,), (B, L) or (B, L, m), ragged (m,), (T,) or (T, m); or None
        NumPy or Torch. An axis may be 1. Of one axis, it is per head where it has m values.
    token_shape : (B, L) or (T,)
    heads : int
        m.

    Returns
    -------
    array (B or 1, L or 1, m or 1) or (T or 1, m or 1), or None
        float32 or float64; differentiable.

    Raises
    ------
    TypeError
        If it is not of a floating dtype.
    ValueError
        Another shape.
    """
    if bias is None:
        return None
    check_floating(where, "bias", bias)
    shape = tuple(bias.shape)
    axes = len(token_shape)
    if shape == (heads,):
        wide: tuple[int, ...] = (1,) * axes + shape
    elif len(shape) == axes:
        wide = (*shape, 1)
    else:
        wide = shape
    full = (*token_shape, heads)
    if len(wide) != axes + 1 or any(n not in (1, m) for n, m in zip(wide, full, strict=True)):
        raise ValueError(
            f"{where}: 'bias' must have shape ({heads},), {token_shape} or {full}; "
            f"got shape {shape}."
        )
    return widen(bias)[0].reshape(wide)
