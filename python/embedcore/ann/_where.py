# SPDX-License-Identifier: Apache-2.0
"""Filters as users write them, to the sets of rows that native searches take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .._arrays import to_numpy
from ._expression import Expression
from ._frames import library_of
from ._ids import Ints
from ._masked import refuse_masked
from ._state import State, blamed

if TYPE_CHECKING:
    from ._readable import Readable

Which = NDArray[np.int32]

_FORMS = (
    "an expression (ann.field), a boolean mask aligned with index.ids, an array of ids, a "
    "Filter (index.compile), or None"
)


class Filter:
    """A filter that an index has evaluated, to be used again. Made by :meth:`Index.compile`.

    It follows the index: where rows or attributes have changed, the next use evaluates it anew. A
    mask is turned into the ids that it stands for.
    """

    def __init__(self, index: Readable, source: Expression | Ints) -> None:
        self._index, self._source = index, source
        self._evaluated: tuple[int, _core.AnnFilters] | None = None

    def _at(self, where: str, state: State, threads: int) -> _core.AnnFilters:
        evaluated = self._evaluated  # read once: other threads may replace it
        if evaluated is not None and evaluated[0] == state.version:
            return evaluated[1]
        if isinstance(self._source, Expression):
            filters = _evaluate(where, [self._source._program], state, threads)
        else:
            filters = _from_ids([self._source], state)
        self._evaluated = state.version, filters
        return filters

    @property
    def count(self) -> int:
        """How many rows pass."""
        return len(self)

    @property
    def ids(self) -> Ints:
        """Ids of the rows that pass, in the order of adding."""
        state = self._index._state
        slots = self._at("ann.Filter.ids", state, self._index._threads).slots(0)
        return state.ids.external[slots[np.argsort(state.ids.places[slots], kind="stable")]]

    def __len__(self) -> int:
        filters = self._at("ann.Filter", self._index._state, self._index._threads)
        return int(filters.counts()[0])

    def __bool__(self) -> bool:
        return True  # also when no row passes

    def __repr__(self) -> str:
        source = self._source
        text = repr(source) if isinstance(source, Expression) else f"{len(source)} ids"
        return f"Filter({text}, rows={len(self)})"


def evaluated(
    where: str, condition: Any, state: State, index: Readable, queries: int, threads: int
) -> tuple[_core.AnnFilters | None, Which | None]:
    """Return the sets of rows that pass, and which of them is that of each query, -1 for none.

    Raises
    ------
    TypeError
        If `condition` is no filter, or asks of a column what its kind does not have.
    ValueError
        If a list has another number of filters than there are `queries`; a mask of another length;
        a column that does not exist.
    """
    if condition is None:
        return None, None
    if is_list_of_filters(condition):
        if len(condition) != queries:
            raise wrong_number(where, condition, queries)
        return _many(where, condition, state, index, threads)
    return one(where, condition, state, index, threads), np.zeros(queries, np.int32)


def one(
    where: str, condition: Any, state: State, index: Readable, threads: int
) -> _core.AnnFilters:
    """Return the set of one filter that is not None."""
    if isinstance(condition, Expression):
        return _evaluate(where, [condition._program], state, threads)
    if isinstance(condition, Filter):
        return _of_filter(where, condition, state, index, threads)
    return _from_slots([_slots(f"{where}:", condition, state)], state)


def check_forms(where: str, condition: Any, state: State, index: Readable, queries: int) -> None:
    """Raise for what is no filter, where there is nothing that one could pass.

    Columns are not asked for: an index without rows need not have any.
    """
    conditions = [condition]
    if is_list_of_filters(condition):
        if len(condition) != queries:
            raise wrong_number(where, condition, queries)
        conditions = list(condition)
    for one_of_them in conditions:
        if isinstance(one_of_them, Filter):
            check_index(where, one_of_them, index)
        elif one_of_them is not None and not isinstance(one_of_them, Expression):
            _slots(f"{where}:", one_of_them, state)


def wrong_number(where: str, conditions: Any, queries: int) -> ValueError:
    """Return the error for a list of another number of filters than there are queries."""
    return ValueError(
        f"{where}: 'where' as a list must have one filter for each query ({queries}); got "
        f"{len(conditions)}."
    )


def source_of(where: str, condition: Any, state: State, index: Readable) -> Expression | Ints:
    """Return what a Filter keeps: an expression or ids."""
    if isinstance(condition, Expression):
        return condition
    if isinstance(condition, Filter):
        check_index(where, condition, index)
        return condition._source
    if condition is None or is_list_of_filters(condition):
        raise TypeError(f"{where}: 'where' must be one filter; got {type(condition).__name__}.")
    array = array_of(f"{where}:", condition)
    if array.dtype == np.bool_:
        return state.ids.external[_slots(f"{where}:", array, state)]
    return array.astype(np.int64)


def is_list_of_filters(condition: Any) -> bool:
    """Tell whether `condition` is a list with a filter for each query."""
    return isinstance(condition, (list, tuple)) and not _is_flat(condition)


def _is_flat(condition: Iterable[Any]) -> bool:
    """Whether a list is one filter, of ids or of booleans; an empty one is of no ids."""
    kinds = set(map(type, condition))
    return all(issubclass(kind, (int, np.integer, np.bool_)) for kind in kinds)


def _many(
    where: str, conditions: Any, state: State, index: Readable, threads: int
) -> tuple[_core.AnnFilters | None, Which]:
    # The usual cases, without a look at each.
    which = np.arange(len(conditions), dtype=np.int32)
    kinds = set(map(type, conditions))
    if kinds == {Filter}:
        filters = [_of_filter(where, condition, state, index, threads) for condition in conditions]
        return _core.AnnFilters.concatenate(filters), which
    if all(issubclass(kind, Expression) for kind in kinds):
        programs = [condition._program for condition in conditions]
        return _evaluate(where, programs, state, threads), which
    return _mixed(where, conditions, state, index, threads)


def _mixed(
    where: str, conditions: Any, state: State, index: Readable, threads: int
) -> tuple[_core.AnnFilters | None, Which]:
    """Evaluate filters of several forms: expressions first, then masks and ids, then Filters."""
    programs: list[bytes] = []
    slots: list[Ints] = []
    compiled: list[_core.AnnFilters] = []
    places: dict[int, tuple[int, int]] = {}  # of an object, which may come twice
    for query, condition in enumerate(conditions):
        if condition is None or id(condition) in places:
            continue
        if isinstance(condition, Expression):
            places[id(condition)] = 0, len(programs)
            programs.append(condition._program)
        elif isinstance(condition, Filter):
            places[id(condition)] = 2, len(compiled)
            compiled.append(_of_filter(where, condition, state, index, threads))
        else:
            places[id(condition)] = 1, len(slots)
            slots.append(_slots(f"{where}: filter {query} of", condition, state))
    first = (0, len(programs), len(programs) + len(slots))
    which = np.full(len(conditions), -1, np.int32)
    for query, condition in enumerate(conditions):
        if condition is not None:
            part, number = places[id(condition)]
            which[query] = first[part] + number
    parts = compiled
    if slots:
        parts = [_from_slots(slots, state), *parts]
    if programs:
        parts = [_evaluate(where, programs, state, threads), *parts]
    return (_core.AnnFilters.concatenate(parts) if parts else None), which


def _evaluate(where: str, programs: list[bytes], state: State, threads: int) -> _core.AnnFilters:
    try:
        return state.table.evaluate(programs, state.vectors.live_bits(), threads)
    except (TypeError, ValueError) as error:
        raise blamed(where, "where", error) from None


def _of_filter(
    where: str, condition: Filter, state: State, index: Readable, threads: int
) -> _core.AnnFilters:
    check_index(where, condition, index)
    return condition._at(where, state, threads)


def check_index(where: str, condition: Filter, index: Readable) -> None:
    """Raise for a Filter of another index."""
    if condition._index is not index:
        raise ValueError(f"{where}: 'where' must be a Filter of this index; got one of another.")


def _from_slots(slots: list[Ints], state: State) -> _core.AnnFilters:
    return _core.AnnFilters.from_slots(slots, state.vectors.rows, state.vectors.live_bits())


def _from_ids(ids: list[Ints], state: State) -> _core.AnnFilters:
    found = [state.ids.slots_of(wanted) for wanted in ids]
    return _from_slots([slots[slots >= 0] for slots in found], state)


def array_of(where: str, condition: Any) -> NDArray[Any]:
    """Return a mask or ids for NumPy; `where` starts the message of what is neither."""
    plain = isinstance(condition, (list, tuple, range)) or hasattr(condition, "__array__")
    if not (plain or hasattr(condition, "__dlpack__")):
        raise TypeError(f"{where} 'where' must be {_FORMS}; got {type(condition).__name__}.")
    refuse_masked(where.removesuffix(":"), "where", condition)
    if isinstance(condition, (list, tuple)) and len({_is_boolean(one) for one in condition}) > 1:
        raise TypeError(f"{where} 'where' as a list must hold ids or booleans; got both.")
    if library_of(condition) == "pyarrow":  # which packs booleans into bits, and then has no DLPack
        condition = np.asarray(condition)
    array = to_numpy(condition, where, "where")
    if array.shape == (0,) and array.dtype != np.bool_:
        array = array.astype(np.int64)  # whatever NumPy takes no values for
    if array.dtype.kind not in "biu":
        raise TypeError(f"{where} 'where' as an array must be boolean or int64; got {array.dtype}.")
    if array.ndim != 1:
        raise ValueError(f"{where} 'where' as an array must have one axis; got {array.shape}.")
    return array


def _is_boolean(value: object) -> bool:
    return isinstance(value, (bool, np.bool_))


def _slots(where: str, condition: Any, state: State) -> Ints:
    """Return the slots of a mask or of ids; ids that are not there pass nothing."""
    array = array_of(where, condition)
    if array.dtype == np.bool_:
        if len(array) != state.ids.live:
            raise ValueError(
                f"{where} 'where' as a mask must have one value for each row ({state.ids.live}); "
                f"got {len(array)}."
            )
        chosen: Ints = state.ids.ordered_slots[array]
        return chosen
    # What only uint64 holds becomes negative, which no id is.
    found = state.ids.slots_of(array.astype(np.int64, copy=False))
    return found[found >= 0]
