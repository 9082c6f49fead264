# SPDX-License-Identifier: Apache-2.0
"""What an index has on a device: vectors and their codes, columns, ids, living rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .._device import Call, current_device, on_host
from ._device_codes import Codes, codes_of
from ._ids import Ints
from ._state import State, sampled_slots
from ._vectors import DTYPES, METRICS, Floats, widened

_MOST_LINKED = 1 << 31  # slots that walks can name
_CODE_STEP = 32  # columns of codes, as the C ABI says
_CODES = 4  # the number of codes, beside those of the dtypes
# What rows of each dtype are to array libraries, not all of which have bfloat16.
STORED = {"float32": "float32", "float16": "float16", "bfloat16": "int16", "int8": "int8"}
_COLUMN_PARTS = ("codes", "offsets", "keys", "nulls")


class Memory:
    """Arrays on the device, kept as long as this is."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.nbytes: dict[str, int] = {}

    def sent(self, part: str, array: NDArray[Any]) -> int:
        """Return the address of a copy of an array of the host."""
        self._count(part, array.nbytes)
        # Libraries take bytes, whatever the dtype, and Torch none that are read-only.
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return self.call.uploaded(flat if flat.flags.writeable else flat.copy())

    def taken(self, part: str, size: int) -> int:
        """Return the address of so many bytes."""
        self._count(part, size)
        return self.call.allocate(size)

    def _count(self, part: str, size: int) -> None:
        self.nbytes[part] = self.nbytes.get(part, 0) + size


@dataclass(frozen=True)
class DeviceRows:
    """Vectors, ids and columns of the slots of one version of an index."""

    memory: Memory
    rows: int
    words: int  # of a filter's bits
    live: int
    indexes: dict[int, Any]  # of each width that queries may have, the native index
    columns: int  # addresses
    alive: int  # bits; 0: every slot
    every: int  # living slots; 0: all
    ordered: int  # living slots in the order of adding; 0: that is the slots' own
    known: tuple[int, int, int]  # ids of living rows, ascending; their slots; how many
    graph: tuple[int, int, int]  # links, entries, and how many of these; 0: walks are not possible


def sent_to(call: Call, state: State) -> DeviceRows:
    """Copy a version of an index, and wait until it is there."""
    memory = Memory(call)
    rows = state.ids.rows
    words = call.kernels.ann_filter_words(rows)
    slots = state.ids.ordered_slots
    by_id = np.argsort(state.ids.external[slots], kind="stable")
    parts = state.vectors.parts()
    live_bits = state.vectors.live_bits()
    alive = every = 0
    if live_bits is not None:
        padded = np.zeros(words, np.uint32)
        padded[: 2 * len(live_bits)] = live_bits.view(np.uint32)
        alive = memory.sent("live", padded)
        every = memory.sent("live", np.sort(slots).astype(np.uint32))
    known = (
        memory.sent("ids", state.ids.external[slots[by_id]]),
        memory.sent("ids", slots[by_id].astype(np.uint32)),
        len(slots),
    )
    in_order = np.array_equal(slots, np.arange(rows))
    ordered = 0 if in_order else memory.sent("ids", slots.astype(np.uint32))
    columns, graph = _columns(memory, state.table), _graph(memory, state, parts)
    indexes = _indexes(memory, state, parts)  # waits for what was sent before
    return DeviceRows(
        memory, rows, words, state.ids.live, indexes, columns, alive, every, ordered, known, graph
    )


def _graph(memory: Memory, state: State, parts: dict[str, Any]) -> tuple[int, int, int]:
    """Send the graph, if every row is linked, and a row of each cell, where walks begin."""
    if not state.trained or state.tail or state.ids.rows >= _MOST_LINKED:
        return 0, 0, 0
    starts = parts["cell_start"]
    entries = parts["cell_members"][starts[:-1][starts[:-1] < starts[1:]]]
    return memory.sent("graph", parts["links"]), memory.sent("graph", entries), len(entries)


def _indexes(memory: Memory, state: State, parts: dict[str, Any]) -> dict[int, Any]:
    """Encode the vectors, and their first columns as prefixes have them."""
    options = state.options
    ids = memory.sent("ids", state.ids.external)
    slots = sampled_slots(state)
    indexes = {}
    if state.dropped:
        codes = codes_of(parts, state.ids.rows)
        indexes[options.dim] = _coded(memory, options.metric, codes, ids)
    else:
        vectors = memory.sent("vectors", parts["raw"])
        sample = widened(state.vectors.vectors(slots), options.dtype)
    for width in (options.dim, *options.prefixes):
        if width in indexes:
            continue
        own, stride = parts, options.dim
        if width != options.dim:
            prefix = state.prefixes[options.prefixes.index(width)]
            own = prefix.parts()
            if state.dropped:  # which keeps the vectors of prefixes
                vectors, stride = memory.sent("vectors", own["raw"]), width
                sample = widened(prefix.vectors(slots), options.dtype)
        given = Given(options.metric, options.dtype or "float32", state.ids.rows, width, stride)
        norms = memory.sent("vectors", own["inverse_norms"])
        mean = mean_of(sample[:, :width], options.metric)
        indexes[width] = encoded(memory, given, (vectors, norms, ids), mean)
    return indexes


