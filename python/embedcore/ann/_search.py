# SPDX-License-Identifier: Apache-2.0
"""Options of a search, and its results in terms of the users' ids."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._check import integer
from ._ids import Ints
from ._state import State

HIGHEST_RECALL = 0.999


class Wanted(NamedTuple):
    """What a search is asked for, checked."""

    k: int
    recall: float
    effort: int  # 0: whatever the recall needs
    exact: bool
    threads: int  # 0: the default


def wanted_of(
    where: str, state: State, k: Any, recall: Any, effort: Any, exact: Any, threads: int
) -> Wanted:
    """Check the options of a search.

    Raises
    ------
    TypeError
        For values of another kind.
    ValueError
        For values out of bounds, and where `exact` needs vectors that the index has not kept.
    """
    k = integer(where, "k", k, minimum=1, maximum=(1 << 31) - 1)
    if isinstance(recall, bool) or not isinstance(recall, (int, float, np.floating)):
        raise TypeError(f"{where}: 'recall' must be a number; got {type(recall).__name__}.")
    if not 0.0 < recall <= HIGHEST_RECALL:
        raise ValueError(
            f"{where}: 'recall' must be above 0 and at most {HIGHEST_RECALL}; got {recall}. Use "
            "exact=True for all of the nearest rows."
        )
    work = 0 if effort is None else integer(where, "effort", effort, minimum=1, maximum=1 << 30)
    if not isinstance(exact, (bool, np.bool_)):
        raise TypeError(f"{where}: 'exact' must be a boolean; got {type(exact).__name__}.")
    if exact and state.dropped:
        raise ValueError(
            f"{where}: 'exact' must be False for an index that does not keep its vectors "
            "(keep_vectors=False), whose distances are those of the codes; got True."
        )
    return Wanted(k, float(recall), work, bool(exact), threads)


def threads_of(where: str, threads: Any, default: int) -> int:
    """Return the number of threads to use, 0 for the library's default."""
    if threads is None:
        return default
    return integer(where, "threads", threads, minimum=1, maximum=1024)


def ids_by_distance(state: State, slots: Ints, distances: NDArray[np.float32]) -> Ints:
    """Return the ids of slots (n, k), those at equal distances in ascending order."""
    ids = state.ids.of_slots(slots)
    tied = (distances[:, 1:] == distances[:, :-1]) & (slots[:, 1:] >= 0)
    if tied.any():
        rows = np.flatnonzero(tied.any(axis=1))
        some = ids[rows]
        order = np.lexsort((some.view(np.uint64), distances[rows]), axis=1)  # -1 is the largest
        ids[rows] = np.take_along_axis(some, order, axis=1)
    return ids
