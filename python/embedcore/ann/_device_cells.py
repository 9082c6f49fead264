# SPDX-License-Identifier: Apache-2.0
"""Cells of a build on a device: which lie around which, and the rows of those around some rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .._device import DTYPES, Call, call_for
from ._device_costs import SCAN, TILE
from ._device_rows import Given, Memory, encoded, mean_of
from ._vectors import Floats

FARTHER = 32  # cells around a row of which one row each is weighed too, as in build/neighbours.h
# Rows of the nearest cells that are looked at: twice as many as by the CPU, which goes by how near
# cells are to a few rows, and not to the cells that many rows are of.
SCANNED = 32768
GROUP = 4 * TILE  # rows, about a cell of a million, that are compared with the same cells
_MOST_NEAR = 1024  # cells that are known of each, as many as a search finds
_BATCH = 64 * TILE  # cells that are looked for together

Lists = tuple[int, int, int, int, int, int, int]


class Cells:
    """Rows in the order of cells that start at `start`; all but twins take part in a build."""

    def __init__(
        self, where: str, device: int, start: NDArray[np.int64], centroids: Floats,
        twins: NDArray[np.bool_],
    ) -> None:  # fmt: skip
        self._where, self._device = where, device
        self._memory = Memory(call_for(where, "build_device", device))
        members = np.flatnonzero(~twins).astype(np.uint32)
        member_start = np.searchsorted(members, start)
        sizes = np.diff(member_start)
        self.rows, self.members = len(twins), len(members)
        self._stride = SCANNED - 1 + int(sizes.max())
        # No cell of members that is looked at is farther than the last of so many, unless these are
        # more than a search finds.
        enough = int(np.searchsorted(np.cumsum(np.sort(sizes)), SCANNED)) + 1
        self._near_each = min(len(centroids), max(enough, FARTHER), _MOST_NEAR)
        self.farther = min(FARTHER, self._near_each)
        sent = self._memory.sent
        cell_of = np.repeat(np.arange(len(centroids), dtype=np.uint32), np.diff(start))
        self._members = sent("cells", members) if self.members < self.rows else 0  # 0: all rows
        arrays = (
            self._members,
            sent("cells", member_start.astype(np.uint32)),
            sent("cells", cell_of),
            self._ranked(centroids),
        )
        self.numbers = (arrays, len(centroids), self._near_each)  # as kernels take cells

    def _ranked(self, centroids: Floats) -> int:
        """Return the address of the cells nearest to each, itself first."""
        count, columns = centroids.shape
        rows = self._memory.sent("cells", centroids)
        ids = self._memory.sent("cells", np.arange(count))
        given = Given("l2", "float32", count, columns, columns)
        step = max(1, count // _BATCH)
        mean = mean_of(centroids[::step], given.metric)
        index = encoded(self._memory, given, (rows, 0, ids), mean)
        self.near = self._memory.call.made((count, self._near_each), "int64")
        address = self._memory.call.kept(self.near)
        for first in range(0, count, _BATCH):
            some = min(_BATCH, count - first)
            call = call_for(self._where, "build_device", self._device)  # scratch is for one batch
            distances = call.kept(call.made((some, self._near_each), "float32"))
            found = call.kept(call.made((some,), "int64"))
            queries = (rows + 4 * first * columns, some, columns, columns, DTYPES["float32"])
            call.kernels.ann_search(
                self._where, call.place(), index, queries, self._near_each, False,
                (0, 0, 0, -1, -(-some // TILE), some), (0, 0, 0, 0, 0, count, 0),
                (0, 0, 0, 0, *SCAN),
                (address + 8 * first * self._near_each, distances, found, 0), call.allocate,
            )  # fmt: skip
        return address

    def lists(self, call: Call, first: int, count: int) -> tuple[int, Lists]:
        """Return the address of the list of each row, and the lists, as searches take them."""
        if self.members <= SCANNED:
            return 0, (0, 0, 0, self._members, 0, self.members, 0)
        groups = -(-count // GROUP)
        slots = call.kept(call.made((groups, self._stride), "int32"))
        counts = call.kept(call.made((groups,), "int64"))
        call.kernels.ann_list_near(
            self._where, call.place(), self.numbers, (first, count, GROUP), SCANNED,
            (slots, self._stride, counts),
        )  # fmt: skip
        which = (np.arange(count) // GROUP).astype(np.int32)
        return call.sent(which), (slots, counts, 0, self._members, self._stride, self.members, 0)
