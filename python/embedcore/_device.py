# SPDX-License-Identifier: Apache-2.0
"""Arrays on a GPU: addresses for the kernels, and memory and streams from the arrays' own library.

Nothing is imported here that the caller has not imported, but by `call_for` and `current_device`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._device_libraries import CuPy, Layout, Library, Torch

__all__ = [
    "DTYPES", "Call", "Layout", "Library", "call_for", "call_of", "copy_to_host", "current_device",
    "is_on_device", "on_host", "take_rows",
]  # fmt: skip

# Numbers that the C ABI gives the dtypes.
DTYPES = {"float16": 0, "bfloat16": 1, "float32": 2, "float64": 3}
_FLOATS = tuple(DTYPES)
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
# Copies up to so many bytes go by pinned memory, of which libraries keep what they once had, and
# are not waited for.
_MOST_STAGED = 1 << 23
_ALIGNMENT = 16  # of arrays that are sent together

_LIBRARIES: list[Library] = [Torch(), CuPy()]


def _library_of(array: object) -> Library | None:
    if type(array) is np.ndarray:
        return None
    for library in _LIBRARIES:
        if library.owns(array):
            return library
    return None


def _kernels(where: str, argument: str, device: int) -> ModuleType:
    try:
        return import_module("embedcore._cuda")
    except ModuleNotFoundError:  # what is there and cannot be loaded says itself why
        raise TypeError(
            f"{where}: '{argument}' must be on the CPU, because this build has no kernels for "
            f"other devices; got device cuda:{device}."
        ) from None


class Call:
    """One call on a device: what its arrays have in common, and what it takes from their library.

    Arrays that had to be copied are kept until the call is done. `differentiable`: the caller sees
    to gradients itself.
    """

    def __init__(
        self, where: str, argument: str, device: int, library: Library, differentiable: bool
    ) -> None:
        self.where, self._first, self._library = where, argument, library
        self._differentiable = differentiable
        self.device = device
        self._kept: list[Any] = []
        self.kernels = _kernels(where, argument, self.device)

    def on_device(self) -> AbstractContextManager[Any]:
        """Return a context in which the arrays' library computes on the device of the call."""
        return self._library.on(self.device)

    def place(self) -> tuple[int, int]:
        """Return the device and the stream, as the kernels take them."""
        return self.device, self._library.stream(self.device)

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes of scratch memory, kept until the call is done."""
        return self.kept(self.made((size,), "uint8"))

    @contextmanager
    def scratch(self) -> Iterator[None]:
        """Return a context whose scratch, copies included, is let go at its end.

        Its library hands the memory out again in the order of the stream, behind what was started.
        """
        before = len(self._kept)
        try:
            yield
        finally:
            del self._kept[before:]

    def floats(self, argument: str, array: Any, *axes: int, rows: bool = False) -> Layout:
        """Return where a floating-point array of so many axes lies.

        With `rows` its last axis is contiguous; where that of `array` is not, a copy is seen.
        """
        layout = self._seen(argument, array, _FLOATS)
        self._check_axes(argument, layout, axes)
        return self._with_rows(array, layout) if rows else layout

    def booleans(
        self, argument: str, array: Any, *axes: int, others: tuple[str, ...] = _FLOATS
    ) -> Layout | None:
        """Return where a boolean array lies; None where `array` is of one of the other dtypes."""
        layout = self._seen(argument, array, ("bool", *others))
        self._check_axes(argument, layout, axes)
        return layout if layout.dtype == "bool" else None

    def marks(self, argument: str, array: Any) -> Layout:
        """Return where a boolean vector lies, or one of integers, as `indices` does."""
        layout = self.booleans(argument, array, 1, others=_INTEGERS)
        return layout if layout is not None else self.indices(argument, array)

    def indices(self, argument: str, array: Any) -> Layout:
        """Return where a vector of integers lies, as contiguous int64."""
        layout = self._seen(argument, array, _INTEGERS)
        self._check_axes(argument, layout, (1,))
        if layout.dtype != "int64" or not _is_c_ordered(layout):
            layout = self._copied(array, "int64")
        return layout

    def matrix(
        self, argument: str, array: Any, *, narrow: bool = False
    ) -> tuple[int, int, int, int, int]:
        """Return the numbers of a matrix, as the kernels take it.

        `narrow`: float64 is rounded to float32, and int8 taken too.
        """
        layout = self._seen(argument, array, (*_FLOATS, "int8") if narrow else _FLOATS)
        self._check_axes(argument, layout, (2,))
        if narrow and layout.dtype in ("float64", "int8"):
            layout = self._copied(array, "float32")
        return _matrix_numbers(self._with_rows(array, layout))

    def vector(self, argument: str, array: Any, length: int) -> tuple[int, int, int]:
        """Return the numbers of a vector of float32 or float64, as the kernels take it."""
        layout = self.floats(argument, array, 1)
        if layout.shape != (length,):
            raise ValueError(
                f"{self.where}: '{argument}' must have one number for each row ({length}); got "
                f"shape {layout.shape}."
            )
        if layout.dtype not in ("float32", "float64"):
            raise TypeError(
                f"{self.where}: '{argument}' must be float32 or float64; got {layout.dtype}."
            )
        return layout.address, layout.strides[0], DTYPES[layout.dtype]

    def copied_from_host(self, array: NDArray[Any]) -> Any:
        """Return a copy of a contiguous array of the host, kept as scratch is.

        Only one of many bytes is waited for.

        Raises
        ------
        RuntimeError
            In the capture of a graph, which would read the host's memory again when it is run.
        """
        if self._library.is_capturing(self.device):
            raise RuntimeError(
                f"{self.where}: what lies on the CPU cannot be sent while a CUDA graph is captured."
            )
        small = array.nbytes <= _MOST_STAGED
        send = self._library.staged if small else self._library.from_host
        copy = send(array, self.device)
        self._kept.append(copy)
        return copy

    def uploaded(self, array: NDArray[Any]) -> int:
        """Return the address of such a copy, which is waited for."""
        return self.kept(self._library.from_host(array, self.device))

    def sort_rows(self, array: Any, rows: NDArray[np.int64]) -> None:
        """Bring all rows of an array on the device into this order."""
        self._library.sort_rows(array, rows)

    def sent(self, array: NDArray[Any]) -> int:
        """Return the address of such a copy."""
        return self._library.address(self.copied_from_host(array))

    def sent_together(self, *arrays: NDArray[Any]) -> tuple[int, ...]:
        """Return the addresses of several such copies, which are one."""
        starts, size = [], 0
        for array in arrays:
            starts.append(size)
            size += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        packed = np.zeros(size, np.uint8)
        for start, array in zip(starts, arrays, strict=True):
            packed[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
        address = self.sent(packed)
        return tuple(address + start for start in starts)

    def kept(self, array: Any) -> int:
        """Keep an array that this call has made, as scratch is, and return its address."""
        self._kept.append(array)
        return self._library.address(array)

    def joined(self, arrays: Sequence[Any]) -> Any:
        """Return arrays of one dtype one after the other, as a new array; a single one as it is."""
        return arrays[0] if len(arrays) == 1 else self._library.joined(arrays)

    def added(self, a: Any, b: Any) -> Any:
        """Return the sum of two arrays of one shape and dtype, as a new array."""
        return self._library.added(a, b)

    def converted(self, array: Any, dtype: str) -> Any:
        """Return `array` in C order and of `dtype`."""
        return self._library.converted(array, dtype)

    def made(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Return a new array for a result."""
        return self._library.empty(shape, dtype, self.device)

    def address(self, made: Any) -> int:
        """Return where an array that was `made` lies."""
        return self._library.address(made)

    def target(self, argument: str, array: Any, shape: tuple[int, ...], dtype: str) -> int:
        """Return the address of a C-contiguous array of that shape and dtype; 0 for None."""
        if array is None:
            return 0
        layout = self._seen(argument, array, (*_FLOATS, "int8"))
        if layout.dtype != dtype:
            raise TypeError(f"{self.where}: '{argument}' must be {dtype}; got {layout.dtype}.")
        if layout.shape != shape:
            raise ValueError(
                f"{self.where}: '{argument}' must have the shape {shape}; got shape {layout.shape}."
            )
        if not _is_c_ordered(layout):
            raise ValueError(
                f"{self.where}: '{argument}' must be C-contiguous; got a strided array."
            )
        return layout.address

    def _with_rows(self, array: Any, layout: Layout) -> Layout:
        """Return where an array, or a copy of it, lies whose last axis is contiguous."""
        apart = layout.shape[-1] > 1 and layout.strides[-1] != 1
        return self._copied(array, layout.dtype) if apart else layout

    def _copied(self, array: Any, dtype: str) -> Layout:
        copy = self._library.converted(array, dtype)
        self._kept.append(copy)
        return self._library.layout(copy)

    def _check_axes(self, argument: str, layout: Layout, axes: tuple[int, ...]) -> None:
        if len(layout.shape) in axes:
            return
        wanted = " or ".join(f"{count}-D" for count in axes)
        raise ValueError(
            f"{self.where}: '{argument}' must be a {wanted} array; got shape {layout.shape}."
        )

    def _seen(self, argument: str, array: Any, dtypes: tuple[str, ...]) -> Layout:
        if not self._library.owns(array):
            raise TypeError(
                f"{self.where}: '{argument}' must be a {self._library.name} on device cuda:"
                f"{self.device}, as '{self._first}' is; got {_described(array)}."
            )
        layout = self._library.layout(array)
        if layout.device != self.device:
            raise TypeError(
                f"{self.where}: '{argument}' must be on device cuda:{self.device}, as "
                f"'{self._first}' is; got device cuda:{layout.device}."
            )
        if not self._differentiable and getattr(array, "requires_grad", False):
            raise TypeError(
                f"{self.where}: '{argument}' must not require grad, because {self.where} is not "
                f"differentiable; got a tensor with requires_grad=True. Use {argument}.detach()."
            )
        if hasattr(array, "is_neg") and array.is_neg():
            raise TypeError(
                f"{self.where}: '{argument}' must hold its values in memory; got a tensor with the "
                f"negative bit. Use {argument}.resolve_neg()."
            )
        if layout.dtype not in dtypes:
            wanted = "of an integer dtype" if dtypes is _INTEGERS else _listed(dtypes)
            raise TypeError(f"{self.where}: '{argument}' must be {wanted}; got {layout.dtype}.")
        return layout


