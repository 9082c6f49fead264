# SPDX-License-Identifier: Apache-2.0
"""Filters as users write them, to bits on a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._device import Call, is_on_device
from ._device_filter import DeviceFilter
from ._device_rows import DeviceRows
from ._expression import Expression
from ._state import State, blamed
from ._where import Filter, array_of, check_index, is_list_of_filters, wrong_number

if TYPE_CHECKING:
    from ._readable import Readable

Which = NDArray[np.int32]


class Lists(NamedTuple):
    """Slots that pass filters, as the kernels take them: addresses, and how far apart lists are."""

    slots: int
    counts: int
    stride: int


class DeviceFilters(NamedTuple):
    """Bits of some filters, one behind the other, and which of them is that of each query.

    `which` is None where it is the first one for all; -1 stands for no filter. `lists`: of a
    compiled filter, which is alone then; None where slots have not been listed.
    """

    bits: int  # address; 0: no filters
    size: int
    which: Which | None
    lists: Lists | None = None
    memory: Any = None  # of the bits


class _Sources(NamedTuple):
    """Filters that differ: programs first, then masks and ids, then what was compiled."""

    programs: list[bytes]
    arrays: list[Any]
    compiled: list[DeviceFilter]


def evaluated(
    call: Call, rows: DeviceRows, state: State, index: Readable, condition: Any, queries: int
) -> DeviceFilters:
    """Start the evaluation of what `where` is.

    Raises
    ------
    TypeError
        If `condition` is no filter, or asks of a column what its kind does not have.
    ValueError
        If a list has another number of filters than there are `queries`; a mask of another length;
        a column that does not exist.
    """
    if condition is None:
        return DeviceFilters(0, 0, None)
    if isinstance(condition, DeviceFilter):
        _check_owner(call.where, condition, rows)
        return _compiled_alone(condition, None)
    conditions = _conditions(call.where, condition, queries)
    sources, own = _sources_of(call.where, conditions, rows, index)
    which = own if is_list_of_filters(condition) else None
    count = sum(map(len, sources))
    if count == 0:
        return DeviceFilters(0, 0, which)
    if count == len(sources.compiled) == 1:
        return _compiled_alone(sources.compiled[0], which)
    memory = call.made((4 * rows.words * count,), "uint8")
    bits = call.kept(memory)
    if sources.programs:
        _evaluate(call, rows, state, sources.programs, bits)
    next_bits = bits + 4 * rows.words * len(sources.programs)
    for array in sources.arrays:
        _mark(call, rows, array, next_bits)
        next_bits += 4 * rows.words
    if sources.compiled:
        addresses = np.array([one._addresses[0] for one in sources.compiled], np.int64)
        there = (call.sent(addresses), len(addresses))
        call.kernels.ann_gather(call.where, call.place(), there, rows.rows, next_bits)
    return DeviceFilters(bits, count, which, None, memory)


def _compiled_alone(one: DeviceFilter, which: Which | None) -> DeviceFilters:
    bits, slots, passing = one._addresses
    return DeviceFilters(bits, 1, which, Lists(slots, passing, len(one)))


def check_forms(
    call: Call, rows: DeviceRows, index: Readable, condition: Any, queries: int
) -> None:
    """Raise for what is no filter, where there is nothing that one could pass.

    Columns are not asked for: an index without rows need not have any.
    """
    conditions = _conditions(call.where, condition, queries)
    sources, _ = _sources_of(call.where, conditions, rows, index)
    for array in sources.arrays:
        _mark(call, rows, array, call.allocate(4 * rows.words))


def one_source(where: str, condition: Any) -> Any:
    """Return what one filter is made of, or raise TypeError where it is none or several."""
    if condition is None or is_list_of_filters(condition):
        raise TypeError(f"{where}: 'where' must be one filter; got {type(condition).__name__}.")
    return condition._source if isinstance(condition, Filter) else condition


def _conditions(where: str, condition: Any, queries: int) -> list[Any]:
    if not is_list_of_filters(condition):
        return [condition]
    if len(condition) != queries:
        raise wrong_number(where, condition, queries)
    return list(condition)


def _sources_of(
    where: str, conditions: list[Any], rows: DeviceRows, index: Readable
) -> tuple[_Sources, Which]:
    """Return the filters that differ, and of each condition the number of its own, -1 for None."""
    if all(issubclass(kind, Expression) for kind in set(map(type, conditions))):
        # The usual case, without a look at each: of many queries that is what a search takes here.
        numbers: dict[bytes, int] = {}
        which = [numbers.setdefault(one._program, len(numbers)) for one in conditions]
        return _Sources(list(numbers), [], []), np.array(which, np.int32)
    sources, places = _distinct(where, conditions, rows, index)
    places[id(None)] = -1
    return sources, np.array([places[id(one)] for one in conditions], np.int32)


def _distinct(
    where: str, conditions: list[Any], rows: DeviceRows, index: Readable
) -> tuple[_Sources, dict[int, int]]:
    """Return the filters that differ, and of each object the place of its own."""
    programs: dict[bytes, int] = {}
    arrays: list[Any] = []
    compiled: list[DeviceFilter] = []
    found: dict[int, tuple[int, int]] = {}  # of which part of the sources it is, and where there
    for one in conditions:
        if one is None or id(one) in found:
            continue
        source = one
        if isinstance(one, Filter):
            check_index(where, one, index)
            source = one._source
        if isinstance(source, Expression):
            found[id(one)] = 0, programs.setdefault(source._program, len(programs))
        elif isinstance(source, DeviceFilter):
            _check_owner(where, source, rows)
            found[id(one)] = 2, len(compiled)
            compiled.append(source)
        else:
            found[id(one)] = 1, len(arrays)
            arrays.append(source)
    first = (0, len(programs), len(programs) + len(arrays))
    places = {key: first[part] + place for key, (part, place) in found.items()}
    return _Sources(list(programs), arrays, compiled), places


def _check_owner(where: str, condition: DeviceFilter, rows: DeviceRows) -> None:
    if condition._rows is not rows:
        raise ValueError(
            f"{where}: 'where' must be a DeviceFilter of this DeviceIndex; got one of another."
        )


def _evaluate(call: Call, rows: DeviceRows, state: State, programs: list[bytes], bits: int) -> None:
    try:
        steps, starts, constants = state.table.steps(programs)
    except (TypeError, ValueError) as error:
        raise blamed(call.where, "where", error) from None
    sent = call.sent_together(steps, starts, constants)
    call.kernels.ann_evaluate(
        call.where, call.place(), (rows.columns, *sent, rows.alive), len(programs), rows.rows, bits
    )


def _mark(call: Call, rows: DeviceRows, source: Any, bits: int) -> None:
    if is_on_device(source):
        layout = call.marks("where", source)
        address, size, stride = layout.address, layout.shape[0], layout.strides[0]
        boolean = layout.dtype == "bool"
    else:
        array = array_of(f"{call.where}:", source)
        boolean = array.dtype == np.bool_
        array = np.array(array, np.uint8 if boolean else np.int64)
        address, size, stride = call.sent(array), len(array), 1
    if not boolean:
        call.kernels.ann_mark_ids(
            call.where, call.place(), (address, size), rows.known, rows.rows, bits
        )
        return
    if size != rows.live:
        raise ValueError(
            f"{call.where}: 'where' as a mask must have one value for each row ({rows.live}); got "
            f"{size}."
        )
    call.kernels.ann_mark_mask(
        call.where, call.place(), (address, stride), (rows.ordered, size), rows.rows, bits
    )
