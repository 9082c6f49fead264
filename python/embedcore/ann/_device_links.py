# SPDX-License-Identifier: Apache-2.0
"""The links of all rows, chosen on a device for a build on the CPU.

Of each row the nearest are looked for among the rows of the cells around it, as the CPU does, by
whole codes; with some rows farther away they are the candidates for its links.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._device import DTYPES, call_for, copy_to_host, take_rows
from ._device_cells import Cells
from ._device_costs import SCAN, TILE
from ._device_rows import STORED, Given, Memory, encoded
from ._state import Options
from ._vectors import Floats

NEIGHBOURS = 80  # that are weighed, as in build/neighbours.h
_DEGREE, _LEAST = 32, 16  # as in index_data.h and build/prune.h
_BATCH = 64 * TILE  # rows whose links are chosen together


class Links:
    """Rows on a device as they are to lie in an index, and the choice of their links."""

    def __init__(
        self, where: str, device: int, options: Options, rows: Any,
        facts: tuple[Floats, Floats], cells: Cells,
    ) -> None:  # fmt: skip
        """Take rows (n, dim) that are there; `facts`: their inverse norms, and their mean."""
        inverse_norms, mean = facts
        self._where, self._device, self._dim = where, device, options.dim
        self._seed, self._cells = options.seed, cells
        self._dtype = options.dtype or "float32"
        self._rows = rows
        self._memory = Memory(call_for(where, "build_device", device))
        self._count = count = cells.rows
        self._vectors = self._memory.call.kept(rows)
        ids = self._memory.sent("ids", np.arange(count))
        norms = self._memory.sent("vectors", inverse_norms)
        # Links are between rows at little distance, for inner products too.
        metric = "cosine" if options.metric == "cosine" else "l2"
        self._index = encoded(
            self._memory,
            Given(metric, self._dtype, count, options.dim, options.dim),
            (self._vectors, norms, ids),
            mean,
        )
        self._links = self._memory.call.made((count, _DEGREE), "int32")

    def begin(self) -> None:
        """Start the choice of the links of all rows."""
        address = self._memory.call.address(self._links)
        for first in range(0, self._count, _BATCH):
            self._choose(first, min(_BATCH, self._count - first), address + first * _DEGREE * 4)

    def finish(self, links: NDArray[np.uint32]) -> None:
        """Write the links of each row, the nearest first, when all are there."""
        copy_to_host(self._links, links.view(np.int32).reshape(self._count, _DEGREE))

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
            batch = take_rows(self._rows, np.arange(first, first + count))
            return call.kept(call.converted(batch, "float32")), count, dim, dim, DTYPES["float32"]
        size = np.dtype(STORED[self._dtype]).itemsize
        return self._vectors + first * dim * size, count, dim, dim, DTYPES[self._dtype]
