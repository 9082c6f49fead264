# SPDX-License-Identifier: Apache-2.0
"""Array kinds in Python code: anything to NumPy, and a NumPy result back to the kind of the input.

The kernels do not pass through here: the binding sees every array kind in place.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["is_torch", "to_kind_of", "to_numpy"]

_CPU_DEVICES = (1, 3, 11)  # DLPack: host memory, also the pinned kinds


def is_torch(array: object) -> bool:
    """Tell whether `array` is a Torch tensor, without importing Torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def to_numpy(array: Any, where: str = "embedcore", argument: str = "array") -> npt.NDArray[Any]:
    """Return a NumPy array over the same memory where that can be had.

    Parameters
    ----------
    array : array-like
        NumPy and Torch arrays, DLPack exporters and objects with the buffer protocol are not
        copied, except Torch's bfloat16, which becomes float32 (every value is kept). Lists are
        copied.
    where, argument : str
        What an error names.

    Returns
    -------
    ndarray
        Read-only where the producer says so.

    Raises
    ------
    TypeError
        If the array is not on the CPU, or is a Torch tensor that requires grad.
    """
    if type(array) is np.ndarray:
        return array
    if is_torch(array):
        return _torch_to_numpy(array, where, argument)
    if isinstance(array, np.ndarray) or not hasattr(array, "__dlpack__"):
        return np.asarray(array)
    _check_device(array, where, argument)
    return np.from_dlpack(array)


def to_kind_of(like: object, result: npt.NDArray[Any]) -> Any:
    """Return `result` as the array kind of `like`: a Torch tensor for one, else `result` itself.

    The tensor shares the memory of `result`.
    """
    return sys.modules["torch"].from_numpy(result) if is_torch(like) else result


def _check_device(array: Any, where: str, argument: str) -> None:
    if array.__dlpack_device__()[0] in _CPU_DEVICES:
        return
    device = getattr(array, "device", array.__dlpack_device__())
    raise TypeError(f"{where}: '{argument}' must be on the CPU; got device {device}.")


def _torch_to_numpy(tensor: Any, where: str, argument: str) -> npt.NDArray[Any]:
    if tensor.device.type != "cpu":
        _check_device(tensor, where, argument)
    if tensor.requires_grad:
        raise TypeError(
            f"{where}: '{argument}' must not require grad, because {where} is not differentiable; "
            f"got a tensor with requires_grad=True. Use {argument}.detach()."
        )
    torch = sys.modules["torch"]
    seen: npt.NDArray[Any] = (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()
    return seen
