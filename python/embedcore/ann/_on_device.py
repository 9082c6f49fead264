# SPDX-License-Identifier: Apache-2.0
"""`ann.DeviceIndex`: a version of an index on a GPU, and searches there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._check import integer
from .._device import Call, call_for, call_of, is_on_device, on_host
from ._device_costs import SCAN, TILE, Costs, Plan, measured
from ._device_rows import DeviceRows, device_number, sent_to
from ._device_where import DeviceFilters, Which, check_forms, evaluated
from ._result import SearchResult
from ._search import wanted_of
from ._state import State
from ._vectors import widened
from ._where import is_list_of_filters

if TYPE_CHECKING:
    from ._index import Index

MOST_RESULTS = 1024
_SAMPLE = 1024  # queries that costs are measured with
# Lists of slots that are there at the same time; filters beyond take turns.
_LIST_BYTES = 1 << 28


class DeviceIndex:
    """A version of an index on a GPU. Made by :meth:`Index.to`.

    It is a snapshot: what the index is changed to later is not seen here. Searches compare all rows
    that pass, by products of the tensor cores, or walk through the graph where that is quicker by
    what was measured when it was made; the best are measured anew from the vectors as they were
    given. They may run on any stream and in many threads. Until they are done, it has to be kept.

    Walks take an index that was built, every row of it linked (:meth:`Index.compact`).

    Examples
    --------
    >>> index = Index(768)  # doctest: +SKIP
    >>> there = index.to("cuda")  # doctest: +SKIP
    >>> there.search(queries, k=10, where=field("year") >= 2020).ids  # doctest: +SKIP
    """

    def __init__(self, index: Index, state: State, device: int) -> None:
        where = "ann.Index.to"
        if state.dropped:
            raise NotImplementedError(
                f"{where}: 'device' must be 'cpu' for an index that does not keep its vectors "
                f"(keep_vectors=False); got 'cuda:{device}'."
            )
        self._index, self._state, self._number = index, state, device
        self._rows: DeviceRows = sent_to(call_for(where, "device", device), state)
        self._costs: Costs | None = self._measure(where) if self._rows.graph[0] else None

    @property
    def dim(self) -> int:
        """Columns of the vectors."""
        return self._state.options.dim

    @property
    def metric(self) -> str:
        """Name of the distance."""
        return self._state.options.metric

    @property
    def dtype(self) -> str | None:
        """How vectors are kept."""
        return self._state.options.dtype

    @property
    def device(self) -> str:
        """Where it is."""
        return f"cuda:{self._number}"

    @property
    def ids(self) -> NDArray[np.int64]:
        """Ids of the rows in the order of adding, on the CPU; masks are aligned with it."""
        return self._state.ids.ordered

    def __len__(self) -> int:
        return self._state.ids.live

    def __bool__(self) -> bool:
        return True  # also without rows

    def __repr__(self) -> str:
        return (
            f"DeviceIndex(dim={self.dim}, metric={self.metric!r}, rows={len(self)}, "
            f"device={self.device!r})"
        )

    def memory_usage(self) -> dict[str, int]:
        """Return the bytes that each part takes on the device, and their ``"total"``."""
        usage = dict(self._rows.memory.nbytes)
        usage["total"] = sum(usage.values())
        return usage

    def to(self, device: str) -> Any:
        """Return this version of the index on a device.

        Parameters
        ----------
        device : str
            As for :meth:`Index.to`.

        Returns
        -------
        Index or DeviceIndex
            For ``"cpu"`` an index of its own, which shares the memory of this version.
        """
        number = device_number("ann.DeviceIndex.to", device)
        if number == self._number:
            return self
        if number is None:
            return self._index._with(self._state)
        return DeviceIndex(self._index, self._state, number)

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        where: Any = None,
        recall: float = 0.95,
        exact: bool = False,
        check: bool = False,
    ) -> SearchResult:
        """Find the nearest rows of each query among those that pass a filter.

        Parameters
        ----------
        queries : array (n, dim), or (dim,) for one query
            Torch tensor or CuPy array on the device; float16, bfloat16, float32, or float64, which
            is rounded to float32. May have as many columns as one of the index's prefixes.
        k : int, default 10
            How many rows to find, 1024 at most; may exceed the number of rows.
        where : optional
            As for :meth:`Index.search`. Masks and ids may lie on the device, or on the CPU.
        recall : float, default 0.95
            As for :meth:`Index.search`: what walks through the graph have to find.
        exact : bool, default False
            Look at all rows that pass, and compare the vectors themselves for queries of which
            rounding to bfloat16 may have lost a row.
        check : bool, default False
            Whether to wait, and raise for queries that have no answer.

        Returns
        -------
        SearchResult
            Of arrays on the device: for each query exactly min(k, rows that pass) rows without
            duplicates, by ascending distance, equal distances by ascending id; padded as by
            :meth:`Index.search`. A query that is not finite, zero under the cosine, or else longer
            than 1e15 has no rows and NaN for distances.

        Raises
        ------
        TypeError
            Queries of another kind or on another device; a filter that asks of a column what its
            kind does not have.
        ValueError
            Queries of another number of columns; a column that does not exist; k or recall out of
            bounds; with `check`, a query that has no answer, which is named.

        Notes
        -----
        The kernels are started on the current stream of the queries' library, and nothing is waited
        for; expressions, masks and ids from the CPU, and lists of filters, have to be sent first.
        """
        name = "ann.DeviceIndex.search"
        integer(name, "k", k, minimum=1, maximum=MOST_RESULTS)
        wanted = wanted_of(name, self._state, k, recall, None, exact, 0)
        call = self._call(name, "queries", queries)
        shape = tuple(queries.shape)
        if len(shape) == 1 and shape[0] > 0:
            queries = queries.reshape(1, shape[0])
        matrix = call.matrix("queries", queries, narrow=True)
        count, columns = matrix[1:3]
        if columns not in self._rows.indexes:
            also = "".join(f" or {width}" for width in self._state.options.prefixes)
            raise ValueError(
                f"{name}: 'queries' must have {self.dim}{also} columns; got shape {shape}."
            )
        if count == 0 or len(self) == 0:
            check_forms(call, self._rows, self._index, where, count)
            where = None
        filters = evaluated(call, self._rows, self._state, self._index, where, count)
        plan = SCAN
        if self._costs is not None and columns == self.dim and not wanted.exact:
            tiles = -(-count // TILE)
            if filters.which is not None:
                tiles = len(_tiles_of(np.sort(filters.which))) - 1
            plan = self._costs.plan(count, tiles, wanted.k, wanted.recall)
        result = _Search(call, self._rows, matrix, wanted.k, wanted.exact, plan).run(filters)
        if check:
            self._check(name, result.distances)
        return result

    def count(self, where: Any = None) -> int:
        """Return how many rows pass a filter, as :meth:`search` takes it; all for None.

        It is evaluated on the device, and waited for.
        """
        if where is None:
            return len(self)
        name = "ann.DeviceIndex.count"
        if is_list_of_filters(where):
            raise TypeError(f"{name}: 'where' must be one filter; got {type(where).__name__}.")
        there = is_on_device(where)
        call = self._call(name, "where", where) if there else call_for(name, "where", self._number)
        filters = evaluated(call, self._rows, self._state, self._index, where, 1)
        counts = call.made((1,), "int64")
        slots = call.allocate(4 * self._rows.rows)
        call.kernels.ann_list(
            name, call.place(), (filters.bits, 1), self._rows.rows, (slots, self._rows.rows),
            call.kept(counts), call.allocate,
        )  # fmt: skip
        return int(on_host(counts)[0])

    def _measure(self, name: str) -> Costs:
        """Measure what searches cost, with rows of the index for queries."""
        call, state = call_for(name, "device", self._number), self._state
        slots = state.ids.ordered_slots
        slots = slots[:: max(1, len(slots) // _SAMPLE)][:_SAMPLE]
        rows = widened(state.vectors.vectors(slots), state.options.dtype)
        sample = call.copied_from_host(np.array(rows))
        none = evaluated(call, self._rows, state, self._index, [], 1)

        def run(count: int, plan: Plan, among_all: bool) -> Any:
            address, _, *others = call.matrix("queries", sample)
            matrix = (address, count, others[0], others[1], others[2])
            once = call_for(name, "device", self._number)  # scratch is for one search
            filters = DeviceFilters(0, 0, None) if among_all else none
            return on_host(_Search(once, self._rows, matrix, 11, False, plan).run(filters).ids)

        return measured(len(self), len(slots), run)

    def _call(self, name: str, argument: str, array: Any) -> Call:
        call = call_of(name, argument, array)
        if call is None or call.place()[0] != self._number:
            there = "the CPU" if call is None else f"device cuda:{call.place()[0]}"
            raise TypeError(
                f"{name}: '{argument}' must be on device {self.device}, as the index is; got "
                f"{type(array).__name__} on {there}."
            )
        return call

    def _check(self, name: str, distances: Any) -> None:
        bad = np.flatnonzero(np.isnan(on_host(distances)[:, 0]))
        if len(bad):
            what = "and not zero" if self.metric == "cosine" else "and no longer than 1e15"
            raise ValueError(f"{name}: 'queries' must be finite {what}; row {bad[0]} is not.")


class _Search:
    """Searches of one call, a wave of filters after the other."""

    def __init__(
        self, call: Call, rows: DeviceRows, matrix: tuple[int, int, int, int, int], k: int,
        exact: bool, plan: Plan,
    ) -> None:  # fmt: skip
        self._call, self._rows, self._matrix, self._k = call, rows, matrix, k
        self._exact, self._plan = exact, plan
        self._index = rows.indexes[matrix[2]]
        self._results = (0, 0, 0)

    def run(self, filters: DeviceFilters) -> SearchResult:
        call, count = self._call, self._matrix[1]
        ids = call.made((count, self._k), "int64")
        distances = call.made((count, self._k), "float32")
        found = call.made((count,), "int64")
        self._results = (call.kept(ids), call.kept(distances), call.kept(found))
        if count:
            self._answer(filters)
        return SearchResult(ids, distances, found)

    def _answer(self, filters: DeviceFilters) -> None:
        queries = self._matrix[1]
        if filters.which is None:
            tiles = -(-queries // TILE)
            alone = 0 if filters.size else -1
            lists = self._listed(filters.bits, filters.size)
            self._start((0, 0, 0, alone, tiles, queries), lists)
            return
        without = np.flatnonzero(filters.which < 0).astype(np.int32)
        if len(without):
            self._start_some(without, filters.which, 0, 0, 0)
        at_once = max(1, _LIST_BYTES // (4 * max(1, self._rows.rows)))
        order = np.argsort(filters.which, kind="stable").astype(np.int32)[len(without) :]
        for first in range(0, filters.size, at_once):
            count = min(at_once, filters.size - first)
            begin, end = np.searchsorted(filters.which[order], [first, first + count])
            bits = filters.bits + 4 * self._rows.words * first
            self._start_some(order[begin:end], filters.which, first, bits, count)

    def _listed(self, bits: int, filters: int) -> tuple[int, int, int, int, int, int]:
        """List the slots of filters whose bits begin at an address."""
        rows, call = self._rows, self._call
        slots = counts = 0
        if filters:
            slots, counts = call.allocate(4 * rows.rows * filters), call.allocate(8 * filters)
            call.kernels.ann_list(
                call.where, call.place(), (bits, filters), rows.rows, (slots, rows.rows), counts,
                call.allocate,
            )  # fmt: skip
        return slots, counts, bits, rows.every, rows.rows, rows.live

    def _start_some(
        self, order: NDArray[np.int32], which: Which, first: int, bits: int, filters: int
    ) -> None:
        """Answer some queries, those of one filter side by side, counting filters from `first`."""
        own = np.maximum(which[order] - first, -1).astype(np.int32)
        firsts = _tiles_of(own)
        sent = self._call.sent
        with self._call.scratch():  # waves take turns with one memory
            positions = (sent(order), sent(own), sent(firsts), -1, len(firsts) - 1, len(order))
            self._start(positions, self._listed(bits, filters))

    def _start(
        self, positions: tuple[int, int, int, int, int, int],
        lists: tuple[int, int, int, int, int, int],
    ) -> None:  # fmt: skip
        call, rows = self._call, self._rows
        links, entries, count = rows.graph
        graph = (links, entries, rows.alive, count, *self._plan)
        call.kernels.ann_search(
            call.where, call.place(), self._index, self._matrix, self._k, self._exact, positions,
            lists, graph, self._results, call.allocate,
        )  # fmt: skip


def _tiles_of(which: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return where tiles of queries of one filter begin, and where the last one ends."""
    bounds = np.flatnonzero(np.diff(which)) + 1
    starts = np.concatenate([[0], bounds])
    ends = np.concatenate([bounds, [len(which)]])
    tiles = [np.arange(a, b, TILE) for a, b in zip(starts, ends, strict=True)]
    return np.append(np.concatenate(tiles), len(which)).astype(np.int32)
