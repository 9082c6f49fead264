# SPDX-License-Identifier: Apache-2.0
"""Filters as users write them, to bits on a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._device import Call, is_on_device
from ._device_rows import DeviceRows
from ._expression import Expression
from ._state import State, blamed
from ._where import Filter, array_of, check_index, is_list_of_filters, wrong_number

if TYPE_CHECKING:
    from ._readable import Readable

Which = NDArray[np.int32]


class DeviceFilters(NamedTuple):
    """Bits of some filters, one behind the other, and which of them is that of each query.

    `which` is None where it is the first one for all; -1 stands for no filter.
    """

    bits: int  # address; 0: no filters
    size: int
    which: Which | None


class _Sources(NamedTuple):
    """Filters that differ: programs first, then masks and ids."""

    programs: list[bytes]
    arrays: list[Any]


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
    conditions = _conditions(call.where, condition, queries)
    which = np.full(queries, -1, np.int32) if is_list_of_filters(condition) else None
    sources, places = _distinct(call.where, conditions, index)
    count = len(sources.programs) + len(sources.arrays)
    if which is not None:
        for query, one in enumerate(conditions):
            if one is not None:
                which[query] = places[id(one)]
    if count == 0:
        return DeviceFilters(0, 0, which)
    bits = call.allocate(4 * rows.words * count)
    if sources.programs:
        _evaluate(call, rows, state, sources.programs, bits)
    for number, array in enumerate(sources.arrays, len(sources.programs)):
        _mark(call, rows, array, bits + 4 * rows.words * number)
    return DeviceFilters(bits, count, which)


def check_forms(
    call: Call, rows: DeviceRows, index: Readable, condition: Any, queries: int
) -> None:
    """Raise for what is no filter, where there is nothing that one could pass.

    Columns are not asked for: an index without rows need not have any.
    """
    sources, _ = _distinct(call.where, _conditions(call.where, condition, queries), index)
    for array in sources.arrays:
        _mark(call, rows, array, call.allocate(4 * rows.words))


def _conditions(where: str, condition: Any, queries: int) -> list[Any]:
    if not is_list_of_filters(condition):
        return [condition]
    if len(condition) != queries:
        raise wrong_number(where, condition, queries)
    return list(condition)


def _distinct(
    where: str, conditions: list[Any], index: Readable
) -> tuple[_Sources, dict[int, int]]:
    """Return the filters that differ, and of each object the place of its own."""
    programs: dict[bytes, int] = {}
    arrays: list[Any] = []
    found: dict[int, tuple[bool, int]] = {}  # whether it is a program, and where
    for one in conditions:
        if one is None or id(one) in found:
            continue
        source = one
        if isinstance(one, Filter):
            check_index(where, one, index)
            source = one._source
        if isinstance(source, Expression):
            place = programs.setdefault(source._program, len(programs))
            found[id(one)] = True, place
        else:
            found[id(one)] = False, len(arrays)
            arrays.append(source)
    places = {
        key: place if program else len(programs) + place for key, (program, place) in found.items()
    }
    return _Sources(list(programs), arrays), places


def _evaluate(call: Call, rows: DeviceRows, state: State, programs: list[bytes], bits: int) -> None:
    try:
        steps, starts, constants = state.table.steps(programs)
    except (TypeError, ValueError) as error:
        raise blamed(call.where, "where", error) from None
    sent = (call.sent(part) for part in (steps, starts, constants))
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
