# SPDX-License-Identifier: Apache-2.0
"""The few things that NumPy arrays and Torch tensors spell differently.

Small computations around the kernels (factors, temperatures, merging) are written once for both
kinds, on operators and methods that they share; under Torch they stay differentiable and can be
compiled. An array that is not NumPy's is Torch's here: callers have brought the others in.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["is_floating", "namespace", "positions", "widen"]


def namespace(array: Any) -> Any:
    """Return the module `numpy` or `torch` that `array` belongs to."""
    if isinstance(array, (np.ndarray, np.generic)):
        return np
    import torch

    return torch


def is_floating(array: Any) -> bool:
    """Tell whether `array` is of a floating dtype, bfloat16 included."""
    if isinstance(array, (np.ndarray, np.generic)):
        return array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    return bool(array.dtype.is_floating_point)


def widen(*arrays: Any) -> tuple[Any, ...]:
    """Return the arrays in one dtype: float64 if one of them has it, else float32."""
    xp = namespace(arrays[0])
    real = xp.float64 if any(array.dtype == xp.float64 for array in arrays) else xp.float32
    if xp is np:
        return tuple(array.astype(real, copy=False) for array in arrays)
    return tuple(array.to(real) for array in arrays)


def positions(count: int, like: Any) -> Any:
    """Return the integers from 0 to `count` - 1, of the kind and on the device of `like`."""
    xp = namespace(like)
    return np.arange(count) if xp is np else xp.arange(count, device=like.device)
