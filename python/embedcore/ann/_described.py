# SPDX-License-Identifier: Apache-2.0
"""What an index says of itself, wherever it lies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._ids import LARGEST_ID
from ._state import State


class Described:
    """Width, metric, dtype and ids of a version of an index."""

    _state: State

    @property
    def dim(self) -> int:
        """Columns of the vectors."""
        return self._state.options.dim

    @property
    def metric(self) -> str:
        """Name of the distance."""
        return self._state.options.metric

    @property
    def dtype(self) -> str | None:
        """How vectors are kept; None before the first rows where the dtype is taken from them."""
        return self._state.options.dtype

    @property
    def ids(self) -> NDArray[np.int64]:
        """Ids of the rows in the order of adding, read-only; masks are aligned with it."""
        return self._state.ids.ordered

    def __len__(self) -> int:
        return self._state.ids.live

    def __bool__(self) -> bool:
        return True  # also without rows

    def __contains__(self, row: object) -> bool:
        if isinstance(row, (bool, np.bool_)) or not isinstance(row, (int, np.integer)):
            return False
        return bool(0 <= row <= LARGEST_ID) and bool(
            self._state.ids.slots_of(np.array([row], np.int64))[0] >= 0
        )
