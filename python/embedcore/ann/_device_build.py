# SPDX-License-Identifier: Apache-2.0
"""The nearest neighbours of all rows, found on a device for a build on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._device import DTYPES, call_for, on_host
from ._basis import sample_size
from ._device_costs import SCAN, TILE
from ._device_rows import Given, Memory, device_number, encoded
from ._state import FindNearest, Options
from ._vectors import widened

NEIGHBOURS = 80  # that a build weighs, as build/neighbours.h says
_BATCH = 64 * TILE  # rows that are looked up together
_NO_SLOT = 0xFFFFFFFF


def finder_on(where: str, device: str, options: Options) -> FindNearest | None:
    """Return what finds neighbours on a device; None for the CPU, where builds do it themselves."""
    if device == "cpu":
        return None

    def find(raw: NDArray[np.uint8], inverse_norms: NDArray[np.float32]) -> NDArray[np.uint32]:
        number = device_number(where, device, "build_device")
        assert number is not None
        return _Neighbours(where, number, options, raw, inverse_norms).found()

    return find


class _Neighbours:
    """Rows as they lie in an index, on a device."""

    def __init__(
        self, where: str, device: int, options: Options, raw: NDArray[np.uint8],
        inverse_norms: NDArray[np.float32],
    ) -> None:  # fmt: skip
        self._where, self._device, self._dim = where, device, options.dim
        self._dtype = options.dtype or "float32"
        stored = "uint16" if self._dtype == "bfloat16" else self._dtype
        self._rows = raw.view(stored).reshape(-1, options.dim)
        self._memory = Memory(call_for(where, "build_device", device))
        rows = len(self._rows)
        self._vectors = self._memory.sent("vectors", raw)
        ids = self._memory.sent("ids", np.arange(rows))
        norms = self._memory.sent("vectors", inverse_norms)
        step = max(1, rows // sample_size(options.dim))
        # Links are between rows at little distance, for inner products too.
        metric = "cosine" if options.metric == "cosine" else "l2"
        self._index = encoded(
            self._memory,
            Given(metric, self._dtype, rows, options.dim, options.dim),
            (self._vectors, norms, ids),
            widened(self._rows[::step], self._dtype),
        )

    def found(self) -> NDArray[np.uint32]:
        """Return the nearest of each row, the nearest first, without the row itself."""
        rows = len(self._rows)
        nearest = np.full((rows, NEIGHBOURS), _NO_SLOT, np.uint32)
        for first in range(0, rows, _BATCH):
            count = min(_BATCH, rows - first)
            ids = self._searched(first, count, min(NEIGHBOURS + 1, rows))
            others = ids != np.arange(first, first + count)[:, None]
            others &= ids >= 0  # of rows that are not finite, which damaged files may have
            order = np.argsort(~others, axis=1, kind="stable")[:, :NEIGHBOURS]
            kept = np.take_along_axis(np.where(others, ids, _NO_SLOT), order, axis=1)
            nearest[first : first + count, : kept.shape[1]] = kept
        return nearest

    def _searched(self, first: int, count: int, k: int) -> NDArray[np.int64]:
        call = call_for(self._where, "build_device", self._device)  # scratch is for one batch
        ids, distances = call.made((count, k), "int64"), call.made((count, k), "float32")
        counts = call.made((count,), "int64")
        results = (call.kept(ids), call.kept(distances), call.kept(counts), 0)
        tiles = -(-count // TILE)
        call.kernels.ann_search(
            self._where, call.place(), self._index, self._queries(call, first, count), k, False,
            (0, 0, 0, -1, tiles, count), (0, 0, 0, 0, 0, len(self._rows)), (0, 0, 0, 0, *SCAN),
            results, call.allocate,
        )  # fmt: skip
        found: NDArray[np.int64] = on_host(ids)
        return found

    def _queries(self, call: Any, first: int, count: int) -> tuple[int, int, int, int, int]:
        dim = self._dim
        if self._dtype == "int8":  # which queries cannot be
            batch = self._rows[first : first + count].astype(np.float32)
            return call.sent(batch), count, dim, dim, DTYPES["float32"]
        address = self._vectors + first * dim * self._rows.itemsize
        return address, count, dim, dim, DTYPES[self._dtype]
