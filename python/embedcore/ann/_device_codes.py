# SPDX-License-Identifier: Apache-2.0
"""Codes of an index that has not kept its vectors, as the kernels take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._ids import Ints
from ._vectors import Floats

_HEADER = slice(8, 11)  # of parts: numbers of a code, bytes of heads, bytes of tails
_FACTORS = 4  # float32 at the end of a head: its scale, the offset, the scale and norm of the tail
_ZERO = 128  # the byte that stands for 0


@dataclass(frozen=True)
class Codes:
    """Bytes, and what they stand for: ``scale * (byte - 128)`` along the axes, from the mean."""

    head_columns: int
    numbers: NDArray[np.uint8]  # (rows, columns)
    scales: Floats  # (rows, 2): of the first head_columns, and of the others
    offsets: Floats  # (rows,)
    axes: Floats  # (columns, dim)
    mean: Floats  # (dim,)

    def rows(self, slots: Ints) -> Floats:
        """Return what the codes of some rows stand for, (n, dim)."""
        numbers = self.numbers[slots].astype(np.float32) - _ZERO
        numbers[:, : self.head_columns] *= self.scales[slots, :1]
        numbers[:, self.head_columns :] *= self.scales[slots, 1:]
        rows: Floats = self.mean + numbers @ self.axes
        return rows


def codes_of(parts: dict[str, Any], rows: int) -> Codes:
    """Return the codes of all slots from the parts of vectors that were built."""
    columns, head_bytes, tail_bytes = map(int, parts["header"][_HEADER])
    heads = parts["heads"].reshape(rows, head_bytes)
    tails = parts["tails"].reshape(rows, tail_bytes)
    in_head = min(columns, head_bytes - 4 * _FACTORS)
    factors = np.ascontiguousarray(heads[:, head_bytes - 4 * _FACTORS :]).view(np.float32)
    return Codes(
        in_head,
        np.concatenate([heads[:, :in_head], tails[:, : columns - in_head]], axis=1),
        np.ascontiguousarray(factors[:, [0, 2]]),
        np.ascontiguousarray(factors[:, 1]),
        parts["basis"].reshape(columns, -1),
        parts["mean"],
    )
