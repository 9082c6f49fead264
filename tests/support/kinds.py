# SPDX-License-Identifier: Apache-2.0
"""Array kinds: each turns a 2-D NumPy array into another object with the same values.

`KINDS` maps a name to a converter. A converter skips the test when what it needs is not installed,
or when the kind has no such dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from .guard import guarded

Array = np.ndarray[Any, Any]

FLOAT_DTYPES = ("float16", "bfloat16", "float32", "float64")


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the NumPy dtype of a name, bfloat16 included; skip without ml_dtypes."""
    if name == "bfloat16":
        return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    return np.dtype(name)


def to_torch(x: Array) -> Any:
    """Return a contiguous Torch tensor; skip without Torch."""
    torch = pytest.importorskip("torch")
    if x.dtype.name == "bfloat16":
        return torch.from_numpy(np.array(x, order="C").view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.array(x, order="C"))


def _rows_apart(x: Array) -> Array:
    wide = np.zeros((x.shape[0], x.shape[1] + 5), x.dtype)
    wide[:, 2 : 2 + x.shape[1]] = x
    return wide[:, 2 : 2 + x.shape[1]]


def _columns_apart(x: Array) -> Array:
    wide = np.zeros((x.shape[0], 3 * x.shape[1]), x.dtype)
    wide[:, ::3] = x
    return wide[:, ::3]


def _backwards(x: Array) -> Array:
    return np.ascontiguousarray(x[::-1])[::-1]


def _read_only(x: Array) -> Array:
    copy = x.copy()
    copy.flags.writeable = False
    return copy


def _misaligned(x: Array) -> Array:
    raw = np.zeros(x.nbytes + 1, np.uint8)
    view = raw[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def _torch_rows_apart(x: Array) -> Any:
    torch = pytest.importorskip("torch")
    tensor = to_torch(x)
    wide = torch.zeros((x.shape[0], x.shape[1] + 3), dtype=tensor.dtype)
    wide[:, 1 : 1 + x.shape[1]] = tensor
    return wide[:, 1 : 1 + x.shape[1]]


def _torch_transposed(x: Array) -> Any:
    return to_torch(x.T).T


class Exporter:
    """An array library that only has __dlpack__."""

    def __init__(self, array: Any, *, versioned: bool = True) -> None:
        self._array = array
        self._versioned = versioned

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._array.shape)

    def __dlpack__(self, **options: Any) -> Any:
        if self._versioned:
            return self._array.__dlpack__(**options)
        if options:
            raise TypeError("an exporter from before DLPack 1.0 takes no max_version")
        return self._array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self._array.__dlpack_device__()
        return device


def _dlpack(x: Array, *, versioned: bool) -> Any:
    if x.dtype.name == "bfloat16":
        return Exporter(to_torch(x), versioned=versioned)  # NumPy does not export it
    return Exporter(x.copy(), versioned=versioned)


def _memoryview(x: Array) -> Any:
    if x.dtype.name == "bfloat16":
        pytest.skip("the buffer protocol has no bfloat16")
    return memoryview(x.copy())


KINDS: dict[str, Callable[[Array], Any]] = {
    "numpy": lambda x: x.copy(),
    "numpy guarded": guarded,
    "numpy rows apart": _rows_apart,
    "numpy columns apart": _columns_apart,
    "numpy Fortran order": lambda x: np.array(x, order="F"),
    "numpy backwards": _backwards,
    "numpy read-only": _read_only,
    "numpy misaligned": _misaligned,
    "torch": to_torch,
    "torch rows apart": _torch_rows_apart,
    "torch transposed": _torch_transposed,
    "dlpack": lambda x: _dlpack(x, versioned=True),
    "dlpack before 1.0": lambda x: _dlpack(x, versioned=False),
    "memoryview": _memoryview,
}
