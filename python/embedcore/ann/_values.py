# SPDX-License-Identifier: Apache-2.0
"""Payloads back to values as users have them, for `Index.get`."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ._columns import Payload


def values_of(payload: Payload) -> Any:
    """Return the values of a column, in a form that `add` takes back.

    Numbers are a float64 array (NaN is missing), points in time a datetime64 array (NaT), integers
    an int64 array, or a list with None where one is missing. Categories and sets are lists.
    """
    kind = payload[0]
    if kind == "number":
        return payload[1]
    if kind == "datetime":
        times = np.asarray(payload[1]).view("datetime64[ns]")
        return times if payload[2] is None else np.where(payload[2], np.datetime64("NaT"), times)
    if kind == "integer":
        if payload[2] is None or not payload[2].any():
            return payload[1]
        pairs = zip(payload[1].tolist(), payload[2].tolist(), strict=True)
        return [None if missing else value for value, missing in pairs]
    if kind == "category":
        labels = payload[2]
        return [None if code < 0 else labels[code] for code in payload[1].tolist()]
    _, offsets, codes, labels, missing = payload
    members = [labels[code] for code in codes.tolist()]
    starts = offsets.tolist()
    sets: list[Any] = [members[a:b] for a, b in pairwise(starts)]
    if missing is not None:
        for row in np.flatnonzero(missing).tolist():
            sets[row] = None
    return sets
