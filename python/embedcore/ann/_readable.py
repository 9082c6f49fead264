# SPDX-License-Identifier: Apache-2.0
"""What can be asked of an index: it reads one version of the state, whatever writers do."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _change, _file
from ._described import Described
from ._result import SearchResult
from ._search import ids_by_distance, threads_of, wanted_of
from ._snapshot import to_sections
from ._state import State
from ._values import values_of
from ._vectors import given_of, queries_of
from ._where import Filter, check_forms, evaluated, one, source_of


class Readable(Described):
    """The part of :class:`Index` that changes nothing."""

    _state: State  # replaced whole by writers
    _threads: int

    def __repr__(self) -> str:
        state = self._state
        columns = ", ".join(f"{name!r}: {kind}" for name, kind, _ in state.table.schema())
        kept = "" if state.options.dtype is None else f", dtype={state.options.dtype!r}"
        return (
            f"Index(dim={self.dim}, metric={self.metric!r}{kept}, rows={len(self)}, "
            f"attributes={{{columns}}})"
        )

    def get(self, ids: Any) -> tuple[Any, dict[str, Any]]:
        """Return the vectors and attributes of rows.

        Parameters
        ----------
        ids : int or array (n,) of integers
            The rows; an id may come twice.

        Returns
        -------
        vectors : array (n, dim) or None
            In the dtype of the index (bfloat16 as float32 unless ml_dtypes is installed); None if
            the index does not keep its vectors.
        attributes : dict
            Of each column the n values: arrays of float64 (NaN is missing), datetime64 or int64,
            lists of labels or of lists of labels, where None is missing.

        Raises
        ------
        ValueError
            If an id is not in the index; the first is named.
        """
        where = "ann.Index.get"
        state = self._state
        slots = _change.slots_of(where, _change.ids_of(where, ids), state)
        vectors = (
            None if state.dropped else given_of(state.vectors.vectors(slots), state.options.dtype)
        )
        names = [name for name, _, _ in state.table.schema()]
        return vectors, {name: values_of(state.table.values(name, slots)) for name in names}

    def count(self, where: Any = None) -> int:
        """Return how many rows pass a filter, as :meth:`search` takes it; all for None."""
        state = self._state
        if where is None:
            return state.ids.live
        source_of("ann.Index.count", where, state, self)
        return int(one("ann.Index.count", where, state, self, self._threads).counts()[0])

    def compile(self, where: Any) -> Filter:
        """Evaluate a filter to use it in several searches.

        Parameters
        ----------
        where : expression, mask or array of ids
            One filter, as :meth:`search` takes it.

        Returns
        -------
        Filter
            It follows the index: it is evaluated anew when the index has changed.

        Raises
        ------
        TypeError, ValueError
            As :meth:`search`.
        """
        name = "ann.Index.compile"
        state = self._state
        made = Filter(self, source_of(name, where, state, self))
        made._at(name, state, self._threads)
        return made

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        where: Any = None,
        recall: float = 0.95,
        effort: int | None = None,
        exact: bool = False,
        threads: int | None = None,
    ) -> SearchResult:
        """Find the nearest rows of each query among those that pass a filter.

        Parameters
        ----------
        queries : array (n, dim), or (dim,) for one query
            As `vectors` of :meth:`add`; computed with in float32. May have as many columns as one
            of the index's prefixes.
        k : int, default 10
            How many rows to find; may exceed the number of rows.
        where : optional
            An expression (:func:`field`); a boolean mask aligned with :attr:`ids`; an array of
            allowed ids (those that the index does not have are passed over); a :class:`Filter`;
            None for all rows; or a list with one of these for each query. Equal filters of a list
            are evaluated once.
        recall : float, default 0.95
            The share of the true k nearest that is to be found on average, above 0, at most 0.999.
        effort : int, optional
            In place of `recall`: a walk through the graph looks on as long as what it meets is
            among so many best.
        exact : bool, default False
            Compare every row that passes; then `recall` and `effort` do not matter.
        threads : int, optional
            Results do not depend on it.

        Returns
        -------
        SearchResult
            For each query exactly min(k, rows that pass) rows without duplicates, by ascending
            distance, equal distances by ascending id (of rows just as far as the last, any may be
            among them); ids (n, k) int64 padded with -1 and distances (n, k) float32 padded with
            inf. One query gives one row. Distances are computed from the vectors, or from the codes
            where those are not kept.

        Raises
        ------
        TypeError
            Queries of another kind; a filter that asks of a column what its kind does not have.
        ValueError
            Queries of another number of columns, not finite, or zero under the cosine; a column
            that does not exist (the nearest name is suggested); k below 1; options out of bounds.

        Notes
        -----
        How a query is answered depends on the index, the set of rows that pass, the query, k and
        recall alone: filters that let the same rows pass give the same result, and so do a filter
        that lets all pass and none. See :meth:`explain`.
        """
        name = "ann.Index.search"
        state = self._state
        wanted = wanted_of(
            name, state, k, recall, effort, exact, threads_of(name, threads, self._threads)
        )
        options = state.options
        rows = queries_of(name, queries, options.dim, options.metric, options.prefixes)
        slots = np.full((len(rows), wanted.k), -1, np.int64)
        distances = np.full((len(rows), wanted.k), np.inf, np.float32)
        counts = np.zeros(len(rows), np.int64)
        if state.ids.live == 0 or len(rows) == 0:
            check_forms(name, where, state, self, len(rows))
            return SearchResult(slots, distances, counts)
        filters, which = evaluated(name, where, state, self, len(rows), wanted.threads)
        state.seen_by(rows).search(
            rows, wanted.k, filters, which, wanted.recall, wanted.effort, wanted.exact,
            wanted.threads, slots, distances, counts,
        )  # fmt: skip
        return SearchResult(ids_by_distance(state, slots, distances), distances, counts)

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
        """Tell how a search for one query is answered: it is planned, run and measured.

        Parameters are those of :meth:`search`, for one query and one filter.

        Returns
        -------
        dict
            ``plan``, the way chosen; ``passing``, the rows that pass; ``estimated_seconds``, from
            the costs measured at the build (before the first one, from the size of the rows); and
            what was really done, in rows of each kind.

        Raises
        ------
        TypeError, ValueError
            As :meth:`search`.
        """
        name = "ann.Index.explain"
        state = self._state
        wanted = wanted_of(name, state, k, recall, effort, exact, self._threads)
        options = state.options
        rows = queries_of(name, query, options.dim, options.metric, options.prefixes)
        if len(rows) != 1:
            raise ValueError(f"{name}: 'query' must be one query; got {len(rows)}.")
        if state.ids.live == 0:
            check_forms(name, where, state, self, 1)
            where = None
        filters, which = evaluated(name, where, state, self, 1, wanted.threads)
        (explanation,) = state.seen_by(rows).explain(
            rows, wanted.k, filters, which, wanted.recall, wanted.effort, wanted.exact,
            wanted.threads,
        )  # fmt: skip
        return explanation

    def memory_usage(self) -> dict[str, int]:
        """Return the bytes that each part of the index takes, and their ``"total"``.

        Memory-mapped parts count with their size in the file. Attributes have the prefix
        ``"attributes."``.
        """
        state = self._state
        usage = dict(state.vectors.nbytes())
        usage |= {f"attributes.{part}": size for part, size in state.table.nbytes().items()}
        for part in state.prefixes:
            usage[f"prefixes.{part.dim}"] = sum(part.nbytes().values())
        usage["ids"] = state.ids.nbytes
        usage["total"] = sum(usage.values())
        return usage

    def save(self, path: Any) -> None:
        """Write the index to one file, which :meth:`Index.open` reads.

        Parameters
        ----------
        path : str or path
            The file; one that exists is replaced when the new one is complete and on disk, so that
            a crash, a full disk or a kill leaves the old one whole, and processes that have it
            open keep it. What a kill leaves behind is a hidden ``.tmp`` file beside it.

        Raises
        ------
        TypeError
            If `path` is no path.
        OSError
            If the file cannot be written.
        """
        where = "ann.Index.save"
        _file.save(where, _file.path_of(where, path), *to_sections(self._state))
