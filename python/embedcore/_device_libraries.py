# SPDX-License-Identifier: Apache-2.0
"""The array libraries of GPUs: what is asked of them, of Torch and of CuPy.

Nothing is imported here that the caller has not imported, but where a library is asked whether it
is ready.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Layout(NamedTuple):
    """Where an array lies: strides in elements, `dtype` as NumPy names it."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    device: int


class Library(Protocol):
    """What is needed of an array library."""

    name: str

    def is_ready(self) -> bool:
        """Tell whether the library is there, or can be imported, and finds a GPU."""

    def owns(self, array: object) -> bool:
        """Tell whether `array` is one of this library's, on a GPU."""

    def layout(self, array: Any) -> Layout:
        """Return where `array` lies."""

    def address(self, array: Any) -> int:
        """Return where `array` begins, without what else a layout says."""

    def device_of(self, array: Any) -> int:
        """Return the number of the device that `array` lies on."""

    def converted(self, array: Any, dtype: str) -> Any:
        """Return `array` in C order and of `dtype`."""

    def empty(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        """Return a new array, from memory that the library hands out in the order of its stream."""

    def stream(self, device: int) -> int:
        """Return the handle of the stream that the library works on now."""

    def on(self, device: int) -> AbstractContextManager[Any]:
        """Return a context in which the library computes on `device`."""

    def to_host(self, array: Any) -> NDArray[Any]:
        """Return a copy of `array` for NumPy, bfloat16 as float32; this waits for the device."""

    def copy_to_host(self, array: Any, target: NDArray[Any]) -> None:
        """Copy `array` to a contiguous one of NumPy; this waits for the device."""

    def from_host(self, array: NDArray[Any], device: int) -> Any:
        """Return a copy of `array` on the device; this may wait for the device."""

    def staged(self, array: NDArray[Any], device: int) -> Any:
        """Return a copy of `array` on the device, in the order of the stream, without a wait.

        It goes by memory that the device reads while the host runs on, and that the library hands
        out again when it has been read.
        """

    def is_capturing(self, device: int) -> bool:
        """Tell whether what is started now goes into a graph, instead of being run."""

    def current(self) -> int:
        """Return the number of the device that the library works on now."""

    def take(self, array: Any, rows: NDArray[np.int64]) -> Any:
        """Return some rows of `array`, in this order."""

    def sort_rows(self, array: Any, rows: NDArray[np.int64]) -> None:
        """Bring all rows of `array` (n, d) into this order, with memory for some columns more."""

    def joined(self, arrays: Sequence[Any]) -> Any:
        """Return arrays of one dtype one after the other, as a new array."""

    def added(self, a: Any, b: Any) -> Any:
        """Return the sum of two arrays of one shape and dtype, as a new array."""


# Copies to a device of more than a few times so many bytes, and all to an array of NumPy's, go
# through pinned memory of so many, two by turns: the device copies one while threads of the host
# copy the other. Otherwise one thread would copy all.
_PART = 1 << 25
_SORTED_PARTS = 8  # of the columns, of which one is held twice while rows are sorted


class Torch:
    name = "torch.Tensor"

    def is_ready(self) -> bool:
        try:
            return bool(import_module("torch").cuda.is_available())
        except ImportError:
            return False

    def owns(self, array: object) -> bool:
        torch = sys.modules.get("torch")
        return torch is not None and isinstance(array, torch.Tensor) and array.is_cuda

    def layout(self, array: Any) -> Layout:
        dtype = str(array.dtype).removeprefix("torch.")
        return Layout(
            array.data_ptr(), tuple(array.shape), array.stride(), dtype, array.device.index
        )

    def address(self, array: Any) -> int:
        start: int = array.data_ptr()
        return start

    def device_of(self, array: Any) -> int:
        number: int = array.device.index
        return number

    def converted(self, array: Any, dtype: str) -> Any:
        return array.to(getattr(sys.modules["torch"], dtype)).contiguous()

    def empty(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        torch = sys.modules["torch"]
        return torch.empty(shape, dtype=getattr(torch, dtype), device=torch.device("cuda", device))

    def stream(self, device: int) -> int:
        handle: int = sys.modules["torch"].cuda.current_stream(device).cuda_stream
        return handle

    def on(self, device: int) -> AbstractContextManager[Any]:
        return nullcontext()  # Torch computes where its tensors are

    def to_host(self, array: Any) -> NDArray[Any]:
        torch = sys.modules["torch"]
        wide = array.float() if array.dtype is torch.bfloat16 else array  # NumPy has none
        copy: NDArray[Any] = wide.detach().cpu().numpy()
        return copy

    def copy_to_host(self, array: Any, target: NDArray[Any]) -> None:
        torch = sys.modules["torch"]
        given, to = array.view(-1), torch.from_numpy(target).view(-1)
        waiting: list[tuple[Any, Any, Any]] = []
        for part, pinned, done in _in_parts(torch, given):
            if len(waiting) == 2:
                _land(*waiting.pop(0))
            pinned.copy_(given[part], non_blocking=True)
            done.record(torch.cuda.current_stream(array.device))
            waiting.append((to[part], pinned, done))
        for one in waiting:
            _land(*one)

    def from_host(self, array: NDArray[Any], device: int) -> Any:
        torch = sys.modules["torch"]
        place = torch.device("cuda", device)
        if array.nbytes <= 4 * _PART:
            return torch.from_numpy(array).to(place)
        given = torch.from_numpy(array)
        target = torch.empty(given.shape, dtype=given.dtype, device=place)
        given, to = given.view(-1), target.view(-1)
        for part, pinned, done in _in_parts(torch, given):
            done.synchronize()  # with the part before the last
            pinned.copy_(given[part])
            to[part].copy_(pinned, non_blocking=True)
            done.record(torch.cuda.current_stream(place))
        torch.cuda.current_stream(place).synchronize()  # what is next may be on another
        return target

    def staged(self, array: NDArray[Any], device: int) -> Any:
        torch = sys.modules["torch"]
        kind = getattr(torch, array.dtype.name)
        pinned = torch.empty(array.shape, dtype=kind, device="cpu", pin_memory=True)
        pinned.numpy()[...] = array
        # The copy leaves an event with the pinned memory, which is not handed out before that.
        return pinned.to(torch.device("cuda", device), non_blocking=True)

    def is_capturing(self, device: int) -> bool:
        torch = sys.modules["torch"]
        with torch.cuda.device(device):
            return bool(torch.cuda.is_current_stream_capturing())

    def current(self) -> int:
        number: int = sys.modules["torch"].cuda.current_device()
        return number

    def take(self, array: Any, rows: NDArray[np.int64]) -> Any:
        return array[self.from_host(rows, array.device.index)]

    def sort_rows(self, array: Any, rows: NDArray[np.int64]) -> None:
        _sort_rows(array, self.from_host(rows, array.device.index))

    def joined(self, arrays: Sequence[Any]) -> Any:
        return sys.modules["torch"].cat(list(arrays))

    def added(self, a: Any, b: Any) -> Any:
        return a + b


def _in_parts(torch: Any, flat: Any) -> Iterator[tuple[slice, Any, Any]]:
    """Yield parts of a flat tensor, pinned memory for each, and an event, both by turns."""
    step = _PART // flat.element_size()
    kind = {"dtype": flat.dtype, "device": "cpu", "pin_memory": True}
    pinned = [torch.empty(min(step, len(flat)), **kind) for _ in "ab"]
    events = [torch.cuda.Event(), torch.cuda.Event()]
    for i, first in enumerate(range(0, len(flat), step)):
        part = slice(first, min(first + step, len(flat)))
        yield part, pinned[i % 2][: part.stop - first], events[i % 2]


def _sort_rows(array: Any, order: Any) -> None:
    step = -(-array.shape[1] // _SORTED_PARTS)
    for first in range(0, array.shape[1], step):
        columns = slice(first, first + step)
        array[:, columns] = array[:, columns][order]


def _land(target: Any, pinned: Any, done: Any) -> None:
    """Copy what has come to pinned memory to where it belongs."""
    done.synchronize()
    target.copy_(pinned)


class CuPy:
    name = "cupy.ndarray"

    def is_ready(self) -> bool:
        try:
            return bool(import_module("cupy").cuda.is_available())
        except ImportError:
            return False

    def owns(self, array: object) -> bool:
        cupy = sys.modules.get("cupy")
        return cupy is not None and isinstance(array, cupy.ndarray)

    def layout(self, array: Any) -> Layout:
        size = array.dtype.itemsize
        strides = tuple(stride // size for stride in array.strides)
        return Layout(
            array.data.ptr, tuple(array.shape), strides, array.dtype.name, array.device.id
        )

    def address(self, array: Any) -> int:
        start: int = array.data.ptr
        return start

    def device_of(self, array: Any) -> int:
        number: int = array.device.id
        return number

    def converted(self, array: Any, dtype: str) -> Any:
        with self.on(array.device.id):
            return array.astype(dtype, order="C", copy=False)

    def empty(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        with self.on(device):
            return sys.modules["cupy"].empty(shape, dtype)

    def stream(self, device: int) -> int:
        handle: int = sys.modules["cupy"].cuda.get_current_stream(device).ptr
        return handle

    def on(self, device: int) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = sys.modules["cupy"].cuda.Device(device)
        return context

    def to_host(self, array: Any) -> NDArray[Any]:
        copy: NDArray[Any] = sys.modules["cupy"].asnumpy(array)
        return copy

    def copy_to_host(self, array: Any, target: NDArray[Any]) -> None:
        array.get(out=target)

    def from_host(self, array: NDArray[Any], device: int) -> Any:
        with self.on(device):
            return sys.modules["cupy"].asarray(array)

    def staged(self, array: NDArray[Any], device: int) -> Any:
        return self.from_host(array, device)  # by pinned memory with an event, as CuPy copies

    def is_capturing(self, device: int) -> bool:
        stream = sys.modules["cupy"].cuda.get_current_stream(device)
        return stream.ptr != 0 and bool(stream.is_capturing())  # the default stream cannot be

    def current(self) -> int:
        number: int = sys.modules["cupy"].cuda.runtime.getDevice()
        return number

    def take(self, array: Any, rows: NDArray[np.int64]) -> Any:
        with self.on(array.device.id):
            return array[self.from_host(rows, array.device.id)]

    def sort_rows(self, array: Any, rows: NDArray[np.int64]) -> None:
        with self.on(array.device.id):
            _sort_rows(array, self.from_host(rows, array.device.id))

    def joined(self, arrays: Sequence[Any]) -> Any:
        with self.on(arrays[0].device.id):
            return sys.modules["cupy"].concatenate(list(arrays))

    def added(self, a: Any, b: Any) -> Any:
        with self.on(a.device.id):
            return a + b
