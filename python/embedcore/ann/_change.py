# SPDX-License-Identifier: Apache-2.0
"""Changes of an index: each takes one version and returns the next, or raises and leaves none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .._arrays import to_numpy
from ._ids import LARGEST_ID, Ints
from ._ingest import ingest
from ._state import State, blamed
from ._vectors import vectors_of


def ids_of(where: str, ids: Any, *, any_integer: bool = False) -> Ints:
    """Return the user's ids, one or an array of them, as an array.

    Of `any_integer`, what cannot be an id becomes one that no row has.

    Raises
    ------
    TypeError
        If they are not integers.
    ValueError
        If they have more than one axis, or one is negative or too large.
    """
    array = to_numpy(ids, where, "ids")
    if array.ndim == 0:
        array = array[None]
    if array.ndim != 1:
        raise ValueError(f"{where}: 'ids' must have one axis; got shape {array.shape}.")
    if len(array) == 0:
        return np.empty(0, np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{where}: 'ids' must be integers; got dtype {array.dtype}.")
    if any_integer:
        return array.astype(np.int64)  # what only uint64 holds becomes negative
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > LARGEST_ID:
        bad = low if low < 0 else high
        raise ValueError(f"{where}: 'ids' must be from 0 to {LARGEST_ID}; got {bad}.")
    return array.astype(np.int64, copy=False)


def _check_distinct(where: str, ids: Ints) -> None:
    order = np.argsort(ids, kind="stable")
    again = order[1:][ids[order[1:]] == ids[order[:-1]]]
    if len(again):
        raise ValueError(f"{where}: 'ids' must be distinct; got {ids[again.min()]} twice.")


def slots_of(where: str, ids: Ints, state: State) -> Ints:
    """Return the slot of each id; ValueError names the first that is not there."""
    slots = state.ids.slots_of(ids)
    absent = slots < 0
    if absent.any():
        raise ValueError(
            f"{where}: 'ids' must be ids of this index; got {ids[absent.argmax()]}, which it does "
            "not have."
        )
    return slots


def _rows(where: str, vectors: Any, state: State) -> tuple[Any, State]:
    """Return the rows to add, and the state that takes them: the first rows set its dtype."""
    options = state.options
    rows, dtype = vectors_of(where, vectors, options.dim, options.dtype)
    if options.dtype is None and len(rows):
        state = State.empty(replace(options, dtype=dtype))
    return rows, state


def added(
    where: str, state: State, vectors: Any, ids: Any, attributes: Any, threads: int
) -> tuple[State, Ints]:
    """Return the state with new rows, and their ids."""
    rows, state = _rows(where, vectors, state)
    count = len(rows)
    if ids is None:
        if state.ids.next_id > LARGEST_ID + 1 - count:
            raise ValueError(f"{where}: 'ids' must be given, the largest id is in use.")
        chosen = np.arange(state.ids.next_id, state.ids.next_id + count)
    else:
        chosen = _ids_for(where, ids, count)
        taken = state.ids.slots_of(chosen) >= 0
        if taken.any():
            raise ValueError(
                f"{where}: 'ids' must be new; got {chosen[taken.argmax()]}, which the index has. "
                "Use upsert to replace rows."
            )
    columns = ingest(where, attributes, count, state.table.schema())
    if count == 0:
        return state, chosen
    return state.appended(where, rows, chosen, columns, None, threads), chosen


def _ids_for(where: str, ids: Any, count: int) -> Ints:
    chosen = ids_of(where, ids)
    if len(chosen) != count:
        raise ValueError(
            f"{where}: 'ids' must have one id for each row of 'vectors' ({count}); got "
            f"{len(chosen)}."
        )
    _check_distinct(where, chosen)
    return chosen


def upserted(
    where: str, state: State, vectors: Any, ids: Any, attributes: Any, threads: int
) -> tuple[State, Ints]:
    """Return the state with rows replaced, or added where their ids are new, and the ids."""
    rows, state = _rows(where, vectors, state)
    chosen = _ids_for(where, ids, len(rows))
    columns = ingest(where, attributes, len(rows), state.table.schema())
    if len(rows) == 0:
        return state, chosen
    slots = state.ids.slots_of(chosen)
    known = slots >= 0
    places = np.empty(len(chosen), np.int64)
    places[known] = state.ids.places[slots[known]]
    new = int((~known).sum())
    places[~known] = np.arange(state.ids.next_place, state.ids.next_place + new)
    state = state.deleted(slots[known])
    return state.appended(where, rows, chosen, columns, places, threads), chosen


def deleted(where: str, state: State, ids: Any, *, ignore_missing: bool) -> tuple[State, int]:
    """Return the state without rows, and how many there were."""
    wanted = ids_of(where, ids, any_integer=ignore_missing)
    if ignore_missing:
        slots = np.unique(state.ids.slots_of(wanted))
        slots = slots[slots >= 0]
    else:
        _check_distinct(where, wanted)
        slots = slots_of(where, wanted, state)
    return state.deleted(slots), len(slots)


def updated(where: str, state: State, ids: Any, attributes: Any) -> State:
    """Return the state with other attributes."""
    wanted = ids_of(where, ids)
    _check_distinct(where, wanted)
    columns = ingest(where, attributes, len(wanted), state.table.schema())
    slots = slots_of(where, wanted, state)
    if not columns or len(slots) == 0:
        return state
    try:
        return state.but(table=state.table.update(slots, columns))
    except (TypeError, ValueError) as error:
        raise blamed(where, "attributes", error) from None
