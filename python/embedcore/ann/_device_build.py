# SPDX-License-Identifier: Apache-2.0
"""The links of all rows, chosen on a device for a build on the CPU.

Of each row the nearest are looked for among the rows of the cells around it, as the CPU does, by
whole codes; with some rows farther away they are the candidates for its links.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._device import DTYPES, call_for, on_host
from ._basis import sample_size
from ._device_costs import SCAN, TILE
from ._device_rows import Given, Memory, device_number, encoded
from ._state import ChooseLinks, Options
from ._vectors import Floats, widened

NEIGHBOURS = 80  # that are weighed, as in build/neighbours.h
_FARTHER = 32  # cells around a row of which one row each is weighed too, as there
_DEGREE, _LEAST = 32, 16  # as in index_data.h and build/prune.h
# Rows of the nearest cells that are looked at: twice as many as by the CPU, which goes by how near
# cells are to a few rows, and not to the cells that many rows are of.
_SCANNED = 32768
_GROUP = 4 * TILE  # rows, about a cell of a million, that are compared with the same cells
_BATCH = 64 * TILE  # rows whose links are chosen together
_CELLS = 1024  # whose distances to all cells are held at a time


class Cells(NamedTuple):
    """Rows in the order of cells."""

    start: NDArray[np.int64]  # of each cell's rows, and where the last ends
    near: NDArray[np.int64]  # [cells][all or the first many]: by distance, the cell itself first
    members: NDArray[np.uint32]  # rows that others may be linked to, ascending
    member_start: NDArray[np.int64]  # as start, in members


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
        cells = _cells_of(start.astype(np.int64), centroids, twins)
        return _Links(where, number, options, (raw, inverse_norms), cells).chosen()

    return choose


def _cells_of(start: NDArray[np.int64], centroids: Floats, twins: NDArray[np.bool_]) -> Cells:
    members = np.flatnonzero(~twins).astype(np.uint32)
    member_start = np.searchsorted(members, start)
    # No cell of members is farther than the last of these that is looked at.
    sizes = np.sort(np.diff(member_start))
    enough = int(np.searchsorted(np.cumsum(sizes), _SCANNED)) + 1
    first = min(len(centroids), max(enough, _FARTHER))
    squares = np.einsum("ij,ij->i", centroids, centroids)
    near = np.empty((len(centroids), first), np.int64)
    for at in range(0, len(centroids), _CELLS):
        distances = squares - 2.0 * (centroids[at : at + _CELLS] @ centroids.T)
        own = np.arange(at, at + len(distances))
        distances[own - at, own] = -np.inf
        near[at : at + _CELLS] = np.argsort(distances, axis=1, kind="stable")[:, :first]
    return Cells(start, near, members, member_start)


class _Links:
    """Rows as they lie in an index, on a device."""

    def __init__(
        self, where: str, device: int, options: Options,
        rows: tuple[NDArray[np.uint8], Floats], cells: Cells,
    ) -> None:  # fmt: skip
        raw, inverse_norms = rows
        self._where, self._device, self._dim = where, device, options.dim
        self._seed, self._cells = options.seed, cells
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
        self._members = 0  # all rows
        if len(cells.members) < count:
            self._members = self._memory.sent("cells", cells.members)
        self._cell_of = np.repeat(np.arange(len(cells.near)), np.diff(cells.start))
        self._farther = cells.near[:, :_FARTHER].astype(np.uint32)
        self._addresses = (
            self._members,
            self._memory.sent("cells", cells.member_start.astype(np.uint32)),
            self._memory.sent("cells", self._cell_of.astype(np.uint32)),
            self._memory.sent("cells", self._farther),
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
        k = min(NEIGHBOURS + 1, len(self._cells.members))
        ids, distances = call.made((count, k), "int64"), call.made((count, k), "float32")
        counts = call.made((count,), "int64")
        near = call.kept(ids)
        which, lists = self._lists(call, first, count)
        tiles = -(-count // TILE)
        call.kernels.ann_search(
            self._where, call.place(), self._index, self._queries(call, first, count), k, False,
            (0, which, 0, -1, tiles, count), lists, (0, 0, 0, 0, *SCAN),
            (near, call.kept(distances), call.kept(counts), 0), call.allocate,
        )  # fmt: skip
        candidates = (first, count, (near, k), self._addresses, self._farther.shape[1])
        call.kernels.ann_choose_links(
            self._where, call.place(), self._index, candidates, self._seed, _DEGREE, _LEAST, links
        )

    def _lists(
        self, call: Any, first: int, count: int
    ) -> tuple[int, tuple[int, int, int, int, int, int]]:
        """Return the address of each row's list, and the lists, as searches take them."""
        members = self._cells.members
        if len(members) <= _SCANNED:
            return 0, (0, 0, 0, self._members, 0, len(members))
        groups = [self._near(at, count - at + first) for at in range(first, first + count, _GROUP)]
        lengths = np.array([len(group) for group in groups])
        slots = np.zeros((len(groups), lengths.max()), np.uint32)
        for i, group in enumerate(groups):
            slots[i, : len(group)] = group
        which = (np.arange(count) // _GROUP).astype(np.int32)
        lists = (call.sent(slots), call.sent(lengths), 0, self._members, slots.shape[1])
        return call.sent(which), (*lists, len(members))

    def _near(self, first: int, left: int) -> NDArray[np.uint32]:
        """Return the rows of the cells nearest to those of a group of rows, ascending."""
        cells = self._cells
        own = np.unique(self._cell_of[first : first + min(left, _GROUP)])
        # All the first, then all the second: of few cells it is as many of each.
        order = cells.near[own].T.reshape(-1)
        _, at = np.unique(order, return_index=True)
        order = order[np.sort(at)]
        sizes = cells.member_start[order + 1] - cells.member_start[order]
        taken = np.sort(order[: int(np.searchsorted(np.cumsum(sizes), _SCANNED)) + 1])
        starts, ends = cells.member_start[taken], cells.member_start[taken + 1]
        lengths = ends - starts
        places = np.arange(lengths.sum()) + np.repeat(
            starts - (np.cumsum(lengths) - lengths), lengths
        )
        found: NDArray[np.uint32] = cells.members[places]
        return found

    def _queries(self, call: Any, first: int, count: int) -> tuple[int, int, int, int, int]:
        dim = self._dim
        if self._dtype == "int8":  # which queries cannot be
            batch = self._rows[first : first + count].astype(np.float32)
            return call.sent(batch), count, dim, dim, DTYPES["float32"]
        address = self._vectors + first * dim * self._rows.itemsize
        return address, count, dim, dim, DTYPES[self._dtype]
