# SPDX-License-Identifier: Apache-2.0
r"""The factor that the kernel multiplies the keys with.

A head of rank R scores a token k by :math:`\sum_r (p_{rj} \cdot c)(q_{rj} \cdot k)` (Kim et al.,
arXiv 1610.04325; R = 1 in LAMA, arXiv 1912.00835). The context c does not depend on the token, so
this is :math:`q'_j \cdot k` with :math:`q'_j = \sum_r (p_{rj} \cdot c) q_{rj}`, and the kernel
knows neither contexts nor ranks.
"""

from __future__ import annotations

from typing import Any

from ._kinds import check_floating, widen

__all__ = ["fold_query"]


def fold_query(where: str, query: Any, context: Any, P: Any, sequences: int) -> Any:
    """Return the effective factor: (dk, m), or (B, dk, m) where it differs between sequences.

    Parameters
    ----------
    where : str
        The public function that is called.
    query : array (dk, m) or (dk, R, m); without a context (dk, m) or (B, dk, m)
        NumPy or Torch, as the others.
    context : array (dk,) or (B, dk), or None
        "mean" is the caller's to replace.
    P : array of the shape of `query`, or None
    sequences : int
        B.

    Returns
    -------
    array
        `query` itself without a context, else float32 (float64 if an input is). Differentiable in
        all three.

    Raises
    ------
    TypeError
        Dtypes that are not floating.
    ValueError
        A context without `P` or the reverse; shapes that do not fit.
    """
    if context is None and P is None:
        return query
    _check(where, query, context, P, sequences)
    query, context, P = widen(query, context, P)
    if query.ndim == 2:
        return (context @ P)[..., None, :] * query
    width, rank, heads = query.shape
    gate = (context @ P.reshape(width, rank * heads)).reshape(-1, rank, heads)
    # Batched over the heads: (m, B, R) @ (m, R, dk).
    folded = gate.swapaxes(0, 2).swapaxes(1, 2) @ query.swapaxes(0, 2)
    folded = folded.swapaxes(0, 1).swapaxes(1, 2)
    return folded[0] if context.ndim == 1 else folded


def _check(where: str, query: Any, context: Any, P: Any, sequences: int) -> None:
    if P is None or context is None:
        given, missing = ("context", "P") if P is None else ("P", "context")
        raise ValueError(f"{where}: '{missing}' must be given together with '{given}'; got None.")
    for name, array in (("query", query), ("context", context), ("P", P)):
        check_floating(where, name, array)
    shape = tuple(query.shape)
    if len(shape) not in (2, 3):
        raise ValueError(
            f"{where}: 'query' must be (dk, m) or (dk, rank, m) with a context; got shape {shape}."
        )
    if 0 in shape[1:]:
        wanted = "at least one head" if shape[-1] == 0 else "a rank of at least 1"
        raise ValueError(f"{where}: 'query' must have {wanted}; got shape {shape}.")
    if tuple(P.shape) != shape:
        raise ValueError(
            f"{where}: 'P' must have the shape of 'query' {shape}; got shape {tuple(P.shape)}."
        )
    if tuple(context.shape) not in ((shape[0],), (sequences, shape[0])):
        raise ValueError(
            f"{where}: 'context' must be ({shape[0]},) or ({sequences}, {shape[0]}), as many "
            f"columns as 'query' has rows; got shape {tuple(context.shape)}."
        )
