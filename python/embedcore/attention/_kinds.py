# SPDX-License-Identifier: Apache-2.0
"""The few things that arrays of NumPy and CuPy and tensors of Torch spell differently.

Small computations around the kernels (factors, temperatures, merging) are written once for all
kinds, on operators and methods that they share; under Torch they stay differentiable and can be
compiled. An array that is neither NumPy's nor CuPy's is Torch's here: callers have brought the
others in.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

__all__ = [
    "cast",
    "check_floating",
    "is_floating",
    "is_integer",
    "is_numpy_like",
    "namespace",
    "positions",
    "widen",
]


def namespace(array: Any) -> Any:
    """Return the module `numpy`, `cupy` or `torch` that `array` belongs to."""
    if isinstance(array, (np.ndarray, np.generic)):
        return np
    if _is_cupy(array):
        return sys.modules["cupy"]
    import torch

    return torch


def is_numpy_like(array: Any) -> bool:
    """Tell whether `array` has the dtypes and functions of NumPy."""
    return isinstance(array, (np.ndarray, np.generic)) or _is_cupy(array)


def _is_cupy(array: Any) -> bool:
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray)


def is_floating(array: Any) -> bool:
    """Tell whether `array` is float16, bfloat16, float32 or float64."""
    if is_numpy_like(array):
        return array.dtype.char in "efd" or array.dtype.name == "bfloat16"
    return bool(array.dtype.is_floating_point) and array.element_size() > 1


def check_floating(where: str, argument: str, array: Any) -> None:
    """Refuse an array that `is_floating` is not true of."""
    if not is_floating(array):
        raise TypeError(
            f"{where}: '{argument}' must be float16, bfloat16, float32 or float64; "
            f"got {array.dtype}."
        )


def is_integer(array: Any) -> bool:
    """Tell whether `array` holds integers; booleans are none."""
    if is_numpy_like(array):
        return array.dtype.kind in "iu"
    dtype = array.dtype
    return not (dtype.is_floating_point or dtype.is_complex or dtype is namespace(array).bool)


def cast(array: Any, dtype: Any) -> Any:
    """Return `array` in `dtype`: itself where it has it."""
    if is_numpy_like(array):
        return array.astype(dtype, copy=False)
    return array.to(dtype)


def widen(*arrays: Any) -> tuple[Any, ...]:
    """Return the arrays in one dtype: float64 if one of them has it, else float32."""
    xp = namespace(arrays[0])
    real = xp.float64 if any(array.dtype == xp.float64 for array in arrays) else xp.float32
    return tuple(cast(array, real) for array in arrays)


def positions(count: int, like: Any) -> Any:
    """Return the integers from 0 to `count` - 1, of the kind and on the device of `like`."""
    xp = namespace(like)
    return xp.arange(count) if is_numpy_like(like) else xp.arange(count, device=like.device)
