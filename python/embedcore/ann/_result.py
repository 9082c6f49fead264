# SPDX-License-Identifier: Apache-2.0
"""`ann.SearchResult`: what a search found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SearchResult"]

Ids = NDArray[np.int64]
Distances = NDArray[np.float32]


@dataclass(frozen=True, eq=False, repr=False)
class SearchResult:
    """Nearest rows of each query, nearest first.

    Iterating gives a pair ``(ids, distances)`` for each query, without the padding; ``result[i]``
    is the pair of query i and ``len(result)`` the number of queries.

    Parameters
    ----------
    ids : array (n, k) of int64
        Ids of the rows, padded with -1.
    distances : array (n, k) of float32
        Their distances, ascending, padded with inf.
    counts : array (n,) of int64
        How many of the k were found: min(k, rows that pass the filter).
    """

    ids: Ids
    distances: Distances
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, query: int) -> tuple[Ids, Distances]:
        count = int(self.counts[query])
        return self.ids[query, :count], self.distances[query, :count]

    def __iter__(self) -> Iterator[tuple[Ids, Distances]]:
        return (self[query] for query in range(len(self)))

    def __repr__(self) -> str:
        lines = [f"SearchResult(queries={len(self)}, k={self.ids.shape[1]})"]
        for query, (ids, distances) in enumerate(self):
            if query == 3 and len(self) > 4:
                lines.append(f"  ... {len(self) - query} more")
                break
            pairs = zip(ids[:5].tolist(), distances[:5].tolist(), strict=True)
            shown = ", ".join(f"{row} ({distance:.4g})" for row, distance in pairs)
            more = f", ... {len(ids) - 5} more" if len(ids) > 5 else ""
            lines.append(f"  {query}: {shown or 'nothing'}{more}")
        return "\n".join(lines)
