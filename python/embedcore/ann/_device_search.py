# SPDX-License-Identifier: Apache-2.0
"""Searches on a device: from filters and a plan to the kernels, in waves of filters."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._device import Call
from ._device_costs import TILE, Plan
from ._device_rows import DeviceRows
from ._device_where import DeviceFilters, Lists, Which
from ._result import SearchResult

EXPLAINED = 5  # numbers of each query, as the C ABI says


class Asked(NamedTuple):
    """What a search is for: queries as the kernels take them, and how they are answered."""

    matrix: tuple[int, int, int, int, int]
    k: int
    exact: bool
    plan: Plan
    filters: DeviceFilters

    @property
    def tiles(self) -> int:
        """How many tiles of queries of one filter there are."""
        return tiles_by(self.filters.which, self.matrix[1])


class _Wave(NamedTuple):
    """Filters that are listed at the same time, and their queries, those of one side by side."""

    first: int  # filter
    filters: int
    order: NDArray[np.int32]
    which: Which  # of the wave's filters
    firsts: NDArray[np.int32]  # where tiles begin


class Search:
    """One call, with the scratch of its `Call`; `list_bytes`: of slots that are listed at once."""

    def __init__(self, call: Call, rows: DeviceRows, asked: Asked, list_bytes: int) -> None:
        self._call, self._rows, self._asked, self._list_bytes = call, rows, asked, list_bytes
        self._index = rows.indexes[asked.matrix[2]]
        self._results = (0, 0, 0, 0)

    def run(self) -> SearchResult:
        """Start the kernels."""
        return self._run(0)

    def explained(self) -> Any:
        """Start them, and return what they say of each query (n, 5), on the device."""
        explanations = self._call.made((self._asked.matrix[1], EXPLAINED), "int64")
        self._run(self._call.kept(explanations))
        return explanations

    def _run(self, explanations: int) -> SearchResult:
        call, count, k = self._call, self._asked.matrix[1], self._asked.k
        ids = call.made((count, k), "int64")
        distances = call.made((count, k), "float32")
        found = call.made((count,), "int64")
        self._results = (call.kept(ids), call.kept(distances), call.kept(found), explanations)
        if count:
            self._answer()
        return SearchResult(ids, distances, found)

    def _answer(self) -> None:
        filters = self._asked.filters
        if filters.which is None:
            alone = 0 if filters.size else -1
            positions = (0, 0, 0, alone, self._asked.tiles, self._asked.matrix[1])
            self._start(positions, filters.bits, filters.size)
            return
        waves = self._waves(filters.which, filters.size)
        # Positions of all waves are one copy.
        parts = [part for wave in waves for part in (wave.order, wave.which, wave.firsts)]
        sent = self._call.sent_together(*parts)
        for number, wave in enumerate(waves):
            addresses = sent[3 * number], sent[3 * number + 1], sent[3 * number + 2]
            positions = (*addresses, -1, len(wave.firsts) - 1, len(wave.order))
            with self._call.scratch():  # waves take turns with one memory
                bits = filters.bits + 4 * self._rows.words * wave.first
                self._start(positions, bits, wave.filters)

    def _waves(self, which: Which, filters: int) -> list[_Wave]:
        order = np.argsort(which, kind="stable").astype(np.int32)
        own = which[order]
        at_once = max(1, self._list_bytes // (4 * max(1, self._rows.rows)))
        at_once -= at_once % TILE if at_once > TILE else 0  # where filters differ, tiles are full
        # Queries without a filter, then some filters after others.
        bounds = [(-1, 0), *((at, min(at_once, filters - at)) for at in range(0, filters, at_once))]
        waves = []
        for first, count in bounds:
            begin, end = np.searchsorted(own, [first, first + max(1, count)])
            if begin < end:
                some = np.maximum(own[begin:end] - max(0, first), -1).astype(np.int32)
                waves.append(_Wave(max(0, first), count, order[begin:end], some, _tiles_of(some)))
        return waves

    def _lists(self, filters: int) -> tuple[Lists, int]:
        """Return where slots of so many filters are, and how many are to be listed there."""
        rows, call = self._rows, self._call
        if filters == 0:
            return Lists(0, 0, rows.rows), 0
        if self._asked.filters.lists is not None:
            return self._asked.filters.lists, 0
        # One array: counts first, for the sake of their alignment.
        counts = call.allocate(filters * (8 + 4 * rows.rows))
        return Lists(counts + 8 * filters, counts, rows.rows), filters

    def _start(
        self, positions: tuple[int, int, int, int, int, int], bits: int, filters: int
    ) -> None:
        call, rows, asked = self._call, self._rows, self._asked
        (slots, counts, stride), listed = self._lists(filters)
        lists = (slots, counts, bits, rows.every, stride, rows.live, listed)
        links, entries, count = rows.graph
        graph = (links, entries, rows.alive, count, *asked.plan)
        call.kernels.ann_search(
            call.where, call.place(), self._index, asked.matrix, asked.k, asked.exact, positions,
            lists, graph, self._results, call.allocate,
        )  # fmt: skip


def list_slots(
    call: Call, rows: DeviceRows, bits: tuple[int, int], slots: tuple[int, int], counts: int
) -> None:
    """List the slots that pass so many filters, so far apart; slots 0: count them alone."""
    call.kernels.ann_list(call.where, call.place(), bits, rows.rows, slots, counts, call.allocate)


def tiles_by(which: Which | None, queries: int) -> int:
    """Return how many tiles queries take, of which each has one filter."""
    if which is None or queries == 0:
        return -(-queries // TILE)
    return len(_tiles_of(np.sort(which))) - 1


def _tiles_of(which: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return where tiles of queries of one filter begin, and where the last one ends."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(which)) + 1])
    tiles = -(-np.diff(starts, append=len(which)) // TILE)  # of each filter
    before = np.repeat(np.cumsum(tiles) - tiles, tiles)
    firsts = np.repeat(starts, tiles) + TILE * (np.arange(len(before)) - before)
    return np.append(firsts, len(which)).astype(np.int32)