def _matrix_numbers(layout: Layout) -> tuple[int, int, int, int, int]:
    rows, columns = layout.shape
    stride = layout.strides[0] if rows > 1 else columns
    return layout.address, rows, columns, stride, DTYPES[layout.dtype]


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _is_c_ordered(layout: Layout) -> bool:
    if 0 in layout.shape:
        return True
    expected = 1
    for size, stride in zip(reversed(layout.shape), reversed(layout.strides), strict=True):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True


def _described(array: object) -> str:
    device = getattr(array, "device", None)
    kind = f"{type(array).__module__}.{type(array).__qualname__}".removeprefix("builtins.")
    return kind if device is None else f"{kind} on device {device}"


def call_of(
    where: str, argument: str, array: Any, *, differentiable: bool = False, **others: Any
) -> Call | None:
    """Return the call on the device of `array`, or None where that is the CPU.

    Raises
    ------
    TypeError
        If `array` is on the CPU and one of the `others` is not.
    """
    library = _library_of(array)
    if library is not None:
        return Call(where, argument, library.device_of(array), library, differentiable)
    for name, other in others.items():
        elsewhere = None if other is None else _library_of(other)
        if elsewhere is not None:
            device = elsewhere.device_of(other)
            raise TypeError(
                f"{where}: '{name}' must be on the CPU, as '{argument}' is; got device "
                f"cuda:{device}."
            )
    return None


