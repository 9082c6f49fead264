# SPDX-License-Identifier: Apache-2.0
"""Checks of options: names, numbers and flags. Arrays are checked by the native views."""

from __future__ import annotations

import operator
from collections.abc import Collection

import numpy as np

__all__ = ["choose", "flag", "integer"]


def choose(where: str, argument: str, value: object, allowed: Collection[str]) -> str:
    """Return `value` if it is one of the `allowed` names.

    Parameters
    ----------
    where : str
        The public function that is called, for instance ``"depth.score"``.
    argument : str
        Name of the argument.
    value : object
        What the user gave.
    allowed : collection of str
        The names that the argument takes.

    Raises
    ------
    TypeError
        If `value` is not a string.
    ValueError
        If `value` is not allowed; the message names the nearest allowed name.
    """
    if isinstance(value, str):
        if value in allowed:
            return value
        raise ValueError(_unknown_name(where, argument, value, allowed))
    raise TypeError(
        f"{where}: '{argument}' must be a string, one of {_listed(allowed)}; "
        f"got {type(value).__name__}."
    )


def _listed(allowed: Collection[str]) -> str:
    return ", ".join(repr(name) for name in allowed)


def _unknown_name(where: str, argument: str, value: str, allowed: Collection[str]) -> str:
    import difflib  # only errors pay for it

    text = f"{where}: '{argument}' must be one of {_listed(allowed)}; got {value!r}"
    near = difflib.get_close_matches(value.lower(), allowed, n=1, cutoff=0.5)
    return f"{text}; did you mean {near[0]!r}?" if near else f"{text}."


def integer(
    where: str,
    argument: str,
    value: object,
    *,
    minimum: int | None = None,
    maximum: int | None = None,
) -> int:
    """Return `value` as an int if it is an integer within the bounds.

    Parameters
    ----------
    where : str
        The public function that is called.
    argument : str
        Name of the argument.
    value : object
        An int or a NumPy integer. Booleans and floats are refused.
    minimum, maximum : int, optional
        Inclusive bounds.

    Raises
    ------
    TypeError
        If `value` is not an integer.
    ValueError
        If `value` is out of bounds.
    """
    if type(value) is not int:
        # Tensors and 0-d arrays have an __index__ too; so have bool and, before NumPy 2.3, its own.
        if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
            raise TypeError(
                f"{where}: '{argument}' must be an integer; got {type(value).__name__}."
            )
        value = _as_index(where, argument, value)
    if (minimum is None or value >= minimum) and (maximum is None or value <= maximum):
        return value
    if maximum is None:
        bounds = f"at least {minimum}"
    elif minimum is None:
        bounds = f"at most {maximum}"
    else:
        bounds = f"from {minimum} to {maximum}"
    raise ValueError(f"{where}: '{argument}' must be {bounds}; got {value}.")


def _as_index(where: str, argument: str, value: object) -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"{where}: '{argument}' must be an integer; got {type(value).__name__}."
        ) from None


def flag(where: str, argument: str, value: object) -> bool:
    """Return `value` if it is a boolean; arguments are those of `choose`.

    Raises
    ------
    TypeError
        If it is none.
    """
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError(f"{where}: '{argument}' must be a boolean; got {type(value).__name__}.")