def rows_of(state: State, slots: Ints) -> Floats:
    """Return the vectors of some slots, or what their codes stand for."""
    if state.dropped:
        return codes_of(state.vectors.parts(), state.ids.rows).rows(slots)
    return np.array(widened(state.vectors.vectors(slots), state.options.dtype))


class Given(NamedTuple):
    """What an index of the kernels is made of, beside its arrays; stride: between rows."""

    metric: str
    dtype: str
    rows: int
    columns: int
    stride: int


def encoded(memory: Memory, given: Given, arrays: tuple[int, int, int], mean: Floats) -> Any:
    """Return the native index over vectors, inverse norms and ids at addresses; this waits."""
    vectors, norms, ids = arrays
    given_arrays = (vectors, norms, memory.sent("codes", mean), ids)
    offsets = memory.taken("codes", 4 * given.rows)
    sizes = (given.rows, given.columns, given.stride, 0, 0)
    number = DTYPES.index(given.dtype)
    return _native(
        memory, (METRICS.index(given.metric), number), sizes, given_arrays, offsets, (0, 0)
    )


def _coded(memory: Memory, metric: str, codes: Codes, ids: int) -> Any:
    """Return the native index over codes alone; this waits."""
    rows, columns = codes.numbers.shape
    sizes = (rows, columns, columns, codes.head_columns, len(codes.mean))
    numbers, mean = memory.sent("codes", codes.numbers), memory.sent("codes", codes.mean)
    offsets = memory.sent("codes", codes.offsets)
    scales, axes = memory.sent("codes", codes.scales), memory.sent("codes", codes.axes)
    return _native(
        memory, (METRICS.index(metric), _CODES), sizes, (numbers, 0, mean, ids), offsets,
        (scales, axes),
    )  # fmt: skip


def _native(
    memory: Memory, kinds: tuple[int, int], sizes: tuple[int, int, int, int, int],
    given: tuple[int, int, int, int], offsets: int, of_codes: tuple[int, int],
) -> Any:  # fmt: skip
    """Encode rows for the tensor cores."""
    call, (rows, columns) = memory.call, sizes[:2]
    padded = -(-columns // _CODE_STEP) * _CODE_STEP
    roughness = call.made((1,), "float32")
    codes, norms = memory.taken("codes", 2 * rows * padded), memory.taken("codes", 4 * rows)
    arrays = (*given, codes, offsets, norms, call.kept(roughness), *of_codes)
    index = call.kernels.AnnIndex(*kinds, sizes, arrays)
    call.kernels.ann_encode(call.where, call.place(), index)
    on_host(roughness)
    return index


def mean_of(rows: Floats, metric: str) -> Floats:
    """Return what codes are centred on, near the mean of rows as they are compared."""
    if len(rows) == 0:
        return np.zeros(rows.shape[1], np.float32)
    if metric == "cosine":
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    mean: Floats = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def _columns(memory: Memory, table: _core.AnnTable) -> int:
    parts = table.parts()
    count = int(parts["table"][2])
    columns = np.zeros((count, 1 + len(_COLUMN_PARTS)), np.int64)
    for i in range(count):
        columns[i, 0] = parts[f"{i}.kind"][0]
        for j, name in enumerate(_COLUMN_PARTS, 1):
            array = parts.get(f"{i}.{name}")
            columns[i, j] = 0 if array is None else memory.sent("attributes", array)
    return memory.sent("attributes", columns)


def check_device(where: str, device: Any, argument: str = "device") -> None:
    """Raise TypeError or ValueError for what is no device."""
    if not isinstance(device, str):
        raise TypeError(f"{where}: '{argument}' must be a string; got {type(device).__name__}.")
    kind, _, number = device.partition(":")
    numbered = device == "cuda" or (number.isascii() and number.isdigit())
    if device != "cpu" and not (kind == "cuda" and numbered):
        raise ValueError(
            f"{where}: '{argument}' must be 'cpu', 'cuda' or 'cuda:' and a number; got {device!r}."
        )


def device_number(where: str, device: Any, argument: str = "device") -> int | None:
    """Return the number of a GPU, for ``"cuda"`` that of the current one; None for the CPU.

    Raises
    ------
    TypeError, ValueError
        For what is no device.
    RuntimeError
        For ``"cuda"``, if there is no library that finds a GPU.
    """
    check_device(where, device, argument)
    if device == "cpu":
        return None
    return current_device(where, argument) if device == "cuda" else int(device.partition(":")[2])
