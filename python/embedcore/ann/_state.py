# SPDX-License-Identifier: Apache-2.0
"""One version of an index, and what makes the next one.

A version never changes, so that readers take it once and never wait. Vectors and attributes are
native objects that share what they can with the version before; a build moves rows to other slots,
and everything that is kept by slot moves along.
"""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ._basis import basis_of, sample_size
from ._columns import Payload
from ._ids import Ids, Ints
from ._vectors import widened

Monitor = Callable[[float], object] | None


class BuildSteps(Protocol):
    """Does most of a build in its place, step by step; `group` any number of times."""

    def encode(
        self, raw: NDArray[np.uint8], axes: NDArray[np.float32], mean: NDArray[np.float32],
        head_bytes: int, tail_bytes: int,
    ) -> NDArray[np.float32]:  # fmt: skip
        """Take the bytes of all rows, and return their squared distances from the mean.

        Their codes, along the `axes` (numbers, dim), are kept.
        """

    def group(
        self, slots: NDArray[np.uint32], sample: NDArray[np.uint32], drawn: NDArray[np.uint32],
        moves: int,
    ) -> NDArray[np.uint32]:  # fmt: skip
        """Return for each of the slots the number of the centroid nearest to it.

        Centroids are rows that were `drawn`; so many times they become the means of the rows of the
        sample that are nearest to them.
        """

    def means(self, cell_of: NDArray[np.uint32], cells: int) -> NDArray[np.uint8]:
        """Return the heads (cells, bytes) of the means of the rows of each cell."""

    def reorder(
        self, order: NDArray[np.uint32], heads: NDArray[np.uint8], tails: NDArray[np.uint8]
    ) -> None:
        """Make row ``order[i]`` row i from now on; write the heads and tails of all codes."""

    def begin_links(
        self, inverse_norms: NDArray[np.float32], start: NDArray[np.uint32],
        centroids: NDArray[np.float32], twins: NDArray[np.bool_],
    ) -> None:  # fmt: skip
        """Begin to choose links, of rows in the order of cells that start there."""

    def links(self, links: NDArray[np.uint32]) -> None:
        """Write the links, 32 of each row, the largest number behind the last of a row."""


# Below this number of rows all of them are scanned for a query in a fraction of a millisecond, and
# cells would hold too few rows to be learned.
TRAINED_ROWS = 2000
# What is not linked is scanned, and what is dead is passed by: a build when both together are this
# share of the graph keeps them below a tenth of the work, and a build's cost within a constant
# factor of adding the rows.
_LOOSE_SHARE = 0.2
# Axes and cells are those of the rows of the last build; twice as many rows may lie elsewhere.
_OUTGROWN = 2
# Costs and bars are measured anew when the graph has grown by so much since.
_REMEASURED = 1.125
# The tail is linked before scanning it costs a fifth of a walk through the graph.
_TAIL_ROWS = 512
_TAIL_SHARE = 1 / 128


def blamed(where: str, argument: str, error: Exception) -> Exception:
    """Return a native error as one of `where` about its `argument`."""
    kind = TypeError if isinstance(error, TypeError) else ValueError
    text = str(error)
    if isinstance(error, UnicodeEncodeError):
        text = f"must hold text in Unicode; got {error.object!r}"
    return kind(f"{where}: '{argument}' {text}" + ("" if text.endswith((".", "?")) else "."))


_versions = itertools.count(1)


@dataclass(frozen=True)
class Options:
    """What an index was made with."""

    dim: int
    metric: str
    dtype: str | None  # None until the first rows
    seed: int
    keep_vectors: bool
    prefixes: tuple[int, ...]  # widths below dim that queries may have


@dataclass(frozen=True, eq=False)
class State:
    """Vectors, attributes and ids of the slots; all three have the same number of rows."""

    options: Options
    vectors: _core.AnnVectors
    table: _core.AnnTable
    ids: Ids
    prefixes: tuple[_core.AnnVectors, ...]  # first columns of the vectors; never built, so scanned
    version: int = field(default_factory=lambda: next(_versions))

    @staticmethod
    def empty(options: Options) -> State:
        """Return a state without rows."""
        dtype = options.dtype or "float32"
        vectors = _core.AnnVectors(options.dim, options.metric, dtype)
        prefixes = tuple(_core.AnnVectors(n, options.metric, dtype) for n in options.prefixes)
        return State(options, vectors, _core.AnnTable(), Ids.empty(), prefixes)

    def but(self, **changes: Any) -> State:
        """Return the state with changes, as another version."""
        return replace(self, version=next(_versions), **changes)

    @property
    def trained(self) -> int:
        """Rows of the last build, 0 before."""
        return self.vectors.trained_rows

    @property
    def dropped(self) -> bool:
        """Whether the vectors as given are gone."""
        return self.vectors.raw_dropped

    @property
    def tail(self) -> int:
        """Slots that are not linked."""
        return self.vectors.rows - self.vectors.graph_rows

    def appended(
        self, where: str, rows: Any, ids: Ints, columns: dict[str, Payload], places: Ints | None,
        threads: int,
    ) -> State:  # fmt: skip
        """Return the state with rows in new slots."""
        try:
            table = self.table.append(len(ids), columns)
        except (TypeError, ValueError) as error:
            raise blamed(where, "attributes", error) from None
        try:
            vectors = self.vectors.append(rows, threads)
        except ValueError as error:
            raise blamed(where, "vectors", error) from None
        prefixes = tuple(_with_prefix(where, part, rows, threads) for part in self.prefixes)
        after = self.ids.appended(ids, places)
        return self.but(vectors=vectors, table=table, ids=after, prefixes=prefixes)

    def deleted(self, slots: Ints) -> State:
        """Return the state without live, distinct slots."""
        if len(slots) == 0:
            return self
        prefixes = tuple(part.delete(slots) for part in self.prefixes)
        vectors, ids = self.vectors.delete(slots), self.ids.deleted(slots)
        return self.but(vectors=vectors, ids=ids, prefixes=prefixes)

    def taken(self, vectors: _core.AnnVectors, order: Ints, threads: int) -> State:
        """Return the state with `vectors`, whose row i was in slot ``order[i]``."""
        table, ids = self.table.take(order), self.ids.taken(order)
        pairs = zip(State.empty(self.options).prefixes, self.prefixes, strict=True)
        prefixes = tuple(new.append(old.vectors(order), threads) for new, old in pairs)
        return self.but(vectors=vectors, table=table, ids=ids, prefixes=prefixes)

    def seen_by(self, queries: NDArray[np.float32]) -> _core.AnnVectors:
        """Return the vectors that queries of this width are compared with."""
        columns = queries.shape[1]
        if columns == self.options.dim:
            return self.vectors
        return self.prefixes[self.options.prefixes.index(columns)]


