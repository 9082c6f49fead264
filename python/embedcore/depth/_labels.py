# SPDX-License-Identifier: Apache-2.0
"""Labels of rows: checked once, turned into sorted names and positions among them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import to_numpy


def members_of(
    where: str, argument: str, labels: Any, rows: int, least: int
) -> tuple[NDArray[Any], list[NDArray[np.int64]]]:
    """Return the sorted distinct labels and the rows of each, ascending.

    Raises
    ------
    TypeError
        Labels that are neither integers nor strings.
    ValueError
        Not one label for each of `rows` rows; a label of fewer than `least` rows.
    """
    given = to_numpy(labels, where, argument)
    if given.shape != (rows,):
        raise ValueError(
            f"{where}: '{argument}' must have one label for each row of 'x' ({rows}); "
            f"got shape {given.shape}."
        )
    if given.dtype.kind not in "iuUS":
        raise TypeError(
            f"{where}: '{argument}' must hold integers or strings; got dtype {given.dtype}."
        )
    names, codes = np.unique(given, return_inverse=True)
    members = [np.flatnonzero(codes.ravel() == c) for c in range(len(names))]
    for name, own in zip(names.tolist(), members, strict=True):
        if len(own) < least:
            raise ValueError(
                f"{where}: each label in '{argument}' must have at least {least} rows; "
                f"{name!r} has {len(own)}."
            )
    return names, members
