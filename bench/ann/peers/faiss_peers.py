# SPDX-License-Identifier: Apache-2.0
"""Indexes of faiss with an id selector for each query; codes are re-scored with the rows.

HNSW keeps its bounded queue: without it faiss 1.15 ignores the selector.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.ann.peers.base import Allowed, Ids, Peer, Rows, Setting
from bench.timing import optional

LINKS, BUILD_BEAM = 16, 200


class FaissPeer(Peer):
    """Searches one query after the other, with parameters made for each."""

    package = "faiss"
    selector = "bitmap"

    def build(self, threads: int) -> None:
        faiss = optional("faiss")
        faiss.omp_set_num_threads(threads)
        self.index = self.made()
        self.index.train(self.base)
        self.index.add(self.base)

    def made(self) -> Any:
        """Return the empty index."""
        raise NotImplementedError

    def parameters(self, setting: Setting, selector: Any) -> Any:
        """Return faiss's search parameters."""
        raise NotImplementedError

    def prepare(self, allowed: Allowed, setting: Setting) -> Any:
        faiss = optional("faiss")
        if allowed.everything:
            return self.parameters(setting, None)
        if setting.get("selector", self.selector) == "array":
            return self.parameters(setting, faiss.IDSelectorArray(allowed.ids))
        return self.parameters(setting, faiss.IDSelectorBitmap(allowed.bits))

    def one(self, query: Rows, prepared: Any, k: int, setting: Setting, out: Ids) -> None:
        pointer = optional("faiss").swig_ptr
        distances = np.empty(k, np.float32)
        self.index.search_c(1, pointer(query), k, pointer(distances), pointer(out), prepared)

    def search(
        self, queries: Rows, prepared: Sequence[Any], k: int, setting: Setting, threads: int
    ) -> Ids:
        faiss = optional("faiss")
        # Each query is a call of its own, which must not wake more threads.
        faiss.omp_set_num_threads(1)
        return super().search(queries, prepared, k, setting, threads)

    def plain(self, queries: Rows, k: int, setting: Setting, threads: int) -> Ids | None:
        faiss = optional("faiss")
        faiss.omp_set_num_threads(threads)
        params = self.parameters(setting, None)
        found: Ids = self.index.search(queries, k, params=params)[1]
        return found


class FaissFlat(FaissPeer):
    """Exact."""

    name, rising = "faiss flat", False

    def made(self) -> Any:
        return optional("faiss").IndexFlatIP(self.base.shape[1])

    def settings(self) -> list[Setting]:
        return [{"selector": "array"}, {"selector": "bitmap"}]

    def parameters(self, setting: Setting, selector: Any) -> Any:
        return optional("faiss").SearchParameters(sel=selector) if selector else None


class _Refined(FaissPeer):
    """An index of codes and the rows; `inner` makes the former."""

    def made(self) -> Any:
        faiss = optional("faiss")
        self._codes = self.inner()
        return faiss.IndexRefineFlat(self._codes)

    def inner(self) -> Any:
        """Return the empty index of codes."""
        raise NotImplementedError

    def inner_parameters(self, setting: Setting, selector: Any) -> Any:
        """Return its search parameters."""
        raise NotImplementedError

    def parameters(self, setting: Setting, selector: Any) -> Any:
        faiss = optional("faiss")
        own = self.inner_parameters(setting, selector)
        return faiss.IndexRefineSearchParameters(k_factor=setting["pool"], base_index_params=own)


class FaissInteger(_Refined):
    """A scan of 8-bit codes."""

    name = "faiss int8 scan"

    def inner(self) -> Any:
        faiss = optional("faiss")
        size = self.base.shape[1]
        return faiss.IndexScalarQuantizer(
            size, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )

    def settings(self) -> list[Setting]:
        return [{"pool": pool, "selector": "bitmap"} for pool in (1, 2, 4)]

    def inner_parameters(self, setting: Setting, selector: Any) -> Any:
        return optional("faiss").SearchParameters(sel=selector)


def _lists(rows: int) -> int:
    return max(1, min(rows // 39, 4 * math.isqrt(rows)))


_PROBES = (2, 4, 8, 16, 32, 64, 128, 256, 512)


class FaissIvf(FaissPeer):
    """Inverted lists of rows."""

    name = "faiss IVFFlat"
    largest, widest = 100_000, 1024

    def made(self) -> Any:
        faiss = optional("faiss")
        self._quantizer = faiss.IndexFlatIP(self.base.shape[1])
        size, lists = self.base.shape[1], _lists(len(self.base))
        return faiss.IndexIVFFlat(self._quantizer, size, lists, faiss.METRIC_INNER_PRODUCT)

    def settings(self) -> list[Setting]:
        most = _lists(len(self.base))
        return [{"probes": probes} for probes in _PROBES if probes <= most]

    def parameters(self, setting: Setting, selector: Any) -> Any:
        return optional("faiss").SearchParametersIVF(sel=selector, nprobe=setting["probes"])


class FaissFastScan(_Refined):
    """Inverted lists of 4-bit product codes, two bits a dimension or less, and the rows."""

    name = "faiss IVFPQFastScan+refine"

    def inner(self) -> Any:
        faiss = optional("faiss")
        size, lists = self.base.shape[1], _lists(len(self.base))
        parts = next(p for p in (4, 3, 2, 1) if size % p == 0)
        self._quantizer = faiss.IndexFlatIP(size)
        return faiss.IndexIVFPQFastScan(
            self._quantizer, size, lists, size // parts, 4, faiss.METRIC_INNER_PRODUCT
        )

    def settings(self) -> list[Setting]:
        pools = (4, 4, 6, 8, 10, 10, 16, 16, 16)
        most = _lists(len(self.base))
        return [
            {"probes": probes, "pool": pool * more}
            for probes, pool in zip(_PROBES, pools, strict=True)
            if probes <= most
            for more in (1, 3)
        ]

    def inner_parameters(self, setting: Setting, selector: Any) -> Any:
        return optional("faiss").SearchParametersIVF(sel=selector, nprobe=setting["probes"])


_BEAMS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 320, 640)


class FaissHnsw(FaissPeer):
    """A graph over the rows."""

    name, largest = "faiss HNSW", 100_000

    def made(self) -> Any:
        faiss = optional("faiss")
        index = faiss.IndexHNSWFlat(self.base.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = BUILD_BEAM
        return index

    def settings(self) -> list[Setting]:
        return [{"beam": beam} for beam in _BEAMS]

    def parameters(self, setting: Setting, selector: Any) -> Any:
        return optional("faiss").SearchParametersHNSW(sel=selector, efSearch=setting["beam"])


class FaissHnswInteger(_Refined):
    """A graph over 8-bit codes."""

    name = "faiss HNSW-SQ8"

    def inner(self) -> Any:
        faiss = optional("faiss")
        size, kind = self.base.shape[1], faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexHNSWSQ(size, kind, LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = BUILD_BEAM
        return index

    def settings(self) -> list[Setting]:
        return [{"beam": beam, "pool": 1 if beam < 32 else 2} for beam in _BEAMS]

    def inner_parameters(self, setting: Setting, selector: Any) -> Any:
        return optional("faiss").SearchParametersHNSW(sel=selector, efSearch=setting["beam"])
