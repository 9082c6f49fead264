# SPDX-License-Identifier: Apache-2.0
"""`ann.DeviceFilter`: a filter that a `DeviceIndex` has evaluated."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._device import on_host
from ._device_rows import DeviceRows
from ._state import State


class DeviceFilter:
    """A filter evaluated on a device, to be used again. Made by :meth:`DeviceIndex.compile`.

    The rows that pass lie there as bits and as a list, so that a search by it waits for nothing and
    may be captured into a CUDA graph. Until such searches are done, it has to be kept.
    """

    def __init__(
        self, rows: DeviceRows, state: State, text: str, count: int, arrays: tuple[Any, Any, Any],
        addresses: tuple[int, int, int],
    ) -> None:  # fmt: skip
        self._rows, self._state, self._text, self._count = rows, state, text, count
        # Bits, the slots that pass, and their number, and where these lie.
        self._arrays, self._addresses = arrays, addresses

    @property
    def count(self) -> int:
        """How many rows pass."""
        return self._count

    @property
    def ids(self) -> NDArray[np.int64]:
        """Ids of the rows that pass, in the order of adding, for NumPy; this waits."""
        slots = on_host(self._arrays[1]).view(np.uint32).astype(np.int64)
        ids = self._state.ids
        ordered: NDArray[np.int64] = ids.external[slots[np.argsort(ids.places[slots])]]
        return ordered

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return True  # also when no row passes

    def __repr__(self) -> str:
        return f"DeviceFilter({self._text}, rows={self._count})"
