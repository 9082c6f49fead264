# SPDX-License-Identifier: Apache-2.0
"""NumPy's and SciPy's ways to the same depths, each at its best, and the floors.

Rows under the angular metrics have unit length already, so that peers need not normalise; embedcore
does. Arrays of results that do not fit a cache are allocated and touched before the clock starts.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bench.depth.exact import Problem
from bench.timing import Contestant, optional

TILE = 512  # rows and columns of a tile: 1 MiB of float32
SLOW_PAIRS = 200_000  # pairs of rows that a contestant with a slow loop computes
LOOP_PAIRS = 20_000  # the same for a loop in Python

Run = Callable[[], Any]


def square_lengths(rows: Any) -> Any:
    """Return x'x of each row."""
    return np.einsum("ij,ij->i", rows, rows)


def finish_numpy(metric: str, products: Any, x2: Any, r2: Any) -> Any:
    """Turn products into distances, in place."""
    if metric == "arc":
        np.clip(products, -1.0, 1.0, out=products)
        return np.arccos(products, out=products)
    products *= -2.0
    if metric == "chord":
        products += 2.0
    else:
        products += x2
        products += r2
    np.maximum(products, 0.0, out=products)
    return np.sqrt(products, out=products)


def close(problem: Problem, sums: Any) -> Any:
    """Turn sums of distances into depths."""
    mean = sums / (len(problem.reference) - (problem.corpus is None))
    if problem.metric == "l2":
        return 1.0 / (1.0 + mean)
    return (np.pi if problem.metric == "arc" else 2.0) - mean


def _sum_tile(problem: Problem, norms: Any, i: int, j: int, width: int, buffer: Any) -> Any:
    x, r = problem.x[i : i + TILE], problem.reference[j : j + width]
    products = np.matmul(x, r.T, out=buffer[: len(x) * len(r)].reshape(len(x), len(r)))
    finish_numpy(
        problem.metric, products, norms[0][i : i + TILE, None], norms[1][None, j : j + width]
    )
    if problem.corpus is None and i < j + width and j < i + TILE:
        own = np.arange(max(i, j), min(i + len(x), j + len(r)))
        products[own - i, own - j] = 0.0
    return products.sum(axis=1)


def numpy_tiles(problem: Problem, threads: int, width: int | None = None) -> Run:
    """Tiles of the product, `width` columns wide, dealt to Python threads with one BLAS thread."""
    columns = len(problem.reference)
    step = width or columns
    buffers = [np.zeros(TILE * step, np.float32) for _ in range(threads)]

    def strip(worker: int) -> list[tuple[int, Any]]:
        found = []
        for i in range(worker * TILE, len(problem.x), threads * TILE):
            tiles = (
                _sum_tile(problem, norms, i, j, step, buffers[worker])
                for j in range(0, columns, step)
            )
            found.append((i, sum(tiles)))
        return found

    norms = (square_lengths(problem.x), square_lengths(problem.reference))

    in_threads = _spread(strip, threads)

    def run() -> Any:
        sums = np.empty(len(problem.x), np.float32)
        for strips in in_threads():
            for i, values in strips:
                sums[i : i + len(values)] = values
        return close(problem, sums)

    return run


def _spread(work: Callable[[int], Any], threads: int) -> Run:
    """Return what runs `work` of 0..threads-1 at once, BLAS with one thread in each."""
    if threads == 1:
        return lambda: [work(0)]
    threadpoolctl = optional("threadpoolctl")
    if threadpoolctl is None:
        return lambda: [work(i) for i in range(threads)]  # BLAS alone has threads then
    controller = threadpoolctl.ThreadpoolController().select(user_api="blas")
    workers = ThreadPoolExecutor(threads)

    def run() -> Any:
        with controller.limit(limits=1):
            return list(workers.map(work, range(threads)))

    return run


def numpy_cosine(problem: Problem) -> Run:
    """Through the mean: two matrix-vector products."""

    def run() -> Any:
        rows = problem.reference
        total = np.ones(len(rows), rows.dtype) @ rows
        dots = problem.x @ total
        if problem.corpus is None:
            return 1.0 + (dots - 1.0) / (len(rows) - 1)
        return 1.0 + dots / len(rows)

    return run


def numpy_spatial(problem: Problem) -> Run:
    """Two products for each chunk of rows: inverse distances, and those times the corpus."""
    x2, r2 = square_lengths(problem.x), square_lengths(problem.reference)
    corpus = problem.reference
    buffer = np.zeros((TILE, len(corpus)), np.float32)

    def run() -> Any:
        result = np.empty(len(problem.x), np.float32)
        for i in range(0, len(result), TILE):
            x = problem.x[i : i + TILE]
            inverse = np.matmul(x, corpus.T, out=buffer[: len(x)])
            finish_numpy("l2", inverse, x2[i : i + TILE, None], r2[None])
            if problem.corpus is None:
                inverse[np.arange(len(x)), np.arange(i, i + len(x))] = np.inf
            np.reciprocal(inverse, out=inverse)
            mean = (x * inverse.sum(axis=1)[:, None] - inverse @ corpus) / (
                len(corpus) - (problem.corpus is None)
            )
            result[i : i + TILE] = 1 - np.sqrt(square_lengths(mean))
        return result

    return run


