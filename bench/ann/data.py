# SPDX-License-Identifier: Apache-2.0
"""Data sets: rows, queries, attributes, filters; made here, or read from a file.

A file named by ``EMBEDCORE_BENCH_ANN_DATA`` takes part under the name "file". It is an ``npz`` with

- ``base`` (n, dim) and ``queries`` (q, dim): vectors of any float dtype, compared by angle;
- ``attr_em_NAME`` (n,): a category, codes from 0; ``attr_r_NAME`` (n,): an integer;
- ``attr_emis_NAME_indptr`` (n + 1,) and ``attr_emis_NAME_indices``: a column of sets of codes;
- ``wl_WORKLOAD_filters`` (q,): for each query a filter as JSON, as `bench.ann.columns` has them
  with lists for tuples; workloads as in `bench.ann.workloads.CELLS`, of which some may be missing.

Ground truth is computed here in both cases.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.ann import synthetic, workloads
from bench.ann.columns import Columns, Sets, Tree, tree_of
from bench.ann.exact import Truth
from bench.ann.geometry import mixture

VARIABLE = "EMBEDCORE_BENCH_ANN_DATA"
FILE = "file"
SEED = 1


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows of unit length with attributes, queries, and their filters by workload."""

    name: str
    base: NDArray[np.float32]
    queries: NDArray[np.float32]
    columns: Columns
    filters: dict[str, list[Tree]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_truths", {})

    def truth(self, workload: str, k: int) -> Truth:
        """Return the right answers of a workload; kept."""
        found: dict[tuple[str, int], Truth] = self.__dict__["_truths"]
        if (workload, k) not in found:
            trees = self.filters[workload]
            found[workload, k] = Truth.of(self.base, self.queries, self.columns, trees, k)
        return found[workload, k]

    def cell(self, workload: str, band: int, k: int, most: int) -> NDArray[np.int64]:
        """Return the queries of a workload whose filters pass a share of that band; `most`."""
        if workload not in self.filters:
            return np.zeros(0, np.int64)
        limits = np.array([0.0, *workloads.BAND_LIMITS, 1.0]) * len(self.base)
        passing = self.truth(workload, k).passing
        within = (passing > limits[band]) & (passing <= limits[band + 1])
        if band == 0:
            within |= passing == 0
        return np.flatnonzero(within)[:most]

    @cached_property
    def dim(self) -> int:
        """Return the number of dimensions."""
        return int(self.base.shape[1])


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    wide = np.array(rows, dtype=np.float32)
    wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
    return wide


def make(rows: int, dim: int, queries: int, seed: int = SEED) -> Dataset:
    """Return a made data set; its queries are held out from the same mixture."""
    found = mixture(rows + queries, dim, seed)
    order = np.random.default_rng([10, seed]).permutation(rows + queries)
    kept, held_out = np.sort(order[:rows]), order[rows:]
    columns = synthetic.attributes(found.clusters, seed)
    base, own = columns.take(kept), columns.take(held_out)
    vectors, asked = found.vectors[kept], found.vectors[held_out]
    filters = workloads.make(base, own, vectors, asked, seed)
    name = f"{rows // 1000}k x {dim}" if rows >= 1000 else f"{rows} x {dim}"
    return Dataset(name, vectors, asked, base, filters)


def part(whole: Dataset, rows: NDArray[np.int64]) -> Dataset:
    """Return a data set of some rows with the same queries and filters."""
    columns = whole.columns.take(rows)
    return Dataset(whole.name, whole.base[rows], whole.queries, columns, whole.filters)


def read(path: str | Path) -> Dataset:
    """Return the data set of a file."""
    with np.load(path) as found:
        names = found.files
        base, queries = _unit(found["base"]), _unit(found["queries"])
        sets = {
            name.removeprefix("attr_emis_").removesuffix("_indptr"): Sets(
                found[name].astype(np.int64),
                found[name.removesuffix("indptr") + "indices"].astype(np.int64),
            )
            for name in names
            if name.startswith("attr_emis_") and name.endswith("_indptr")
        }
        columns = Columns(
            len(base),
            {n[8:]: found[n].astype(np.int32) for n in names if n.startswith("attr_em_")},
            {n[7:]: found[n].astype(np.int64) for n in names if n.startswith("attr_r_")},
            sets,
        )
        filters = {
            name: [tree_of(json.loads(str(text))) for text in found[f"wl_{name}_filters"]]
            for name in workloads.CELLS
            if f"wl_{name}_filters" in names
        }
    return Dataset(FILE, base, queries, columns, filters)


def file_given() -> str | None:
    """Return the path of the data set that the environment names."""
    return os.environ.get(VARIABLE) or None


@lru_cache(maxsize=1)
def dataset(rows: int, dim: int, queries: int) -> Dataset:
    """Return a data set, the last one kept; no rows: that of the file."""
    if rows:
        return make(rows, dim, queries)
    path = file_given()
    if path is None:
        raise ValueError(f"{VARIABLE} names no file")
    return read(path)
