# SPDX-License-Identifier: Apache-2.0
"""The links of all rows, chosen on a device for a build on the CPU.

Of each row the nearest are looked for among the rows of the cells around it, as the CPU does, by
whole codes; with some rows farther away they are the candidates for its links.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._device import DTYPES, call_for, on_host
from ._basis import sample_size
from ._device_cells import Cells
from ._device_costs import SCAN, TILE
from ._device_rows import Given, Memory, device_number, encoded
from ._state import ChooseLinks, Options
from ._vectors import Floats, widened

NEIGHBOURS = 80  # that are weighed, as in build/neighbours.h
_DEGREE, _LEAST = 32, 16  # as in index_data.h and build/prune.h
_BATCH = 64 * TILE  # rows whose links are chosen together


def chooser_on(where: str, device: str, options: Options) -> ChooseLinks | None:
    """Return what chooses links on a device; None for the CPU, where builds do it themselves."""
    if device == "cpu":
        return None

    def choose(
        raw: NDArray[np.uint8], inverse_norms: Floats, start: NDArray[np.uint32], centroids: Floats,
        twins: NDArray[np.bool_],
    ) -> NDArray[np.uint32]:  # fmt: skip
        number = device_number(where, device, "build_device")
        assert number is not None
        cells = (start.astype(np.int64), centroids, twins)
        return _Links(where, number, options, (raw, inverse_norms), cells).chosen()

    return choose


class _Links:
    """Rows as they lie in an index, on a device."""

    def __init__(
        self, where: str, device: int, options: Options,
        rows: tuple[NDArray[np.uint8], Floats],
        cells: tuple[NDArray[np.int64], Floats, NDArray[np.bool_]],
    ) -> None:  # fmt: skip
        raw, inverse_norms = rows
        self._where, self._device, self._dim = where, device, options.dim
        self._seed, self._cells = options.seed, Cells(where, device, *cells)
        self._dtype = options.dtype or "float32"
        stored = "uint16" if self._dtype == "bfloat16" else self._dtype
        self._rows = raw.view(stored).reshape(-1, options.dim)
        self._memory = Memory(call_for(where, "build_device", device))
        count = len(self._rows)
        self._vectors = self._memory.sent("vectors", raw)
        ids = self._memory.sent("ids", np.arange(count))
        norms = self._memory.sent("vectors", inverse_norms)
        step = max(1, count // sample_size(options.dim))
        # Links are between rows at little distance, for inner products too.
        metric = "cosine" if options.metric == "cosine" else "l2"
        self._index = encoded(
            self._memory,
            Given(metric, self._dtype, count, options.dim, options.dim),
            (self._vectors, norms, ids),
            widened(self._rows[::step], self._dtype),
        )

    def chosen(self) -> NDArray[np.uint32]:
        """Return the links of each row, the nearest first; this waits when all have begun."""
        count = len(self._rows)
        call = call_for(self._where, "build_device", self._device)
        links = call.made((count, _DEGREE), "int32")
        address = call.kept(links)
        for first in range(0, count, _BATCH):
            self._choose(first, min(_BATCH, count - first), address + first * _DEGREE * 4)
        found: NDArray[np.int32] = on_host(links)
        return found.view(np.uint32)

    def _choose(self, first: int, count: int, links: int) -> None:
        call = call_for(self._where, "build_device", self._device)  # scratch is for one batch
        k = min(NEIGHBOURS + 1, self._cells.members)
        ids, distances = call.made((count, k), "int64"), call.made((count, k), "float32")
        counts = call.made((count,), "int64")
        near = call.kept(ids)
        which, lists = self._cells.lists(call, first, count)
        tiles = -(-count // TILE)
        call.kernels.ann_search(
            self._where, call.place(), self._index, self._queries(call, first, count), k, False,
            (0, which, 0, -1, tiles, count), lists, (0, 0, 0, 0, *SCAN),
            (near, call.kept(distances), call.kept(counts), 0), call.allocate,
        )  # fmt: skip
        candidates = (first, count, (near, k), self._cells.numbers, self._cells.farther)
        call.kernels.ann_choose_links(
            self._where, call.place(), self._index, candidates, self._seed, _DEGREE, _LEAST, links
        )

    def _queries(self, call: Any, first: int, count: int) -> tuple[int, int, int, int, int]:
        dim = self._dim
        if self._dtype == "int8":  # which queries cannot be
            batch = self._rows[first : first + count].astype(np.float32)
            return call.sent(batch), count, dim, dim, DTYPES["float32"]
        address = self._vectors + first * dim * self._rows.itemsize
        return address, count, dim, dim, DTYPES[self._dtype]
