# SPDX-License-Identifier: Apache-2.0
"""The users' ids of rows, and the order in which rows were added.

Rows are kept in slots, which a build moves; ids and the order of adding are kept for each slot. All
of it is immutable: a change makes a new object and shares what it can, so that readers never wait.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LARGEST_ID = (1 << 63) - 2  # the one after it is kept free, so that the next id can always be named


class _Growing:
    """An int64 array that is appended to in constant time per value; earlier views stay valid."""

    def __init__(self, values: Ints) -> None:
        self._data, self._used, self._lock = values, len(values), threading.Lock()

    def extended(self, length: int, added: Ints) -> tuple[_Growing, Ints]:
        """Return an array of the first `length` values and `added`, and a view of it."""
        total = length + len(added)
        with self._lock:
            # What follows `length` may belong to another object, which came from the same one.
            mine = self._used == length and total <= len(self._data)
            if mine:
                self._used = total
        if mine:
            self._data[length:total] = added
            return self, self._data[:total]
        data = np.empty(max(64, total + total // 2), np.int64)
        data[:length] = self._data[:length]
        data[length:total] = added
        grown = _Growing(data)
        grown._used = total
        return grown, data[:total]


@dataclass(frozen=True, eq=False)
class _Level:
    """Ids, ascending, and their slots."""

    ids: Ints
    slots: Ints


def _level(ids: Ints, slots: Ints) -> _Level:
    order = np.argsort(ids, kind="stable")
    return _Level(ids[order], slots[order])


def _merged(older: _Level, newer: _Level) -> _Level:
    """Both levels as one; of an id that both have, which its older row has lost, the newer row."""
    both = _level(
        np.concatenate([older.ids, newer.ids]), np.concatenate([older.slots, newer.slots])
    )
    last = np.append(both.ids[1:] != both.ids[:-1], True)
    return both if last.all() else _Level(both.ids[last], both.slots[last])


@dataclass(frozen=True, eq=False)
class Ids:
    """Ids of the slots.

    Invariants: live slots have distinct ids and distinct places in the sequence; the levels hold
    each live id, its newest slot in the last level that has it.
    """

    rows: int  # slots
    live: int
    next_id: int
    next_place: int
    _external: Ints  # (rows + 1,): -1, then the id of each slot
    _places: Ints  # (rows,): where in the order of adding
    _growing: tuple[_Growing, _Growing]
    _levels: tuple[_Level, ...]
    _alive: Bools | None  # (rows,), None where all are

    @staticmethod
    def of(
        external: Ints, places: Ints, alive: Bools | None, next_id: int, next_place: int,
        levels: tuple[_Level, ...] | None = None,
    ) -> Ids:  # fmt: skip
        """Return the ids of slots; all arrays have one value for each."""
        padded = np.concatenate([np.array([-1], np.int64), external])
        if alive is None:
            slots = np.arange(len(external), dtype=np.int64)
        else:
            slots = np.flatnonzero(alive).astype(np.int64)
        if levels is None:
            levels = (_level(external[slots], slots),) if len(slots) else ()
        growing = (_Growing(padded), _Growing(places))
        return Ids(
            len(external), len(slots), next_id, next_place, padded, places, growing, levels, alive
        )

    @staticmethod
    def empty() -> Ids:
        """Return no ids."""
        return Ids.of(np.empty(0, np.int64), np.empty(0, np.int64), None, 0, 0)

    @property
    def external(self) -> Ints:
        """The id of each slot, dead ones included."""
        return self._external[1:]

    @property
    def places(self) -> Ints:
        """Where each slot stands in the order of adding."""
        return self._places

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        levels = sum(level.ids.nbytes + level.slots.nbytes for level in self._levels)
        alive = 0 if self._alive is None else self._alive.nbytes
        return self._external.nbytes + self._places.nbytes + levels + alive

    @cached_property
    def ordered_slots(self) -> Ints:
        """Live slots in the order of adding."""
        slots = np.arange(self.rows) if self._alive is None else np.flatnonzero(self._alive)
        slots = slots[np.argsort(self._places[slots], kind="stable")].astype(np.int64, copy=False)
        slots.flags.writeable = False
        return slots

    @cached_property
    def ordered(self) -> Ints:
        """Live ids in the order of adding."""
        ids = self.external[self.ordered_slots]
        ids.flags.writeable = False
        return ids

    def of_slots(self, slots: Ints) -> Ints:
        """Return the ids of slots; -1 for the slot -1."""
        ids: Ints = self._external.take(slots + 1)
        return ids

    def slots_of(self, ids: Ints) -> Ints:
        """Return the live slot of each id, -1 for ids that are not there."""
        found = np.full(len(ids), -1, np.int64)
        for level in self._levels:  # newer levels overwrite what older ones found
            at = np.searchsorted(level.ids, ids)
            at[at == len(level.ids)] = 0
            hit = level.ids[at] == ids
            found[hit] = level.slots[at[hit]]
        if self._alive is not None and len(found):
            found[~self._alive[found]] = -1  # for -1 this reads some slot, and writes -1 or nothing
        return found

    def appended(self, ids: Ints, places: Ints | None = None) -> Ids:
        """Return these ids and new slots for `ids`, which are not there and have no duplicates.

        `places` are the rows' places in the order of adding, for rows that take over those of rows
        that are now dead; by default they follow all others.
        """
        count = len(ids)
        if count == 0:
            return self
        if places is None:
            places = np.arange(self.next_place, self.next_place + count)
        slots = np.arange(self.rows, self.rows + count)
        levels = [*self._levels, _level(ids, slots)]
        while len(levels) > 1 and 2 * len(levels[-1].ids) >= len(levels[-2].ids):
            levels[-2:] = [_merged(levels[-2], levels[-1])]
        ids_growing, external = self._growing[0].extended(self.rows + 1, ids)
        places_growing, places = self._growing[1].extended(self.rows, places)
        alive = self._alive
        if alive is not None:
            alive = np.concatenate([alive, np.ones(count, np.bool_)])
        return Ids(
            rows=self.rows + count,
            live=self.live + count,
            next_id=max(self.next_id, int(ids.max()) + 1),
            next_place=max(self.next_place, int(places[-count:].max()) + 1),
            _external=external,
            _places=places,
            _growing=(ids_growing, places_growing),
            _levels=tuple(levels),
            _alive=alive,
        )

    def deleted(self, slots: Ints) -> Ids:
        """Return the ids without live, distinct `slots`."""
        alive = np.ones(self.rows, np.bool_) if self._alive is None else self._alive.copy()
        alive[slots] = False
        return replace(self, _alive=alive, live=self.live - len(slots))

    def taken(self, order: Ints) -> Ids:
        """Return the ids when row i is what row ``order[i]`` was; `order` has all live rows."""
        levels = None
        if self._alive is None and len(self._levels) == 1:  # which is in order already
            slots = np.empty(self.rows, np.int64)
            slots[order] = np.arange(self.rows)
            levels = (_Level(self._levels[0].ids, slots[self._levels[0].slots]),)
        external, places = self.external[order], self._places[order]
        return Ids.of(external, places, None, self.next_id, self.next_place, levels)
