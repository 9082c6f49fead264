# SPDX-License-Identifier: Apache-2.0
"""`attention.low_rank_attention`: options to numbers, and the one native call."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .._device import is_on_device
from ._arguments import (
    ACTIVATIONS,
    NORMS,
    Tokens,
    as_array,
    as_floating,
    has_torch,
    option_code,
    read_tokens,
    real_dtype,
    thread_count,
)
from ._bias import resolve_bias
from ._device_arrays import attend_on_device
from ._fold import fold_query
from ._temperature import count_tokens, resolve_temperature

__all__ = ["low_rank_attention"]

_WHERE = "attention.low_rank_attention"


def low_rank_attention(
    key: Any,
    query: Any,
    value: Any = None,
    *,
    context: Any = None,
    P: Any = None,
    mask: Any = None,
    lengths: Any = None,
    cu_seqlens: Any = None,
    temperature: Any = 1.0,
    length_scale: Any = None,
    activation: str | None = None,
    norm: str | None = None,
    bias: Any = None,
    return_lse: bool = False,
    return_weights: bool = False,
    threads: int | None = None,
    out: Any = None,
) -> Any:
    r"""Pool the tokens of each sequence by m heads whose scores have low rank.

    For sequence b and head j, over its valid tokens t:

    .. math::

        z_{tj} = q_j \cdot k_t + \mathrm{bias}, \quad a = \phi(z), \quad f = a_t / \|a_t\|, \quad
        o_{bj} = \sum_t \mathrm{softmax}_t\big((f_{tj} + \mathrm{mask}_t) / T_{bj}\big) \, v_t

    Parameters
    ----------
    key : array (B, L, dk), or (T, dk) with `cu_seqlens`
        Tokens k: float16, bfloat16, float32 or float64; NumPy, Torch or any DLPack exporter on the
        CPU. Rows may be strided; a last axis that is not contiguous is packed in scratch.
    query : array (dk, m) or (B, dk, m)
        The factor q, one column for each head; with 3 axes one for each sequence. With a context
        (dk, m), or (dk, R, m) for heads of rank R. Any floating dtype.
    value : array (B, L, dv) or (T, dv), optional
        Tokens v, in the dtype of `key`. Without it they are `key` (and read once).
    context : array (dk,) or (B, dk), or "mean", optional
        c, which makes :math:`q_j = \sum_r (p_{rj} \cdot c) \, q_{rj}`; "mean" is the mean of the
        valid tokens of each sequence, float32 or float64. Goes together with `P`.
    P : array of the shape of `query`, optional
        p; any floating dtype.
    mask : array (B, L) or (T,), optional
        Boolean: which tokens are valid. Floating: added to the scores after activation and norm and
        divided by the temperature as they are; -inf removes the token.
    lengths : array or sequence (B,) of integers, optional
        Only the first tokens of each sequence are valid. With `mask`, both hold.
    cu_seqlens : array or sequence (B + 1,) of integers, optional
        Ragged layout: sequence b is ``key[cu_seqlens[b]:cu_seqlens[b + 1]]``; rises from 0 to T.
    temperature : float or array (m,), (B,) or (B, m), default 1.0
        T > 0. One axis is per head where it has m values (also if B = m), else per sequence; (B, 1)
        is per sequence always.
    length_scale : {"log", "sqrt_log", "log_squared"} or array (B,), optional
        Multiplies the scores of each sequence by :func:`length_law` of its number of valid tokens,
        or by the values given.
    activation : {"tanh"}, optional
        :math:`\phi`; the identity without it.
    norm : {"l2"}, optional
        Divide by the norm over the heads of a token, or not at all. A token whose heads are all 0
        stays 0.
    bias : array (m,), (B, L) or (B, L, m); ragged (m,), (T,) or (T, m); optional
        Added inside the activation. One axis is per head where it has m values.
    return_lse, return_weights : bool, default False
        Return these too.
    threads : int, optional
        Default: :func:`embedcore.get_num_threads`.
    out : array (B, m, dv), optional
        Where the result goes; C-contiguous, of the dtype of `key`.

    Returns
    -------
    out : array (B, m, dv)
        Of the dtype of `key`; accumulated in float32, float64 for float64. Torch tensors come back
        as Torch tensors (by :func:`embedcore.torch.low_rank_attention`, which is differentiable),
        others as NumPy arrays.
    lse : array (B, m)
        With `return_lse`: log of the sum of the exponentials of the scores, float32 or float64; for
        :func:`merge_states`.
    weights : array (B, m, L) or (m, T)
        With `return_weights`: the softmax, 0 at tokens that are not valid; float32 or float64.

    Raises
    ------
    TypeError
        Arrays of another kind, dtype or device.
    ValueError
        Shapes that do not fit; `lengths` beyond L, `cu_seqlens` that do not rise; a temperature
        that is not positive and finite; unknown names.

    Notes
    -----
    A sequence without valid tokens gives 0 with lse -inf. Tokens that are not valid are never read
    into a result, NaN or not; NaN in a valid token reaches its own sequence only.

    Complexity: O(n m (dk + dv)) for n valid tokens; the tokens are read once (keys and values, if
    they differ; keys twice for a mean context). Memory beyond the inputs does not depend on L: the
    weights are not made unless returned. For one build and instruction set the result does not
    depend on `threads`.

    References
    ----------
    Mehta, Rangwala and Ramakrishnan, arXiv 1912.00835 (LAMA: tanh, norm over the heads). Kim et
    al., arXiv 1610.04325 (rank R). Lin et al., arXiv 1703.03130 (keys unlike values). Zhou et al.,
    Length-Induced Embedding Collapse, ACL 2025 (temperature).

    Examples
    --------
    >>> import numpy as np
    >>> from embedcore import attention
    >>> rng = np.random.default_rng(0)
    >>> hidden = rng.standard_normal((4, 10, 16), dtype=np.float32)
    >>> Q, P = rng.standard_normal((2, 16, 3), dtype=np.float32)
    >>> attention.low_rank_attention(hidden, Q, lengths=[10, 3, 7, 0]).shape
    (4, 3, 16)
    >>> out, weights = attention.low_rank_attention(
    ...     hidden, Q, context="mean", P=P, activation="tanh", norm="l2", temperature=0.25,
    ...     return_weights=True,
    ... )
    >>> bool(np.allclose(weights.sum(axis=-1), 1))
    True
    """
    if (
        type(key) is np.ndarray and type(query) is np.ndarray and type(temperature) is float
        and (value is None or (type(value) is np.ndarray and value.ndim == 3))
        and (lengths is None or type(lengths) is np.ndarray)
        and context is None and P is None and mask is None and cu_seqlens is None
        and length_scale is None and bias is None and not return_lse and not return_weights
        and key.ndim == 3 and query.ndim == 2
    ):  # fmt: skip
        # A plain call costs little more than its kernel, which checks what is not checked here.
        activate = 0 if activation is None else _activation(activation)
        normalise = 0 if norm is None else _norm(norm)
        workers = 0 if threads is None else thread_count(_WHERE, threads)
        if out is None:
            sequences, _, columns = key.shape if value is None else value.shape
            out = np.empty((sequences, query.shape[1], columns), key.dtype)
        _core.attention_forward(
            _WHERE, key, value, query, None, lengths, None, None, temperature, activate, normalise,
            workers, out, None, None, None,
        )  # fmt: skip
        return out
    if has_torch(
        key, query, value, context, P, mask, lengths, cu_seqlens, temperature, length_scale, bias,
        out,
    ):  # fmt: skip
        from .. import torch as torch_face

        return torch_face.low_rank_attention(
            key, query, value, context=context, P=P, mask=mask, lengths=lengths,
            cu_seqlens=cu_seqlens, temperature=temperature, length_scale=length_scale,
            activation=activation, norm=norm, bias=bias, return_lse=return_lse,
            return_weights=return_weights, threads=threads, out=out,
        )  # fmt: skip
    if is_on_device(key):
        thread_count(_WHERE, threads)
        return attend_on_device(
            key, query, value, context, P, mask, lengths, cu_seqlens, temperature, length_scale,
            (_activation(activation), _norm(norm)), bias, bool(return_lse), bool(return_weights),
            out,
        )  # fmt: skip
    tokens = read_tokens(_WHERE, "key", key, mask, lengths, cu_seqlens)
    workers = thread_count(_WHERE, threads)
    factor = _factor(tokens, as_floating(_WHERE, "query", query), context, P, workers)
    codes = _activation(activation), _norm(norm)
    return _attend(
        tokens, factor, None if value is None else as_floating(_WHERE, "value", value),
        _temperature(tokens, temperature, length_scale, factor.shape[-1]),
        None if bias is None else as_array(_WHERE, "bias", bias),
        codes, bool(return_lse), bool(return_weights), workers, out,
    )  # fmt: skip


def _activation(activation: str | None) -> int:
    return option_code(_WHERE, "activation", activation, ACTIVATIONS)


def _norm(norm: str | None) -> int:
    return option_code(_WHERE, "norm", norm, NORMS)


def _factor(
    tokens: Tokens, query: NDArray[Any], context: Any, P: Any, workers: int
) -> NDArray[Any]:
    """(dk, m) or (B, dk, m)."""
    columns = tokens.key.shape[-1]
    if P is not None:
        P = as_array(_WHERE, "P", P)
        if query.ndim > 1 and query.shape[0] != columns:
            raise ValueError(
                f"{_WHERE}: 'query' must have as many rows as 'key' has columns ({columns}); "
                f"got shape {query.shape}."
            )
    if isinstance(context, str):
        if context != "mean":
            raise ValueError(f"{_WHERE}: 'context' must be an array or 'mean'; got {context!r}.")
        context = _mean_context(tokens, workers) if P is not None else context
    elif context is not None:
        context = as_array(_WHERE, "context", context)
    factor: NDArray[Any] = fold_query(_WHERE, query, context, P, tokens.sequences)
    if factor.ndim not in (2, 3) or factor.shape[-1] == 0:
        raise ValueError(
            f"{_WHERE}: 'query' must have shape (columns of 'key', heads), with one head at least, "
            f"or one such factor for each sequence; got shape {query.shape}."
        )
    return factor


def _mean_context(tokens: Tokens, workers: int) -> NDArray[Any]:
    """Return the mean of the valid tokens of each sequence (B, dk), float32 or float64."""
    mask = tokens.mask
    if mask is not None and mask.dtype != np.bool_:
        mask = mask != -np.inf
    shape = (tokens.sequences, 1, tokens.key.shape[-1])
    mean = np.empty(shape, real_dtype(tokens.key))
    rounded = np.empty(shape, tokens.key.dtype)  # asked for by the kernel, not used
    _core.attention_forward(
        _WHERE, tokens.key, None, None, tokens.offsets, tokens.lengths, mask, None, 1.0, 0, 0,
        workers, rounded, None, None, None, mean,
    )  # fmt: skip
    return mean[:, 0]


def _temperature(tokens: Tokens, temperature: Any, length_scale: Any, heads: int) -> Any:
    if type(temperature) is not float:
        temperature = _numbers("temperature", temperature)
    counts = None
    if isinstance(length_scale, str):
        counts = count_tokens(
            tokens.sequences, tokens.length, tokens.mask, tokens.lengths, tokens.offsets
        )
    elif length_scale is not None:
        length_scale = _numbers("length_scale", length_scale)
    return resolve_temperature(_WHERE, temperature, length_scale, counts, tokens.sequences, heads)


def _numbers(argument: str, values: Any) -> Any:
    """Return arrays as NumPy's, all else (numbers, what is refused later) as it is."""
    if isinstance(values, numbers.Real) or not hasattr(values, "shape"):
        return values
    return as_floating(_WHERE, argument, values)


def _attend(
    tokens: Tokens,
    factor: NDArray[Any],
    value: NDArray[Any] | None,
    temperature: Any,
    bias: NDArray[Any] | None,
    codes: tuple[int, int],
    return_lse: bool,
    return_weights: bool,
    workers: int,
    out: Any,
) -> Any:
    key, heads = tokens.key, factor.shape[-1]
    bias = resolve_bias(_WHERE, bias, tokens.token_shape(), heads)
    if out is None:
        columns = (key if value is None else value).shape[-1:]
        out = np.empty((tokens.sequences, heads, *columns), key.dtype)
    real = real_dtype(key)
    lse = np.empty((tokens.sequences, heads), real) if return_lse else None
    weights = np.empty(tokens.weights_shape(heads), real) if return_weights else None
    _core.attention_forward(
        _WHERE, key, value, factor, tokens.offsets, tokens.lengths, tokens.mask, bias, temperature,
        *codes, workers, out, lse, None, weights,
    )  # fmt: skip
    if lse is None and weights is None:
        return out
    return tuple(part for part in (out, lse, weights) if part is not None)
