# SPDX-License-Identifier: Apache-2.0
"""`attention.merge_states`: attention over parts of the tokens to attention over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ._arguments import as_torch_or_numpy, check_one_kind
from ._kinds import cast, namespace, widen

__all__ = ["merge_states"]

_WHERE = "attention.merge_states"


def merge_states(outs: Sequence[Any], lses: Sequence[Any]) -> tuple[Any, Any]:
    r"""Merge attention over parts of the tokens into attention over all of them.

    Parameters
    ----------
    outs : sequence of arrays (B, m, dv)
        What :func:`low_rank_attention` returned for each part, for the same heads at the same
        temperature; NumPy, Torch (then differentiable) or another kind.
    lses : sequence of arrays (B, m)
        Their lse.

    Returns
    -------
    out : array (B, m, dv)
        :math:`\sum_i e^{l_i - l} o_i`, in the dtype of the first part.
    lse : array (B, m)
        :math:`l = \log \sum_i e^{l_i}`, float32, or float64 where a part has it.

    Raises
    ------
    TypeError
        Parts that are no floating arrays, or of several kinds.
    ValueError
        No parts, or parts of different shapes.

    Notes
    -----
    Exact but for rounding: parts may lie on different machines, or arrive one after the other.
    Parts without tokens (lse -inf) do not count; where no part has any, the result is 0 and -inf.

    Examples
    --------
    >>> import numpy as np
    >>> from embedcore import attention
    >>> rng = np.random.default_rng(0)
    >>> hidden = rng.standard_normal((2, 9, 4))
    >>> Q = rng.standard_normal((4, 3))
    >>> parts = [
    ...     attention.low_rank_attention(part, Q, return_lse=True)
    ...     for part in (hidden[:, :5], hidden[:, 5:])
    ... ]
    >>> out, lse = attention.merge_states(*zip(*parts))
    >>> bool(np.allclose(out, attention.low_rank_attention(hidden, Q)))
    True
    """
    outs, lses = _parts("outs", outs), _parts("lses", lses)
    check_one_kind(_WHERE, "'outs' and 'lses'", *outs, *lses)
    _check_shapes(outs, lses)
    wide_lses = widen(*lses)
    xp = namespace(wide_lses[0])
    shift = wide_lses[0]
    for lse in wide_lses[1:]:
        shift = xp.maximum(shift, lse)
    # The result does not depend on the shift, so that no gradient is lost in it.
    shift = xp.where(xp.isfinite(shift), shift, 0.0)
    shift = getattr(shift, "detach", lambda: shift)()
    shares = [xp.exp(lse - shift) for lse in wide_lses]
    total = sum(shares[1:], shares[0])
    empty = total == 0
    total = xp.where(empty, 1.0, total)
    merged = sum(
        (share / total)[..., None] * widen(out, share)[0]
        for share, out in zip(shares, outs, strict=True)
    )
    lse = xp.where(empty, -math.inf, shift + xp.log(total))
    return cast(merged, outs[0].dtype), lse


def _parts(argument: str, parts: Any) -> list[Any]:
    try:
        given = list(parts)
    except TypeError:
        raise TypeError(
            f"{_WHERE}: '{argument}' must be a sequence of arrays; got {type(parts).__name__}."
        ) from None
    return [as_torch_or_numpy(_WHERE, f"{argument}[{i}]", part) for i, part in enumerate(given)]


def _check_shapes(outs: list[Any], lses: list[Any]) -> None:
    if len(outs) == 0 or len(outs) != len(lses):
        raise ValueError(
            f"{_WHERE}: 'outs' and 'lses' must have the same number of parts, at least 1; "
            f"got {len(outs)} and {len(lses)}."
        )
    shape = tuple(outs[0].shape)
    for i, (out, lse) in enumerate(zip(outs, lses, strict=True)):
        if len(shape) == 0 or tuple(out.shape) != shape:
            raise ValueError(
                f"{_WHERE}: 'outs' must have parts of one shape (B, m, dv); "
                f"got shapes {shape} and {tuple(out.shape)}."
            )
        if tuple(lse.shape) != shape[:-1]:
            raise ValueError(
                f"{_WHERE}: 'lses[{i}]' must have the shape of 'outs[{i}]' without its last axis "
                f"{shape[:-1]}; got shape {tuple(lse.shape)}."
            )