def numpy_directional(problem: Problem) -> Run:
    """Project once; then sort and search each direction, or take its medians."""
    along = problem.directions.astype(np.float32)
    count = len(problem.corpus)

    def run() -> Any:
        own, values = along @ problem.x.T, along @ problem.corpus.T
        if problem.metric == "projection":
            centre = np.median(values, axis=1, keepdims=True)
            values -= centre
            spread = np.median(np.abs(values, out=values), axis=1, keepdims=True)
            return 1 / (1 + (np.abs(own - centre) / spread).max(axis=0))
        values.sort(axis=1)
        best = np.full(len(problem.x), count)
        total = np.zeros(len(problem.x), np.int64)
        for mine, sorted_values in zip(own, values, strict=True):
            below = np.searchsorted(sorted_values, mine, side="right")
            above = count - np.searchsorted(sorted_values, mine, side="left")
            tail = np.minimum(below, above)
            np.minimum(best, tail, out=best)
            total += tail
        return best / count if problem.metric == "halfspace" else total / count / len(along)

    return run


def scipy_cdist(problem: Problem) -> tuple[Run, float]:
    """Float64 distance matrices, as the unreleased head of tte-depth computes them."""
    from scipy.spatial.distance import cdist

    rows = _part(problem, SLOW_PAIRS)
    count = len(problem.reference) - (problem.corpus is None)

    def run() -> Any:
        if problem.metric == "l2":
            distances = cdist(problem.x[:rows], problem.reference)
        else:
            distances = cdist(problem.x[:rows], problem.reference, "cosine")
            if problem.metric == "chord":
                distances = np.sqrt(np.maximum(2 * distances, 0.0))
        mean = distances.sum(axis=1) / count
        return 1 / (1 + mean) if problem.metric == "l2" else 2 - mean

    return run, len(problem.x) / rows


def python_loop(problem: Problem) -> tuple[Run, float]:
    """One Python call a pair, as tte-depth 1.0.0 computes its distances."""
    from scipy.spatial import distance

    rows = _part(problem, LOOP_PAIRS)
    count = len(problem.reference) - (problem.corpus is None)

    def chord(a: Any, b: Any) -> Any:
        return np.sqrt(max(2 * (1 - np.dot(a, b)), 0.0))

    of_pair = distance.cosine if problem.metric == "cosine" else chord

    def run() -> Any:
        sums = [sum(of_pair(a, b) for b in problem.reference) for a in problem.x[:rows]]
        return 2 - np.array(sums) / count

    return run, len(problem.x) / rows


def _part(problem: Problem, pairs: int) -> int:
    return int(min(len(problem.x), max(1, pairs // len(problem.reference))))


def data_depth(problem: Problem) -> tuple[Run, float]:
    """Depths of a few rows by data-depth, which has a loop in Python over the rows of x."""
    from depth.model import multivariate

    rows = min(len(problem.x), 2)
    x, corpus = problem.x[:rows].astype(np.float64), problem.corpus.astype(np.float64)
    count = 0 if problem.directions is None else len(problem.directions)

    def run() -> Any:
        if problem.metric == "l2":
            return multivariate.L2(x, corpus, mah_estimate="none")
        if problem.metric == "spatial":
            return multivariate.spatial(x, corpus, mah_estimate="none")
        options = {"solver": "simplerandom", "NRandom": count}
        if problem.metric == "projection":
            return multivariate.projection(x, corpus, **options)
        return multivariate.halfspace(x, corpus, exact=False, **options)

    return run, len(problem.x) / rows


def sklearn_chunks(problem: Problem) -> Run:
    """Its own chunked distances, reduced as they come."""
    from sklearn.metrics import pairwise_distances_chunked

    metric = "cosine" if problem.metric == "cosine" else "euclidean"

    def run() -> Any:
        parts = pairwise_distances_chunked(
            problem.x,
            problem.reference,
            reduce_func=lambda distances, start: distances.sum(axis=1),
            metric=metric,
            working_memory=64,
        )
        return close(problem, np.concatenate(list(parts)))

    return run


def numpy_peers(problem: Problem, threads: int, wanted: frozenset[str]) -> list[Contestant]:
    """Return NumPy's, SciPy's and the depth packages' contestants for a problem."""
    metric, found = problem.metric, []

    def add(name: str, run: Run, scale: float = 1.0, comparable: bool = True) -> None:
        found.append(Contestant(name, "peer", run, scale, comparable))

    if metric == "cosine":
        add("NumPy mean", numpy_cosine(problem))
    elif metric in ("arc", "chord", "l2"):
        add("NumPy chunks", numpy_tiles(problem, threads))
        add("NumPy tiles", numpy_tiles(problem, threads, TILE))
    elif metric == "spatial":
        add("NumPy chunks", numpy_spatial(problem))
    else:
        add("NumPy sort", numpy_directional(problem))
    if "slow" not in wanted:
        return found
    if metric in ("cosine", "chord", "l2") and optional("scipy.spatial") is not None:
        add("SciPy cdist (tte-depth head)", *scipy_cdist(problem))
        if metric != "l2":
            add("tte-depth 1.0.0 loop", *python_loop(problem))
    if metric in ("cosine", "chord", "l2") and optional("sklearn.metrics") is not None:
        add("scikit-learn", sklearn_chunks(problem))
    directional = problem.directions is not None
    if (metric in ("l2", "spatial") or (directional and metric != "irw")) and optional(
        "depth.model"
    ) is not None:
        add("data-depth", *data_depth(problem), comparable=not directional)
    return found