def call_for(where: str, argument: str, device: int) -> Call:
    """Return a call on a device of which there is no array yet.

    Raises
    ------
    RuntimeError
        If there is no library that finds a GPU.
    ValueError
        If there is no such device.
    """
    library = _ready_library(where, argument, f"cuda:{device}")
    call = Call(where, argument, device, library, False)
    count: int = call.kernels.device_count(where)
    if device >= count:
        raise ValueError(
            f"{where}: '{argument}' must be one of the {count} devices, 'cuda:0' to "
            f"'cuda:{count - 1}'; got 'cuda:{device}'."
        )
    return call


def _ready_library(where: str, argument: str, device: str) -> Library:
    # One that is there already goes first.
    libraries = sorted(_LIBRARIES, key=lambda one: one.name.partition(".")[0] not in sys.modules)
    for library in libraries:
        if library.is_ready():
            return library
    raise RuntimeError(
        f"{where}: '{argument}' must be 'cpu', because neither Torch nor CuPy is here and finds a "
        f"GPU; got '{device}'."
    )


def current_device(where: str, argument: str) -> int:
    """Return the number of the device that Torch or else CuPy works on now.

    Raises
    ------
    RuntimeError
        If there is no library that finds a GPU.
    """
    return _ready_library(where, argument, "cuda").current()


def is_on_device(array: Any) -> bool:
    """Tell whether `array` is on a GPU."""
    return _library_of(array) is not None


def on_host(array: Any) -> Any:
    """Return a copy for NumPy of an array on a GPU, for which this waits; any other as it is."""
    library = _library_of(array)
    return array if library is None else library.to_host(array)


def copy_to_host(array: Any, target: NDArray[Any]) -> None:
    """Copy an array on a GPU to one of its shape and dtype, and wait until it is there."""
    library = _library_of(array)
    assert library is not None
    library.copy_to_host(array, target)


def take_rows(array: Any, rows: NDArray[np.int64]) -> Any:
    """Return some rows of any array that has rows."""
    library = _library_of(array)
    return array[rows] if library is None else library.take(array, rows)
