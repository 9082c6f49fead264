# SPDX-License-Identifier: Apache-2.0
"""Other libraries that look for the nearest rows on a GPU, each in the ways that are quick for it.

All begin with what embedcore begins with: a mask of rows on the device that holds for all queries,
or the rows' ranks and bounds of them for each query. None holds more than some GB of scores at a
time. Where scores are rounded to bfloat16, twice as many as asked for are kept and measured anew in
float32, or a tenth of the nearest would be missing; that costs next to nothing.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from bench.gpu.timing import Contestant

_CHUNK_BYTES = 4 << 30  # of scores, or of rows that are gathered
_MOST_GATHERED = 32 << 30  # bytes of rows gathered for each query; beyond it scores are quicker
_KEPT = 2  # times k that are measured anew
_GROUP = 512  # scores, of which the greatest stands for all


class Problem(NamedTuple):
    """What is looked for; `queries(turn)` are unit rows in bfloat16, as `rows` are."""

    queries: Any
    rows: torch.Tensor
    k: int
    mask: torch.Tensor | None  # of rows, for all queries; None: all pass
    ranks: torch.Tensor | None  # int32; with bounds for each query
    bounds: Any
    passing: int  # rows, of each query

    def parts(self, turn: int, columns: int) -> Iterator[tuple[torch.Tensor, Any]]:
        """Yield some of the queries and their bounds at a time, for so many scores each."""
        step = max(1, _CHUNK_BYTES // (2 * columns))
        for at in range(0, len(self.queries(turn)), step):
            part = slice(at, at + step)
            bounds = None if self.bounds is None else [one[part] for one in self.bounds]
            yield self.queries(turn)[part], bounds


def peers(problem: Problem) -> Iterator[Contestant]:
    """Yield those that are here."""
    one = _OfTorch(problem)
    if problem.bounds is None:
        yield Contestant("Torch, passing rows gathered", one.gathered)
        yield Contestant("Torch, scores masked", one.masked)
    else:
        yield Contestant("Torch, scores masked", one.masked_each)
        if problem.rows.is_cuda:
            yield Contestant("Torch, scores masked, compiled", one.masked_each_compiled)
        if len(problem.queries(0)) * problem.passing * problem.rows[0].nbytes <= _MOST_GATHERED:
            yield Contestant("Torch, rows gathered for each", one.gathered_each)
    if problem.rows.is_cuda and importlib.util.find_spec("triton") is not None:
        yield Contestant("Triton, fused", functools.partial(_by_triton, problem))
    if problem.rows.is_cuda and importlib.util.find_spec("cupy") is not None:
        yield Contestant("CuPy", _OfCuPy(problem))
    # On the CPU, where there is nothing to measure, only where it has been asked for.
    if "jax" in sys.modules or (problem.rows.is_cuda and importlib.util.find_spec("jax")):
        yield Contestant("JAX, approx_max_k", _OfJax(problem))


class _OfTorch:
    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def gathered(self, turn: int) -> torch.Tensor:
        problem = self._problem
        rows, ids = problem.rows, None
        if problem.mask is not None:
            ids = problem.mask.nonzero()[:, 0]
            rows = rows[ids]
        k = min(problem.k, len(rows))
        places = torch.cat(
            [_best(part @ rows.T, part, rows, k) for part, _ in problem.parts(turn, len(rows))]
        )
        return places if ids is None else ids[places]

    def masked(self, turn: int) -> torch.Tensor:
        problem, found = self._problem, []
        beyond = None if problem.mask is None else ~problem.mask
        for part, _ in problem.parts(turn, len(problem.rows)):
            scores = part @ problem.rows.T
            if beyond is not None:
                scores.masked_fill_(beyond, float("-inf"))
            found.append(_best(scores, part, problem.rows, problem.k))
        return torch.cat(found)

    def masked_each(self, turn: int, fill: Any = None) -> torch.Tensor:
        problem, found = self._problem, []
        for part, bounds in problem.parts(turn, len(problem.rows)):
            scores = part @ problem.rows.T
            filled = (fill or _only_inside)(scores, problem.ranks, *bounds)
            found.append(_best(filled, part, problem.rows, problem.k))
        return torch.cat(found)

    def masked_each_compiled(self, turn: int) -> torch.Tensor:
        return self.masked_each(turn, _compiled_fill())

    def gathered_each(self, turn: int) -> torch.Tensor:
        problem, found = self._problem, []
        size = problem.passing * problem.rows.shape[1] + 2 * len(problem.rows)
        for part, (lows, highs) in problem.parts(turn, size):
            inside = (problem.ranks >= lows[:, None]) & (problem.ranks < highs[:, None])
            ids = inside.nonzero()[:, 1].view(len(part), problem.passing)
            scores = torch.bmm(problem.rows[ids], part[:, :, None])[:, :, 0]
            k = min(problem.k, problem.passing)
            found.append(_best(scores, part, problem.rows, k, ids))
        return torch.cat(found)


def _best(scores: Any, queries: Any, rows: Any, k: int, ids: Any = None) -> torch.Tensor:
    """Return the places in `rows` of the best k; `ids` are those of the scores, if not all."""
    places = scores.topk(min(_KEPT * k, scores.shape[1]), dim=1).indices
    # What did not pass must not come back.
    beyond = scores.gather(1, places) == float("-inf")
    if ids is not None:
        places = ids.gather(1, places)
    anew = torch.bmm(rows[places].float(), queries[:, :, None].float())[:, :, 0]
    order = anew.masked_fill_(beyond, float("-inf")).topk(k, dim=1).indices
    return places.gather(1, order)


def _only_inside(scores: Any, ranks: Any, lows: Any, highs: Any) -> Any:
    inside = (ranks >= lows[:, None]) & (ranks < highs[:, None])
    return torch.where(inside, scores, float("-inf"))


@functools.cache
def _compiled_fill() -> Any:
    return torch.compile(_only_inside, dynamic=False)


def _by_triton(problem: Problem, turn: int) -> torch.Tensor:
    from bench.gpu.fused_topk import nearest

    if problem.bounds is not None:
        windows = (problem.ranks, *problem.bounds)
        return nearest(problem.queries(turn), problem.rows, problem.k, windows)
    rows, ids = problem.rows, None
    if problem.mask is not None:
        ids = problem.mask.nonzero()[:, 0]
        rows = rows[ids]
    places = nearest(problem.queries(turn), rows, problem.k)
    return places if ids is None else ids[places]


@functools.lru_cache(maxsize=1)
def _half(rows: torch.Tensor) -> torch.Tensor:
    return rows.half()  # CuPy has no products in bfloat16


class _OfCuPy:
    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def __call__(self, turn: int) -> torch.Tensor:
        import cupy

        problem = self._problem
        rows, ids = cupy.from_dlpack(_half(problem.rows)), None
        if problem.mask is not None:
            ids = cupy.flatnonzero(cupy.from_dlpack(problem.mask.to(torch.uint8)))
            rows = rows[ids]
        ranks = None if problem.ranks is None else cupy.from_dlpack(problem.ranks)
        found = []
        for part, bounds in problem.parts(turn, len(rows)):
            scores = cupy.from_dlpack(part.half()) @ rows.T
            if bounds is not None:
                low, high = (cupy.from_dlpack(one)[:, None] for one in bounds)
                scores[(ranks < low) | (ranks >= high)] = -cupy.inf
            found.append(greatest(cupy, scores, problem.k))
        places = cupy.concatenate(found)
        return torch.from_dlpack(places if ids is None else ids[places])


def greatest(library: Any, scores: Any, k: int) -> Any:
    """Return the places of the k greatest scores of each row, of CuPy or NumPy, in any order.

    CuPy's argpartition sorts all that it gets. The k greatest are in the k groups of the greatest
    maxima, so that it gets these alone.
    """
    count, columns = scores.shape
    k, groups = min(k, columns), columns // _GROUP
    if groups <= k:
        return library.argpartition(-scores, k - 1, axis=1)[:, :k]
    inside = groups * _GROUP
    highest = scores[:, :inside].reshape(count, groups, _GROUP).max(axis=2)
    best = library.argpartition(-highest, k - 1, axis=1)[:, :k]
    places = (best[:, :, None] * _GROUP + library.arange(_GROUP)).reshape(count, -1)
    rest = library.broadcast_to(library.arange(inside, columns), (count, columns - inside))
    places = library.concatenate([places, rest], axis=1)
    found = library.take_along_axis(scores, places, axis=1)
    order = library.argpartition(-found, k - 1, axis=1)[:, :k]
    return library.take_along_axis(places, order, axis=1)


@functools.cache
def _jitted() -> Any:
    import jax

    def best(scores: Any, queries: Any, rows: Any, k: int) -> Any:
        kept = min(_KEPT * k, scores.shape[1])
        seen, places = jax.lax.approx_max_k(scores, kept, recall_target=0.95)
        anew = jax.numpy.einsum(
            "qd,qkd->qk", queries, rows[places], preferred_element_type=jax.numpy.float32
        )
        anew = jax.numpy.where(seen == -jax.numpy.inf, -jax.numpy.inf, anew)
        order = jax.lax.top_k(anew, k)[1]
        return jax.numpy.take_along_axis(places, order, axis=1)

    # Arrays that these closed over would be constants, which compilers copy and compute with.
    def all_rows(queries: Any, rows: Any, k: int) -> Any:
        return best(queries @ rows.T, queries, rows, k)

    def some_rows(queries: Any, rows: Any, ids: Any, k: int) -> Any:
        passing = rows[ids]
        return ids[best(queries @ passing.T, queries, passing, k)]

    def windows(queries: Any, rows: Any, ranks: Any, low: Any, high: Any, k: int) -> Any:
        inside = (ranks >= low[:, None]) & (ranks < high[:, None])
        scores = jax.numpy.where(inside, queries @ rows.T, -jax.numpy.inf)
        return best(scores, queries, rows, k)

    return [jax.jit(one, static_argnames="k") for one in (all_rows, some_rows, windows)]


class _OfJax:
    """Products and JAX's own approximate top-k, compiled together."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def __call__(self, turn: int) -> torch.Tensor:
        import jax
        import jax.dlpack

        problem, seen = self._problem, jax.dlpack.from_dlpack
        all_rows, some_rows, windows = _jitted()
        rows, k, found = seen(problem.rows), min(problem.k, problem.passing), []
        ids = None
        if problem.mask is not None:
            ids = jax.numpy.flatnonzero(seen(problem.mask.to(torch.uint8)))
        columns = len(problem.rows) if ids is None else len(ids)
        for part, bounds in problem.parts(turn, 2 * columns):  # what it sorts is there twice
            queries = seen(part.contiguous())
            if bounds is not None:
                limits = [seen(one.contiguous()) for one in bounds]
                found.append(windows(queries, rows, seen(problem.ranks), *limits, k=k))
            elif ids is not None:
                found.append(some_rows(queries, rows, ids, k=k))
            else:
                found.append(all_rows(queries, rows, k=k))
        for one in found:
            one.block_until_ready()
        return torch.cat([torch.from_dlpack(one) for one in found])
