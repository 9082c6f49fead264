# SPDX-License-Identifier: Apache-2.0
"""`ann.DeviceIndex`: a version of an index on a GPU, and searches there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._check import integer
from .._device import Call, call_for, call_of, is_on_device, on_host
from ._described import Described
from ._device_costs import SCAN, Costs, Plan, by_effort, measured
from ._device_explain import explained
from ._device_filter import DeviceFilter
from ._device_rows import DeviceRows, device_number, rows_of, sent_to
from ._device_search import Asked, Search, list_slots, tiles_by
from ._device_where import DeviceFilters, check_forms, evaluated, one_source
from ._expression import Expression
from ._result import SearchResult
from ._search import wanted_of
from ._state import State

if TYPE_CHECKING:
    from ._index import Index

MOST_RESULTS = 1024
_SAMPLE = 1024  # queries that costs are measured with
# Lists of slots that are there at the same time; filters beyond take turns.
_LIST_BYTES = 1 << 30


class DeviceIndex(Described):
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
        self._index, self._state, self._number = index, state, device
        self._rows: DeviceRows = sent_to(call_for(where, "device", device), state)
        self._costs = self._measured(where, walks=True) if self._rows.graph[0] else None
        self._scan_costs: Costs | None = (
            None  # of an index that has no graph, once they are asked for
        )

    @property
    def device(self) -> str:
        """Where it is."""
        return f"cuda:{self._number}"

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
        effort: int | None = None,
        exact: bool = False,
        check: bool = False,
    ) -> SearchResult:
        """Find the nearest rows of each query among those that pass a filter.

        Parameters
        ----------
        queries : array (n, dim), or (dim,) for one query
            Torch tensor or CuPy array on the device; float16, bfloat16, float32, int8, or float64,
            which is rounded to float32. May have as many columns as one of the index's prefixes.
        k : int, default 10
            How many rows to find, 1024 at most; may exceed the number of rows.
        where : optional
            As for :meth:`Index.search`, and a :class:`DeviceFilter`. Masks and ids may lie on the
            device, or on the CPU.
        recall : float, default 0.95
            As for :meth:`Index.search`: what walks through the graph have to find.
        effort : int, optional
            In place of `recall`: where there is a graph, queries walk, and keep so many of the best
            rows they meet. Where no more rows pass, or it would take more than 512 with those that
            do not pass, rows are scanned.
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
        for but masks and ids of many megabytes from the CPU. What has to be sent, all filters but
        a :class:`DeviceFilter` and arrays on the device, cannot go into a CUDA graph.
        """
        name = "ann.DeviceIndex.search"
        call, asked = self._asked(
            name, "queries", queries, k, where=where, recall=recall, effort=effort, exact=exact
        )
        result = Search(call, self._rows, asked, _LIST_BYTES).run()
        if check:
            self._check(name, result.distances)
        return result

    def explain(
        self,
        query: Any,
        k: int = 10,
        *,
        where: Any = None,
        recall: float = 0.95,
        effort: int | None = None,
        exact: bool = False,
    ) -> dict[str, Any]:
        """Tell how a search for one query is answered: it is planned, run and waited for.

        Parameters are those of :meth:`search`, for one query and one filter.

        Returns
        -------
        dict
            ``plan``: ``"list"``, a scan of the rows that pass, ``"bits"``, one of all rows, which
            asks the filter's bits for those that are near, ``"graph"``, a walk, or ``"empty"``;
            ``passing``, the rows that pass, ``live``, the rows of the index, and ``share``, the
            one by the other; ``estimated_seconds``, by what was measured on the device, where
            there is no graph at the first call of this; ``pool``, the best rows that a walk keeps,
            0 for none. And what was done: ``codes_scored``, rows compared by their codes;
            ``rescored``, rows measured by their vectors; ``gave_up``, whether the walk found too
            few, and rows were scanned after all.

        Raises
        ------
        TypeError, ValueError
            As :meth:`search`.
        """
        name = "ann.DeviceIndex.explain"
        call, asked = self._asked(
            name, "query", query, k, where=where, recall=recall, effort=effort, exact=exact
        )
        if asked.matrix[1] != 1:
            raise ValueError(f"{name}: 'query' must be one query; got {asked.matrix[1]}.")
        (explanation,) = self._explained(name, call, asked)
        return explanation

    def explain_batch(
        self,
        queries: Any,
        k: int = 10,
        *,
        where: Any = None,
        recall: float = 0.95,
        effort: int | None = None,
        exact: bool = False,
    ) -> list[dict[str, Any]]:
        """Tell how a search for many queries is answered, which share what they are compared with.

        Parameters are those of :meth:`search`.

        Returns
        -------
        list of dict
            Of each query what :meth:`explain` tells. ``estimated_seconds`` is its part of the
            whole.

        Raises
        ------
        TypeError, ValueError
            As :meth:`search`.
        """
        name = "ann.DeviceIndex.explain_batch"
        call, asked = self._asked(
            name, "queries", queries, k, where=where, recall=recall, effort=effort, exact=exact
        )
        return self._explained(name, call, asked)

    def count(self, where: Any = None) -> int:
        """Return how many rows pass a filter, as :meth:`search` takes it; all for None.

        It is evaluated on the device, and waited for; of a :class:`DeviceFilter` it is known.
        """
        if where is None:
            return len(self)
        name = "ann.DeviceIndex.count"
        one_source(name, where)
        call, filters = self._evaluated(name, where)
        if isinstance(where, DeviceFilter):
            return len(where)
        counts = call.made((1,), "int64")
        list_slots(call, self._rows, (filters.bits, 1), (0, 0), call.kept(counts))
        return int(on_host(counts)[0])

    def compile(self, where: Any) -> DeviceFilter:
        """Evaluate a filter to use it in several searches, which then do not wait for it.

        Parameters
        ----------
        where : expression, mask, array of ids or Filter
            One filter, as :meth:`search` takes it.

        Returns
        -------
        DeviceFilter
            The rows that pass, as bits and as a list on the device: a bit for each row of the
            index, and four bytes for each that passes. It is waited for.

        Raises
        ------
        TypeError, ValueError
            As :meth:`search`.
        """
        name = "ann.DeviceIndex.compile"
        source = one_source(name, where)
        call, filters = self._evaluated(name, where)
        if isinstance(where, DeviceFilter):
            return where
        rows = self._rows
        counts = call.made((1,), "int64")
        there = call.kept(counts)
        list_slots(call, rows, (filters.bits, 1), (0, 0), there)
        count = int(on_host(counts)[0])
        slots = call.made((count,), "int32")
        list_slots(call, rows, (filters.bits, 1), (call.kept(slots), count), there)
        on_host(counts)  # waits, so that any stream may search by it
        text = repr(source) if isinstance(source, Expression) else "ids"
        return DeviceFilter(
            rows, self._state, text, count, (filters.memory, slots, counts),
            (filters.bits, call.address(slots), there),
        )  # fmt: skip

    def _evaluated(self, name: str, where: Any) -> tuple[Call, DeviceFilters]:
        """Start the evaluation of one filter, wherever it lies."""
        there = is_on_device(where)
        call = self._call(name, "where", where) if there else call_for(name, "where", self._number)
        return call, evaluated(call, self._rows, self._state, self._index, where, 1)

    def _asked(
        self, name: str, argument: str, queries: Any, k: int, *, where: Any, recall: float,
        effort: int | None, exact: bool,
    ) -> tuple[Call, Asked]:  # fmt: skip
        """Check what a search is asked for, and start the evaluation of its filters."""
        integer(name, "k", k, minimum=1, maximum=MOST_RESULTS)
        wanted = wanted_of(name, self._state, k, recall, effort, exact, 0)
        call = self._call(name, argument, queries)
        shape = tuple(queries.shape)
        if len(shape) == 1:
            queries = queries.reshape(min(1, shape[0]), shape[0] or self.dim)
        matrix = call.matrix(argument, queries, narrow=True)
        count, columns = matrix[1:3]
        if columns not in self._rows.indexes:
            also = "".join(f" or {width}" for width in self._state.options.prefixes)
            raise ValueError(
                f"{name}: '{argument}' must have {self.dim}{also} columns; got shape {shape}."
            )
        if count == 0 or len(self) == 0:
            check_forms(call, self._rows, self._index, where, count)
            where = None
        filters = evaluated(call, self._rows, self._state, self._index, where, count)
        plan = SCAN
        if self._costs is not None and columns == self.dim and not wanted.exact and count:
            if wanted.effort:
                plan = by_effort(wanted.effort, wanted.k)
            else:
                tiles = tiles_by(filters.which, count)
                plan = self._costs.plan(count, tiles, wanted.k, wanted.recall)
        return call, Asked(matrix, wanted.k, wanted.exact, plan, filters)

    def _explained(self, name: str, call: Call, asked: Asked) -> list[dict[str, Any]]:
        found = on_host(Search(call, self._rows, asked, _LIST_BYTES).explained())
        if self._costs is None and self._scan_costs is None:
            self._scan_costs = self._measured(name, walks=False)
        costs = self._costs or self._scan_costs
        assert costs is not None
        entries = self._rows.graph[2]
        return explained(found, asked, len(self), entries, costs)

    def _measured(self, name: str, *, walks: bool) -> Costs:
        """Measure what searches cost, with rows of the index for queries."""
        call, state = call_for(name, "device", self._number), self._state
        slots = state.ids.ordered_slots
        slots = slots[:: max(1, len(slots) // _SAMPLE)][:_SAMPLE]
        sample = call.copied_from_host(rows_of(state, slots))
        none = evaluated(call, self._rows, state, self._index, [], 1)

        def run(count: int, plan: Plan, among_all: bool) -> Any:
            address, _, *others = call.matrix("queries", sample)
            matrix = (address, count, others[0], others[1], others[2])
            once = call_for(name, "device", self._number)  # scratch is for one search
            filters = DeviceFilters(0, 0, None) if among_all else none
            asked = Asked(matrix, 11, False, plan, filters)
            return on_host(Search(once, self._rows, asked, _LIST_BYTES).run().ids)

        return measured(len(self), len(slots), run, walks)

    def _call(self, name: str, argument: str, array: Any) -> Call:
        call = call_of(name, argument, array)
        if call is None or call.device != self._number:
            there = "the CPU" if call is None else f"device cuda:{call.device}"
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
