# SPDX-License-Identifier: Apache-2.0
"""What is measured: data sets, workloads, bands of selectivity, recalls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bench.ann import data
from bench.ann.workloads import BANDS, CELLS, MEANING

RECALLS = (0.95, 0.99)
# Rows and dimensions; (0, 0) is the file that the environment names.
THE_FILE = (0, 0)
MAIN, SIZES, WIDE = (60_000, 384), ((20_000, 384), (200_000, 384), (120_000, 384)), (50_000, 4096)
WIDE_CELLS = {"none": (4,), "em": (2, 3, 4), "em_neg": (1, 2), "r": (1, 2, 3, 4), "not": (4,)}
SIZE_CELLS = {
    "none": (4,), "em": (2, 3), "em_neg": (2,), "r": (1, 2, 3, 4), "emis_rand": (2, 3), "not": (4,),
}  # fmt: skip
QUERIES = {"smoke": 60, "quick": 200, "full": 1000}
# Of one cell that are timed. Where nothing is filtered, all are: a walk misses all neighbours of a
# query or none, so that 150 queries tell a recall of 0.99 to within 0.016 only.
MOST_QUERIES = {"smoke": 12, "quick": 60, "full": 150}
FEWEST_QUERIES = 8


@dataclass(frozen=True)
class Case:
    """A cell: queries of a workload with filters of one band, at a recall."""

    rows: int
    dim: int
    workload: str
    band: int
    recall: float
    mode: str
    expressions: bool = False  # evaluated within the time, not prepared
    all_threads: bool = False  # one alone otherwise
    with_built: bool = True  # peers that have to be built take part
    cold = False

    @property
    def name(self) -> str:
        """Return a title, unique among the cases of one mode."""
        data_name = f"{self.rows} x {self.dim}" if self.rows else data.FILE
        way = ", expressions" if self.expressions else ""
        return f"{data_name}, {self.workload} {BANDS[self.band]}, recall {self.recall}{way}"

    @property
    def queries(self) -> int:
        """Return how many queries the data set has."""
        return QUERIES[self.mode]

    @property
    def most_queries(self) -> int:
        """Return how many of them are timed at most."""
        return self.queries if self.workload == "none" else MOST_QUERIES[self.mode]

    def uncompiled(self) -> Case:
        """Return a copy without peers that have to be built."""
        return replace(self, with_built=False)

    def small(self) -> Case:
        """Return a tiny copy in which the same contestants take part, where none is built."""
        return self if self.mode == "smoke" else replace(self, rows=600, dim=32, mode="smoke")

    def threads_of(self, threads: list[int]) -> list[int]:
        """Return all or the first."""
        return threads if self.all_threads else threads[:1]


def _cells(
    size: tuple[int, int],
    mode: str,
    cells: dict[str, tuple[int, ...]],
    recalls: tuple[float, ...] = RECALLS,
) -> Iterator[Case]:
    for workload, bands in cells.items():
        for band in bands:
            for recall in recalls:
                yield Case(*size, workload, band, recall, mode)


def _full() -> Iterator[Case]:
    main = [MAIN] if data.file_given() is None else [THE_FILE, MAIN]
    for size in main:
        for case in _cells(size, "full", CELLS):
            first = case.recall == RECALLS[0]
            yield replace(case, all_threads=first)
            if first and case.workload != "none":
                yield replace(case, expressions=True)
    yield from _cells(WIDE, "full", WIDE_CELLS)
    for size in SIZES if data.file_given() is None else SIZES[1:]:
        yield from _cells(size, "full", SIZE_CELLS, RECALLS[:1])


def cases_of(mode: str, only: str = "") -> list[Case]:
    """Return the cases of a mode whose names contain `only`."""
    if mode == "smoke":
        some = {"none": (4,), "em": (1, 2), "em_neg": (2,), "and": (2,)}
        found = [replace(case, with_built=False) for case in _cells((600, 32), mode, some, (0.95,))]
        found[1:2] = [replace(found[1], all_threads=True), replace(found[1], expressions=True)]
    elif mode == "quick":
        size = (10_000, 384) if data.file_given() is None else THE_FILE
        some = {"none": (4,), "em": (1, 2, 3), "em_neg": (2,), "r": (3,), "and": (2,), "not": (4,)}
        found = list(_cells(size, mode, some, (0.95,)))
    else:
        found = list(_full())
    return [case for case in found if only in case.name]


def legend() -> list[str]:
    """Return what the workloads are."""
    return [f"{name}: {meaning}" for name, meaning in MEANING.items()]
