# SPDX-License-Identifier: Apache-2.0
"""The index in v1.embedcore, from formulas; run this to write the file anew.

The file is what the first release with format version 1 wrote. It stays as it is: later releases
must read it. A new version of the format gets a file and a script of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

ROWS, COLUMNS, LATER, METRIC, DTYPE = 110, 16, 15, "l2", "float16"
GONE = [5, 17, 1004]
Array = np.ndarray[Any, Any]


def vectors(start: int, stop: int) -> Array:
    """Rows of small multiples of 1/64, which float16 holds as they are."""
    i, j = np.arange(start, stop)[:, None], np.arange(COLUMNS)[None]
    return (((37 * i + 11 * j + 5 * i * j * j) % 101 - 50) / 64.0).astype(np.float16)


def attributes(start: int, stop: int) -> dict[str, list[Any]]:
    """A column of each kind, each with values that are missing."""
    rows = range(start, stop)
    day = np.datetime64("2024-02-29", "ns")
    return {
        "year": [None if i % 13 == 0 else 1990 + i % 30 for i in rows],
        "score": [float("nan") if i % 11 == 0 else i / 8 for i in rows],
        "kind": [None if i % 7 == 0 else "abc\u00e9"[i % 4] for i in rows],
        "draft": [None if i % 17 == 0 else i % 3 == 0 for i in rows],
        "topics": [None if i % 9 == 0 else ["nlp", "law", "art"][: i % 4] for i in rows],
        "day": [np.datetime64("NaT") if i % 19 == 0 else day + i * 10**9 for i in rows],
    }


def content() -> list[tuple[Array, Array, dict[str, list[Any]]]]:
    """Vectors, ids and attributes of the two calls of add; those in GONE are deleted afterwards."""
    later = np.arange(1000, 1000 + LATER, dtype=np.int64)
    return [
        (vectors(0, ROWS), np.arange(ROWS, dtype=np.int64)[::-1].copy(), attributes(0, ROWS)),
        (vectors(ROWS, ROWS + LATER), later, attributes(ROWS, ROWS + LATER)),
    ]


def make(path: Path) -> None:
    """Write the file: rows in the graph, rows after it, and deleted ones."""
    from embedcore import ann
    from embedcore.ann import _state

    with mock.patch.object(_state, "TRAINED_ROWS", 100):  # so few rows would have no graph
        index = ann.Index(COLUMNS, metric=METRIC, dtype=DTYPE, seed=7)
        for number, (rows, ids, columns) in enumerate(content()):
            index.add(rows, ids=ids, attributes=columns)
            if number == 0:
                index.compact()
        index.delete(GONE)
        index.save(path)


if __name__ == "__main__":
    make(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("v1.embedcore")))
