# SPDX-License-Identifier: Apache-2.0
"""What an index has on a device: vectors and their codes, columns, ids, living rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .._device import Call, on_host
from ._state import State, sample_of
from ._vectors import DTYPES, METRICS, Floats

_MOST_LINKED = 1 << 31  # slots that walks can name
_CODE_STEP = 32  # columns of codes, as the C ABI says
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
        return self.call.sent(flat if flat.flags.writeable else flat.copy())

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
    ordered: int  # living slots in the order of adding
    known: tuple[int, int, int]  # ids of living rows, ascending; their slots; how many
    graph: tuple[int, int, int]  # links, entries, and how many of these; 0: walks are not possible


def sent_to(call: Call, state: State) -> DeviceRows:
    """Copy a version of an index that keeps its vectors, and wait until it is there."""
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
    ordered = memory.sent("ids", slots.astype(np.uint32))
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
    sample = sample_of(state)
    vectors = memory.sent("vectors", parts["raw"])
    ids = memory.sent("ids", state.ids.external)
    indexes = {}
    for width in (options.dim, *options.prefixes):
        own = parts
        if width != options.dim:
            own = state.prefixes[options.prefixes.index(width)].parts()
        given = Given(
            options.metric, options.dtype or "float32", state.ids.rows, width, options.dim
        )
        norms = memory.sent("vectors", own["inverse_norms"])
        indexes[width] = encoded(memory, given, (vectors, norms, ids), sample[:, :width])
    return indexes


class Given(NamedTuple):
    """What an index of the kernels is made of, beside its arrays; stride: between rows."""

    metric: str
    dtype: str
    rows: int
    columns: int
    stride: int


def encoded(memory: Memory, given: Given, arrays: tuple[int, int, int], sample: Floats) -> Any:
    """Return the native index over vectors, inverse norms and ids at addresses; this waits."""
    call = memory.call
    padded = -(-given.columns // _CODE_STEP) * _CODE_STEP
    roughness = call.made((1,), "float32")
    vectors, norms, ids = arrays
    index = call.kernels.AnnIndex(
        METRICS.index(given.metric),
        DTYPES.index(given.dtype),
        (given.rows, given.columns, given.stride),
        (
            vectors,
            norms,
            memory.sent("codes", _mean_of(sample, given.metric)),
            ids,
            memory.taken("codes", 2 * given.rows * padded),
            memory.taken("codes", 4 * given.rows),
            memory.taken("codes", 4 * given.rows),
            call.kept(roughness),
        ),
    )
    call.kernels.ann_encode(call.where, call.place(), index)
    on_host(roughness)
    return index


def _mean_of(rows: Floats, metric: str) -> Floats:
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


def device_number(where: str, device: Any, argument: str = "device") -> int | None:
    """Return the number of a GPU, None for the CPU.

    Raises
    ------
    TypeError, ValueError
        For what is no device.
    """
    if not isinstance(device, str):
        raise TypeError(f"{where}: '{argument}' must be a string; got {type(device).__name__}.")
    kind, _, number = device.partition(":")
    if device == "cpu":
        return None
    if kind == "cuda" and (device == "cuda" or (number.isascii() and number.isdigit())):
        return int(number or 0)
    raise ValueError(
        f"{where}: '{argument}' must be 'cpu', 'cuda' or 'cuda:' and a number; got {device!r}."
    )
