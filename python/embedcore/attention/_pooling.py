# SPDX-License-Identifier: Apache-2.0
"""`attention.mean_pool`: the kernel without scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .._device import is_on_device
from ._arguments import (
    Tokens,
    as_floating,
    has_torch,
    read_tokens,
    real_dtype,
    thread_count,
)
from ._device_arrays import pool_on_device

__all__ = ["mean_pool"]

_WHERE = "attention.mean_pool"


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
    """Return the mean of the valid tokens of each sequence, weighted if wanted.

    Parameters
    ----------
    tokens : array (B, L, d), or (T, d) with `cu_seqlens`
        float16, bfloat16, float32 or float64; NumPy, Torch or any DLPack exporter on the CPU.
    mask : boolean array (B, L) or (T,), optional
        Which tokens are valid.
    lengths : array or sequence (B,) of integers, optional
        Only the first tokens of each sequence are valid. With `mask`, both hold.
    cu_seqlens : array or sequence (B + 1,) of integers, optional
        Ragged layout: sequence b is ``tokens[cu_seqlens[b]:cu_seqlens[b + 1]]``.
    weights : array (B, L) or (T,), optional
        Non-negative weight of each token, in any unit.
    threads : int, optional
        Default: :func:`embedcore.get_num_threads`.
    out : array (B, d), optional
        Where the result goes; C-contiguous, of the dtype of `tokens`.

    Returns
    -------
    array (B, d)
        Of the dtype of `tokens`; accumulated in float32, float64 for float64. 0 for a sequence
        without valid tokens, or without weight. Torch tensors come back as Torch tensors (by
        :func:`embedcore.torch.mean_pool`, which is differentiable), others as NumPy arrays.

    Raises
    ------
    TypeError
        Arrays of another kind, dtype or device.
    ValueError
        Shapes that do not fit; `lengths` beyond L, `cu_seqlens` that do not rise; weights that are
        negative or not finite.

    Notes
    -----
    Complexity: O(n d) for n valid tokens; the others are not read.

    Examples
    --------
    >>> import numpy as np
    >>> from embedcore import attention
    >>> tokens = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    >>> attention.mean_pool(tokens, lengths=[2, 3])
    array([[1., 2.],
           [8., 9.]], dtype=float32)
    """
    if has_torch(tokens, mask, lengths, cu_seqlens, weights, out):
        from .. import torch as torch_face

        return torch_face.mean_pool(
            tokens, mask=mask, lengths=lengths, cu_seqlens=cu_seqlens, weights=weights,
            threads=threads, out=out,
        )  # fmt: skip
    if is_on_device(tokens):
        thread_count(_WHERE, threads)
        return pool_on_device(tokens, mask, lengths, cu_seqlens, weights, out)
    read = read_tokens(_WHERE, "tokens", tokens, mask, lengths, cu_seqlens)
    workers = thread_count(_WHERE, threads)
    if read.mask is not None and read.mask.dtype != np.bool_:
        raise TypeError(
            f"{_WHERE}: 'mask' must be boolean (true where a token counts); got {read.mask.dtype}. "
            "Give numbers as 'weights'."
        )
    limits = read.mask if weights is None else _log_weights(read, weights)
    shape = (read.sequences, read.key.shape[-1])
    pooled = np.empty(shape, read.key.dtype) if out is None else as_floating(_WHERE, "out", out)
    if pooled.shape != shape:
        raise ValueError(f"{_WHERE}: 'out' must have the shape {shape}; got shape {pooled.shape}.")
    _core.attention_forward(
        _WHERE, read.key, None, None, read.offsets, read.lengths, limits, None, 1.0, 0, 0, workers,
        pooled[:, None], None, None, None,
    )  # fmt: skip
    return pooled if out is None else out


def _log_weights(tokens: Tokens, weights: Any) -> NDArray[Any]:
    """Return what is added to the scores, all 0, to make `weights` of them."""
    found = as_floating(_WHERE, "weights", weights)
    if found.shape != tokens.token_shape():
        raise ValueError(
            f"{_WHERE}: 'weights' must have one value for each token {tokens.token_shape()}; "
            f"got shape {found.shape}."
        )
    real = real_dtype(tokens.key)
    found = found.astype(real)
    bad = ~((found >= 0) & (found < np.inf))  # of valid tokens: no others are looked at
    if tokens.mask is not None:
        bad &= tokens.mask
        found[~tokens.mask] = 0
    if tokens.lengths is not None:
        bad &= np.arange(tokens.length) < tokens.lengths[:, None]
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{_WHERE}: 'weights' must be non-negative and finite; got {found[first]} at {first}."
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        np.log(found, out=found)
    return found
