# SPDX-License-Identifier: Apache-2.0
"""Temperatures: the forms that users give, and laws that lower them with the number of tokens."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import choose, integer
from ._arguments import as_integers, has_torch
from ._kinds import is_floating, is_integer, is_numpy_like, namespace, positions, widen

__all__ = ["count_tokens", "length_law", "resolve_temperature"]

# law(n) = max(log n, 1) ** power
LAWS = {"log": 1.0, "sqrt_log": 0.5, "log_squared": 2.0}


def length_law(lengths: Any, law: str = "log") -> Any:
    r"""Return what a length law multiplies the scores of sequences of `lengths` tokens by.

    Parameters
    ----------
    lengths : int, or array or sequence of integers
        Numbers of tokens; NumPy, Torch or another kind.
    law : {"log", "sqrt_log", "log_squared"}, default "log"
        :math:`\log n`, :math:`\sqrt{\log n}` or :math:`(\log n)^2`, natural logarithms; where
        :math:`\log n < 1` (n <= 2), 1.

    Returns
    -------
    float or array of float64
        Of the shape of `lengths`; a Torch tensor for one.

    Raises
    ------
    TypeError
        If `lengths` are no integers, or `law` is not a string.
    ValueError
        If a length is negative (the values of Torch tensors are not looked at), or the law is
        unknown; the message names the nearest.

    Notes
    -----
    Softmax over n scores flattens as n grows; scores that grow as log n keep its sharpness.
    ``softmax(s * law(n) * x)`` is a temperature of ``1 / (s * law(n))``: ``"log"`` is that of
    SSMax (arXiv 2501.19399).

    Examples
    --------
    >>> import numpy as np
    >>> from embedcore import attention
    >>> attention.length_law(np.array([1, 8, 512])).round(2)
    array([1.  , 2.08, 6.24])
    """
    where = "attention.length_law"
    if isinstance(lengths, (numbers.Number, str)):
        lengths = integer(where, "lengths", lengths, minimum=0)
    elif has_torch(lengths):
        if not is_integer(lengths):
            raise TypeError(f"{where}: 'lengths' must have an integer dtype; got {lengths.dtype}.")
    else:
        lengths = as_integers(where, "lengths", lengths)
        if lengths.size > 0 and lengths.min() < 0:
            raise ValueError(f"{where}: 'lengths' must be at least 0; got {lengths.min()}.")
    return _law(where, "law", lengths, law)


def _law(where: str, argument: str, lengths: Any, law: Any) -> Any:
    power = LAWS.get(law) if isinstance(law, str) else None
    if power is None:
        power = LAWS[choose(where, argument, law, LAWS)]
    if isinstance(lengths, numbers.Integral):
        return float(max(math.log(max(int(lengths), 1)), 1.0) ** power)
    if is_numpy_like(lengths):
        xp = namespace(lengths)
        return xp.maximum(xp.log(xp.maximum(lengths, 1), dtype=np.float64), 1.0) ** power
    return lengths.clip(1).double().log().clip(1.0) ** power


def count_tokens(sequences: int, tokens: int, mask: Any, lengths: Any, offsets: Any) -> Any:
    """Return the number of valid tokens of each sequence: an int where it is the same for all.

    Parameters
    ----------
    sequences, tokens : int
        B, and the size L of the token axis (T where ragged).
    mask : array (B, L) or (T,), or None
        Boolean, or floating and then valid where it is not -inf.
    lengths : array (B,), or None
    offsets : array (B + 1,), or None
        Of the ragged form. Offsets and lengths need not be valid: the kernel checks them.

    Returns
    -------
    int or array (B,)
    """
    if mask is None:
        if offsets is not None:
            return offsets[1:] - offsets[:-1]
        return tokens if lengths is None else lengths
    valid = mask != -math.inf if is_floating(mask) else mask
    if offsets is not None:
        # Sums up to each border, as differences of running sums; 0 in front of the first token.
        running = valid.cumsum(0)
        first, last = offsets[:-1].clip(0, tokens), offsets[1:].clip(0, tokens)
        running = namespace(valid).concatenate([0 * running[:1], running])
        return running[last] - running[first] if tokens > 0 else 0 * last
    if lengths is not None:
        valid = valid & (positions(tokens, mask) < lengths[:, None])
    return valid.sum(-1)


def resolve_temperature(
    where: str, temperature: Any, length_scale: Any, counts: Any, sequences: int, heads: int
) -> Any:
    """Return the temperature of each sequence and head: a float or an array (B or 1, m or 1).

    Parameters
    ----------
    where : str
        The public function that is called.
    temperature : float or array () or (1,), (m,), (B,), (B or 1, m or 1)
        One axis is per head where it has m values, else per sequence.
    length_scale : None, str or array (B,)
        A law, or its values: what the scores are multiplied by.
    counts : int, array (B,) or None
        Numbers of valid tokens as `count_tokens` gives them; used with a named law only.
    sequences, heads : int
        B and m.

    Returns
    -------
    float or array
        Of the kind of `temperature` and `length_scale`, float32 or float64; differentiable in both.

    Raises
    ------
    TypeError
        If one of them is no number, name or floating array.
    ValueError
        Another shape or name; a number, or a value of a NumPy `length_scale`, that is not positive
        and finite (the kernel checks the temperatures of arrays, and what tensors come to).
    """
    if isinstance(temperature, numbers.Real) and not isinstance(temperature, bool):
        value: Any = float(temperature)
        if not 0.0 < value < math.inf:
            raise ValueError(
                f"{where}: 'temperature' must be positive and finite; got {temperature}."
            )
    else:
        value = _two_axes(where, temperature, sequences, heads)
    if length_scale is None:
        return value
    return value / _scale(where, length_scale, counts, sequences)


def _scale(where: str, length_scale: Any, counts: Any, sequences: int) -> Any:
    """Return what the scores are multiplied by: a float or an array (B, 1)."""
    if isinstance(length_scale, str):
        scale = _law(where, "length_scale", counts, length_scale)
        return scale if isinstance(scale, float) else scale[:, None]
    if not hasattr(length_scale, "dtype") or not is_floating(length_scale):
        kind = getattr(length_scale, "dtype", type(length_scale).__name__)
        raise TypeError(
            f"{where}: 'length_scale' must be one of {', '.join(map(repr, LAWS))} or a "
            f"floating-point array; got {kind}."
        )
    if tuple(length_scale.shape) != (sequences,):
        raise ValueError(
            f"{where}: 'length_scale' must have one value for each sequence ({sequences},); "
            f"got shape {tuple(length_scale.shape)}."
        )
    if isinstance(length_scale, np.ndarray):
        _check_positive(where, length_scale)
    return widen(length_scale)[0][:, None]


def _check_positive(where: str, length_scale: NDArray[Any]) -> None:
    bad = ~((length_scale > 0) & (length_scale < np.inf))
    if bad.any():
        first = int(np.argmax(bad))
        raise ValueError(
            f"{where}: 'length_scale' must be positive and finite; "
            f"got {length_scale[first]} for sequence {first}."
        )


def _two_axes(where: str, temperature: Any, sequences: int, heads: int) -> Any:
    if not hasattr(temperature, "dtype") or not is_floating(temperature):
        kind = getattr(temperature, "dtype", type(temperature).__name__)
        raise TypeError(
            f"{where}: 'temperature' must be a number or a floating-point array; got {kind}."
        )
    shape = tuple(temperature.shape)
    if shape in ((), (1,)):
        wide = (1, 1)
    elif shape == (heads,):
        wide = (1, heads)
    elif shape == (sequences,):
        wide = (sequences, 1)
    elif len(shape) == 2 and shape[0] in (1, sequences) and shape[1] in (1, heads):
        wide = shape
    else:
        raise ValueError(
            f"{where}: 'temperature' must be a number or have shape ({heads},) for the heads, "
            f"({sequences},) for the sequences or ({sequences}, {heads}); got shape {shape}."
        )
    return widen(temperature)[0].reshape(wide)
