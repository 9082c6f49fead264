# SPDX-License-Identifier: Apache-2.0
"""Exact scans of the passing rows with NumPy, and scans of codes with exact re-scoring by Torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.ann.peers.base import Allowed, Ids, Peer, Rows, Setting
from bench.timing import optional

_BLOCK = 32  # queries whose products stay in a cache


def keep_best(scores: Rows, ids: Ids, k: int, out: Ids) -> None:
    """Write the ids with the k largest scores, best first."""
    if len(scores) > k:
        best = np.argpartition(scores, len(scores) - k)[-k:]
        scores, ids = scores[best], ids[best]
    out[: len(ids)] = ids[np.argsort(-scores)]


class NumpyScan(Peer):
    """Gather the passing rows and multiply; or multiply everything in blocks and then mask."""

    name, package = "NumPy", "numpy"
    rising = False

    def build(self, threads: int) -> None:
        self._rows = np.arange(len(self.base))

    def settings(self) -> list[Setting]:
        return [{"way": "gather"}, {"way": "blocks"}]

    def prepare(self, allowed: Allowed, setting: Setting) -> Any:
        if allowed.everything:
            return None
        return allowed.ids

    def one(self, query: Rows, prepared: Any, k: int, setting: Setting, out: Ids) -> None:
        if prepared is None:
            keep_best(self.base @ query, self._rows, k, out)
        else:
            keep_best(np.take(self.base, prepared, axis=0) @ query, prepared, k, out)

    def search(
        self, queries: Rows, prepared: Sequence[Any], k: int, setting: Setting, threads: int
    ) -> Ids:
        if setting["way"] == "gather":
            return super().search(queries, prepared, k, setting, threads)
        out = np.full((len(queries), k), -1, np.int64)
        for start in range(0, len(queries), _BLOCK):
            products = queries[start : start + _BLOCK] @ self.base.T
            for row, scores in enumerate(products):
                ids = prepared[start + row]
                if ids is None:
                    keep_best(scores, self._rows, k, out[start + row])
                else:
                    keep_best(scores[ids], ids, k, out[start + row])
        return out


class TorchScan(Peer):
    """Score codes of all rows, or of the gathered passing ones, and re-score the best exactly."""

    package, rising = "torch", False

    def settings(self) -> list[Setting]:
        return [{"way": way, "pool": pool} for pool in (20, 40, 100) for way in ("gather", "all")]

    def prepare(self, allowed: Allowed, setting: Setting) -> Any:
        torch = optional("torch")
        if allowed.everything:
            return None
        if setting["way"] == "gather":
            return torch.from_numpy(allowed.ids)
        return torch.from_numpy(~allowed.mask)

    def coded(self, queries: Rows) -> Any:
        """Return the codes of some queries."""
        raise NotImplementedError

    def scores(self, coded: Any, rows: Any) -> Any:
        """Return scores (queries, rows), of all rows where `rows` is None."""
        raise NotImplementedError

    def search(
        self, queries: Rows, prepared: Sequence[Any], k: int, setting: Setting, threads: int
    ) -> Ids:
        if setting["way"] == "gather" and any(one is not None for one in prepared):
            return super().search(queries, prepared, k, setting, threads)
        torch, pool = optional("torch"), min(setting["pool"], len(self.base))
        out = np.full((len(queries), k), -1, np.int64)
        for start in range(0, len(queries), _BLOCK):
            block = queries[start : start + _BLOCK]
            scores = self.scores(self.coded(block), None)
            for row, failing in enumerate(prepared[start : start + _BLOCK]):
                if failing is not None:
                    scores[row].masked_fill_(failing, -torch.inf)
            found, best = torch.topk(scores, pool, dim=1, sorted=False)
            best, real = best.numpy(), torch.isfinite(found).numpy()
            for row, query in enumerate(block):
                self._rescore(query, best[row][real[row]], k, out[start + row])
        return out

    def one(self, query: Rows, prepared: Any, k: int, setting: Setting, out: Ids) -> None:
        torch = optional("torch")
        coded = self.coded(query[None])
        if prepared is None or setting["way"] == "all":
            scores = self.scores(coded, None)[0]
            if prepared is not None:
                scores.masked_fill_(prepared, -torch.inf)
            best = torch.topk(scores, min(setting["pool"], len(scores)), sorted=False)
            self._rescore(query, best.indices[torch.isfinite(best.values)].numpy(), k, out)
            return
        ids = prepared.numpy()
        if len(prepared) > setting["pool"]:
            scores = self.scores(coded, prepared)[0]
            ids = ids[torch.topk(scores, setting["pool"], sorted=False).indices.numpy()]
        self._rescore(query, ids, k, out)

    def _rescore(self, query: Rows, ids: Ids, k: int, out: Ids) -> None:
        keep_best(np.take(self.base, ids, axis=0) @ query, ids, k, out)


class TorchBfloat(TorchScan):
    """Codes of bfloat16."""

    name, largest = "Torch bf16 scan", 100_000

    def build(self, threads: int) -> None:
        torch = optional("torch")
        self._codes = torch.from_numpy(self.base).to(torch.bfloat16)

    def coded(self, queries: Rows) -> Any:
        torch = optional("torch")
        return torch.from_numpy(queries).to(torch.bfloat16)

    def scores(self, coded: Any, rows: Any) -> Any:
        codes = self._codes if rows is None else self._codes.index_select(0, rows)
        return (coded @ codes.T).float()


class TorchInteger(TorchScan):
    """Codes of int8 with a factor for each row."""

    name = "Torch int8 scan"

    def build(self, threads: int) -> None:
        torch = optional("torch")
        rows = torch.from_numpy(self.base)
        self._factors = rows.abs().amax(1) / 127
        self._codes = (rows / self._factors[:, None]).round().to(torch.int8)

    def coded(self, queries: Rows) -> Any:
        torch = optional("torch")
        rows = torch.from_numpy(queries)
        return (rows * (127 / rows.abs().amax(1, keepdim=True))).round().to(torch.int8)

    def scores(self, coded: Any, rows: Any) -> Any:
        torch = optional("torch")
        codes = self._codes if rows is None else self._codes.index_select(0, rows)
        factors = self._factors if rows is None else self._factors.index_select(0, rows)
        return torch._int_mm(coded, codes.T).float() * factors
