# SPDX-License-Identifier: Apache-2.0
"""Graph libraries: hnswlib with a callback or filtering afterwards, usearch, SVS, pynndescent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.ann.peers.base import Allowed, Ids, Peer, PostFilter, Rows, Setting
from bench.timing import optional

LINKS, BUILD_BEAM = 16, 200
_WIDE = 1024  # dimensions beyond which SVS would need several minutes
_BEAMS = (10, 16, 24, 40, 64, 100, 200, 400)
_graphs: dict[tuple[int, int, int], tuple[Any, Rows]] = {}


def hnswlib_index(base: Rows, threads: int) -> Any:
    """Return hnswlib's graph of some rows; its two users share the last one."""
    key = (id(base), len(base), threads)
    if key not in _graphs:
        _graphs.clear()
        _graphs[key] = new_hnswlib_index(base, threads), base
    return _graphs[key][0]


def new_hnswlib_index(base: Rows, threads: int) -> Any:
    """Return a new graph."""
    index = optional("hnswlib").Index("ip", base.shape[1])
    index.init_index(len(base), M=LINKS, ef_construction=BUILD_BEAM, random_seed=1)
    index.add_items(base, num_threads=threads)
    return index


class Hnswlib(PostFilter):
    """Filters afterwards."""

    name, package = "hnswlib, post-filter", "hnswlib"

    def build(self, threads: int) -> None:
        self.index = hnswlib_index(self.base, threads)

    def efforts(self) -> Iterator[Setting]:
        for beam in _BEAMS:
            yield {"beam": beam}

    def nearest(self, queries: Rows, count: int, setting: Setting, threads: int) -> Ids:
        self.index.set_ef(max(setting["beam"], count))
        found: Ids = self.index.knn_query(queries, count, num_threads=threads)[0]
        return found.astype(np.int64)


class HnswlibCallback(Peer):
    """Calls back for every candidate."""

    name, package, largest = "hnswlib, callback", "hnswlib", 100_000

    def build(self, threads: int) -> None:
        self.index = hnswlib_index(self.base, threads)

    def settings(self) -> list[Setting]:
        return [{"beam": beam} for beam in (*_BEAMS, 800)]

    def prepare(self, allowed: Allowed, setting: Setting) -> Any:
        # A list's own method is the quickest callback there is: no Python code runs.
        accepts = None if allowed.everything else allowed.mask.tolist().__getitem__
        return allowed.count, accepts

    def one(self, query: Rows, prepared: Any, k: int, setting: Setting, out: Ids) -> None:
        count, accepts = prepared
        k = min(k, count)
        self.index.set_ef(max(setting["beam"], k))
        try:
            found = self.index.knn_query(query[None], k, num_threads=1, filter=accepts)[0][0]
        except RuntimeError:  # it found fewer than k, and returns none of them
            return
        out[:k] = found


class Usearch(PostFilter):
    """Rows as bfloat16."""

    name, package, kind = "usearch bf16, post-filter", "usearch", "bf16"
    largest = 100_000

    def build(self, threads: int) -> None:
        index = optional("usearch.index").Index(
            ndim=self.base.shape[1], metric="ip", dtype=self.kind, connectivity=LINKS,
            expansion_add=BUILD_BEAM,
        )  # fmt: skip
        index.add(np.arange(len(self.base)), self.base, threads=threads)
        self.index = index

    def efforts(self) -> Iterator[Setting]:
        for beam in _BEAMS:
            yield {"beam": beam}

    def nearest(self, queries: Rows, count: int, setting: Setting, threads: int) -> Ids:
        self.index.expansion_search = max(setting["beam"], count)
        found = self.index.search(queries, count, threads=threads)
        return np.asarray(found.keys).astype(np.int64).reshape(len(queries), -1)


class UsearchInteger(Usearch):
    """Rows as int8."""

    name, kind = "usearch int8, post-filter", "i8"
    largest, widest = 100_000, 1024


class Svs(PostFilter):
    """Vamana over float16; its closer codes are for other processors alone."""

    name, package, half = "SVS Vamana fp16, post-filter", "svs", True

    def build(self, threads: int) -> None:
        svs = optional("svs")
        window = BUILD_BEAM if self.base.shape[1] <= _WIDE else BUILD_BEAM // 2
        parameters = svs.VamanaBuildParameters(alpha=0.95, graph_max_degree=64, window_size=window)
        rows = self.base.astype(np.float16) if self.half else self.base
        self.index = svs.Vamana.build(parameters, rows, svs.DistanceType.MIP, num_threads=threads)

    def efforts(self) -> Iterator[Setting]:
        for beam in _BEAMS:
            yield {"beam": beam}

    def nearest(self, queries: Rows, count: int, setting: Setting, threads: int) -> Ids:
        if self.index.num_threads != threads:
            self.index.num_threads = threads
        self.index.search_window_size = max(setting["beam"], count)
        asked = queries.astype(np.float16) if self.half else queries
        found: Ids = self.index.search(asked, count)[0]
        return found.astype(np.int64)


class Pynndescent(PostFilter):
    """Compiles its searches when it is first asked, on all threads."""

    name, package, largest = "pynndescent, post-filter", "pynndescent", 100_000
    slow_build = True

    def build(self, threads: int) -> None:
        made = optional("pynndescent").NNDescent
        self.index = made(self.base, metric="dot", n_neighbors=30, n_jobs=threads, random_state=1)
        self.index.prepare()
        self.index.query(self.base[:8], 10)

    def efforts(self) -> Iterator[Setting]:
        for epsilon in (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3):
            yield {"epsilon": epsilon}

    def nearest(self, queries: Rows, count: int, setting: Setting, threads: int) -> Ids:
        found: Ids = self.index.query(queries, count, epsilon=setting["epsilon"])[0]
        return found.astype(np.int64)
