# SPDX-License-Identifier: Apache-2.0
"""Groups of corpus rows as users give them: labels, or ragged offsets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import to_numpy


def group_codes(where: str, groups: Any, offsets: Any, rows: int) -> tuple[NDArray[np.int64], int]:
    """Return the group of each row and the number of groups."""
    if groups is None:
        return _codes_of_offsets(where, offsets, rows)
    if offsets is not None:
        raise ValueError(f"{where}: 'groups' must not be given together with 'offsets'.")
    given = to_numpy(groups, where, "groups")
    if given.shape != (rows,):
        raise ValueError(
            f"{where}: 'groups' must have one label for each corpus row ({rows}); got shape "
            f"{given.shape}."
        )
    if given.dtype.kind not in "iuUS":
        raise TypeError(
            f"{where}: 'groups' must hold integers or strings; got dtype {given.dtype}."
        )
    names, codes = np.unique(given, return_inverse=True)
    return codes.reshape(-1).astype(np.int64, copy=False), max(len(names), 1)


def _codes_of_offsets(where: str, offsets: Any, rows: int) -> tuple[NDArray[np.int64], int]:
    ends = to_numpy(offsets, where, "offsets")
    if ends.dtype.kind not in "iu":
        raise TypeError(f"{where}: 'offsets' must hold integers; got dtype {ends.dtype}.")
    ends = ends.astype(np.int64)
    if ends.ndim != 1 or len(ends) < 2 or ends[0] != 0 or ends[-1] != rows:
        raise ValueError(
            f"{where}: 'offsets' must be a vector that starts at 0 and ends at the number of "
            f"corpus rows ({rows}); got {_shown(ends)}."
        )
    sizes = np.diff(ends)
    if (sizes < 1).any():
        raise ValueError(
            f"{where}: 'offsets' must rise at every step, so that no group is empty; offsets"
            f"[{int(np.argmax(sizes < 1)) + 1}] does not."
        )
    return np.repeat(np.arange(len(sizes)), sizes), len(sizes)


def _shown(values: NDArray[Any]) -> str:
    return np.array2string(values, threshold=6, edgeitems=2, separator=", ")
