# SPDX-License-Identifier: Apache-2.0
"""Most of a build on a device: codes, cells and links; rows are sent there once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._device import Call, call_for, copy_to_host, on_host, take_rows
from ._device_cells import Cells
from ._device_links import Links
from ._device_rows import STORED, device_number
from ._state import BuildSteps, Options
from ._vectors import DTYPES, METRICS, Floats

_AXIS_STEP = 16  # what the numbers of an axis are padded to a multiple of, as the C ABI says
_WORD = 8  # bytes of codes that are moved at a time


def steps_on(where: str, device: str, options: Options) -> BuildSteps | None:
    """Return what does most of a build on a device; None for the CPU."""
    return None if device == "cpu" else _DeviceSteps(where, device, options)


class _DeviceSteps:
    """One build. Nothing is asked of the device before the first step."""

    def __init__(self, where: str, device: str, options: Options) -> None:
        self._where, self._name, self._options = where, device, options
        self._dtype = options.dtype or "float32"

    def encode(
        self, raw: NDArray[np.uint8], axes: Floats, mean: Floats, head_bytes: int, tail_bytes: int
    ) -> Floats:
        number = device_number(self._where, self._name, "build_device")
        assert number is not None
        self._device, self._mean, self._head_bytes = number, mean.copy(), head_bytes
        call = self._call = self._called()
        dim = self._options.dim
        rows = raw.view(STORED[self._dtype]).reshape(-1, dim)
        count = len(rows)
        self._rows = call.copied_from_host(rows)
        self._heads = call.made((count, head_bytes // _WORD), "int64")
        self._tails = call.made((count, tail_bytes // _WORD), "int64")
        self._squares = call.made((count,), "float32")
        numbers = len(axes)
        padded = np.zeros((numbers, -(-dim // _AXIS_STEP) * _AXIS_STEP), np.float32)
        padded[:, :dim] = axes
        with call.scratch():
            given = (METRICS.index(self._options.metric), DTYPES.index(self._dtype), count, dim)
            places = tuple(map(call.address, (self._heads, self._tails, self._squares)))
            call.kernels.ann_make_byte_codes(
                self._where, call.place(), (*given, call.address(self._rows), call.sent(mean)),
                (numbers, head_bytes, tail_bytes, (call.sent(padded), *places)), call.allocate,
            )  # fmt: skip
        squares: Floats = on_host(self._squares)
        return squares

    def group(
        self, slots: NDArray[np.uint32], sample: NDArray[np.uint32], drawn: NDArray[np.uint32],
        moves: int,
    ) -> NDArray[np.uint32]:  # fmt: skip
        call = self._call
        cell_of = call.made((len(slots),), "int32")
        with call.scratch():
            lists = ((_sent(call, one), len(one)) for one in (drawn, sample, slots))
            first, second, last = lists
            call.kernels.ann_group(
                self._where, call.place(), self._coded(), first, second, moves, last,
                call.address(cell_of), call.allocate,
            )  # fmt: skip
        found: NDArray[np.int32] = on_host(cell_of)
        return found.view(np.uint32)

    def means(self, cell_of: NDArray[np.uint32], cells: int) -> NDArray[np.uint8]:
        call = self._call
        means = call.made((cells, self._head_bytes), "uint8")
        with call.scratch():
            call.kernels.ann_cell_means(
                self._where, call.place(), self._coded(), (_sent(call, cell_of), len(cell_of)),
                (call.address(means), cells),
            )  # fmt: skip
        found: NDArray[np.uint8] = on_host(means)
        return found

    def reorder(
        self, order: NDArray[np.uint32], heads: NDArray[np.uint8], tails: NDArray[np.uint8]
    ) -> None:
        places = order.astype(np.int64)
        for codes, to in ((self._heads, heads), (self._tails, tails)):
            if to.size:
                copy_to_host(take_rows(codes, places), to.view(np.int64).reshape(len(places), -1))
        del self._heads, self._tails, self._squares
        self._call.sort_rows(self._rows, places)  # in place: there may be no room for two of it
        del self._call  # and what else it keeps

    def begin_links(
        self, inverse_norms: Floats, start: NDArray[np.uint32], centroids: Floats,
        twins: NDArray[np.bool_],
    ) -> None:  # fmt: skip
        cells = Cells(self._where, self._device, start.astype(np.int64), centroids, twins)
        facts = (inverse_norms, self._mean)
        self._links = Links(self._where, self._device, self._options, self._rows, facts, cells)
        self._links.begin()

    def links(self, links: NDArray[np.uint32]) -> None:
        self._links.finish(links)

    def _called(self) -> Call:
        return call_for(self._where, "build_device", self._device)

    def _coded(self) -> tuple[int, int, int]:
        address = self._call.address
        return self._head_bytes, address(self._heads), address(self._squares)


def _sent(call: Any, numbers: NDArray[np.uint32]) -> int:
    address: int = call.sent(numbers.view(np.int32))
    return address