def _with_prefix(
    where: str, part: _core.AnnVectors, rows: NDArray[Any], threads: int
) -> _core.AnnVectors:
    try:
        return part.append(rows[:, : part.dim], threads)
    except ValueError as error:
        first = f"in the first {part.dim} columns"
        raise blamed(where, "vectors", ValueError(f"{first}: {error}")) from None


def settled(state: State, threads: int, monitor: Monitor, steps: BuildSteps | None = None) -> State:
    """Return the state after the building that its changes call for: none, most of the time."""
    graph, live, tail = state.vectors.graph_rows, state.ids.live, state.tail
    dead = state.vectors.rows - live
    if state.trained == 0:
        if live >= TRAINED_ROWS:
            return built(state, threads, monitor, steps)
        if dead > max(TRAINED_ROWS, live):
            return repacked(state, threads)
        return state
    loose = tail + dead > max(TRAINED_ROWS, _LOOSE_SHARE * graph)
    if loose or live >= _OUTGROWN * state.trained:
        return built(state, threads, monitor, steps)
    if tail > max(_TAIL_ROWS, _TAIL_SHARE * graph):
        vectors = state.vectors.merge(threads, monitor)
        if vectors.graph_rows >= _REMEASURED * vectors.calibrated_rows:
            vectors = vectors.calibrate(None, threads)
        return state.but(vectors=vectors)
    return state


def built(state: State, threads: int, monitor: Monitor, steps: BuildSteps | None = None) -> State:
    """Return the state with everything trained and linked anew, and without dead rows.

    `steps` does most of it in place of the CPU, where vectors are still there.
    """
    options = state.options
    if state.ids.live == 0:
        order = state.ids.ordered_slots
        return state.taken(State.empty(options).vectors, order, threads)
    if state.dropped:
        vectors, order = state.vectors.build(None, None, 0, threads, options.seed, monitor)
        return state.taken(vectors, order, threads)
    sample = sample_of(state)
    if not np.isfinite(sample).all():  # which no call adds; the build finds what the sample lacks
        raise ValueError("ann.Index: its vectors are damaged; a row is not finite or too long.")
    basis = basis_of(sample, unit=options.metric == "cosine", seed=options.seed)
    try:
        vectors, order = state.vectors.build(
            basis.axes, basis.mean, basis.head_bytes, threads, options.seed, monitor, steps
        )
    except BaseException as error:
        # Frames of steps have arrays over memory that the build gives back, and rows on the device.
        traceback.clear_frames(error.__traceback__)
        raise
    if not options.keep_vectors:
        vectors = vectors.drop_raw()
    return state.taken(vectors, order, threads)


def compacted(
    state: State, threads: int, monitor: Monitor, steps: BuildSteps | None = None
) -> State:
    """Return the state without dead rows, trained if there are rows enough."""
    if state.trained or state.ids.live >= TRAINED_ROWS:
        return built(state, threads, monitor, steps)
    return repacked(state, threads)


def repacked(state: State, threads: int) -> State:
    """Return an untrained state without its dead rows."""
    order = state.ids.ordered_slots
    vectors = State.empty(state.options).vectors
    if len(order):
        vectors = vectors.append(state.vectors.vectors(order), threads)
    return state.taken(vectors, order, threads)


def sample_of(state: State) -> NDArray[np.float32]:
    """Rows to take statistics of, chosen by their place in the order of adding."""
    return widened(state.vectors.vectors(sampled_slots(state)), state.options.dtype)


def sampled_slots(state: State) -> Ints:
    """Return the slots of such rows."""
    slots = state.ids.ordered_slots
    size = sample_size(state.options.dim)
    if len(slots) > size:
        generator = np.random.default_rng(state.options.seed)
        slots = slots[np.sort(generator.choice(len(slots), size, replace=False))]
    return slots
