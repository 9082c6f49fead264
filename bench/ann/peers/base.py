# SPDX-License-Identifier: Apache-2.0
"""What a peer is: an index that is built once, its settings, and searches with a filter each."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.ann.columns import Columns, Tree

Ids = NDArray[np.int64]
Rows = NDArray[np.float32]
Setting = dict[str, Any]

EVERYTHING: Tree = ("all",)
# A post-filtering peer asks for at most so many neighbours.
MOST_ASKED = 2560


class Allowed:
    """The rows that pass a filter, in the forms that peers take, each made when it is asked for."""

    def __init__(self, columns: Columns, tree: Tree) -> None:
        self._columns, self.tree = columns, tree
        self.everything = tree == EVERYTHING

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Return a flag for each row."""
        return self._columns.mask(self.tree)

    @cached_property
    def ids(self) -> Ids:
        """Return the rows that pass, rising."""
        return self._columns.ids(self.tree)

    @cached_property
    def count(self) -> int:
        """Return how many pass."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def bits(self) -> NDArray[np.uint8]:
        """Return one bit a row, the first in the lowest."""
        return np.packbits(self.mask, bitorder="little")


def all_equal(allowed: Sequence[Allowed]) -> bool:
    """Tell whether nothing is filtered, so that a batch is one plain search."""
    return all(one.everything for one in allowed)


@lru_cache(maxsize=2)
def workers(threads: int) -> ThreadPoolExecutor:
    """Return threads for libraries whose batches take no filter for each query."""
    return ThreadPoolExecutor(threads)


class Peer(ABC):
    """A library's index in its best form.

    `base` has rows of unit length, so that inner product, cosine and distance order alike.
    """

    name: str
    package: str  # that has to import
    evaluates = False  # whether it has the attributes and evaluates filters itself
    rising = True  # whether settings go from quick to slow, so that the first slow one ends a sweep
    slow_build = False  # a minute or more: takes part in full runs alone
    largest = 1 << 40  # rows that it is built for
    widest = 1 << 40  # dimensions that it is built for

    def __init__(self, base: Rows, columns: Columns, threads: int) -> None:
        self.base, self.columns = base, columns
        self.build(threads)

    @abstractmethod
    def build(self, threads: int) -> None:
        """Index the rows."""

    @abstractmethod
    def settings(self) -> list[Setting]:
        """Return what to try, from quick to thorough."""

    def prepare(self, allowed: Allowed, setting: Setting) -> Any:
        """Return a filter in the form that `one` takes it."""
        return allowed

    @abstractmethod
    def one(self, query: Rows, prepared: Any, k: int, setting: Setting, out: Ids) -> None:
        """Search for one query, (dim,); `out` is (k,) of -1."""

    def plain(self, queries: Rows, k: int, setting: Setting, threads: int) -> Ids | None:
        """Search a batch without a filter; None where `one` for each is the way."""
        return None

    def search(
        self, queries: Rows, prepared: Sequence[Any], k: int, setting: Setting, threads: int
    ) -> Ids:
        """Search with a prepared filter for each query."""
        out = np.full((len(queries), k), -1, np.int64)

        def part(rows: range) -> None:
            for i in rows:
                self.one(queries[i], prepared[i], k, setting, out[i])

        spread(part, len(queries), threads)
        return out

    def search_expressions(
        self, queries: Rows, trees: Sequence[Tree], k: int, setting: Setting, threads: int
    ) -> Ids:
        """Search with filters that have to be evaluated first."""
        out = np.full((len(queries), k), -1, np.int64)

        def part(rows: range) -> None:
            for i in rows:
                allowed = Allowed(self.columns, trees[i])
                self.one(queries[i], self.prepare(allowed, setting), k, setting, out[i])

        spread(part, len(queries), threads)
        return out


def spread(part: Any, count: int, threads: int) -> None:
    """Run `part` for ranges of queries on some threads."""
    if threads == 1:
        part(range(count))
        return
    cuts = np.linspace(0, count, threads + 1).astype(int)
    parts = [range(cuts[i], cuts[i + 1]) for i in range(threads)]
    list(workers(threads).map(part, parts))


class PostFilter(Peer):
    """A peer whose searches take no filter: asks for more neighbours and drops what fails."""

    @abstractmethod
    def nearest(self, queries: Rows, count: int, setting: Setting, threads: int) -> Ids:
        """Return `count` neighbours of each of some queries."""

    @abstractmethod
    def efforts(self) -> Iterator[Setting]:
        """Yield the index's own settings, from quick to thorough."""

    def settings(self) -> list[Setting]:
        """Return own settings with how many times k / share to ask for."""
        return [
            {**own, "over": over}
            for own, over in zip(self.efforts(), (1.2, 1.5, 2, 3, 4, 6, 10, 16), strict=False)
        ]

    def plain(self, queries: Rows, k: int, setting: Setting, threads: int) -> Ids | None:
        return self.nearest(queries, k, setting, threads)

    def one(self, query: Rows, prepared: Any, k: int, setting: Setting, out: Ids) -> None:
        if not prepared.count:
            return
        asked = math.ceil(setting["over"] * k * len(self.base) / prepared.count)
        count = k if prepared.everything else min(asked, MOST_ASKED, len(self.base))
        found = self.nearest(query[None], count, setting, 1)[0]
        passing = found[prepared.mask[found] & (found >= 0)][:k]
        out[: len(passing)] = passing
