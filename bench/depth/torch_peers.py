# SPDX-License-Identifier: Apache-2.0
"""Torch's ways to the same depths: chunked, tiled, compiled and in bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from bench.depth.exact import Problem
from bench.depth.peers import close
from bench.timing import Contestant, optional

CHUNK = 1024
TILE = 512

Run = Callable[[], Any]


def _distances(torch: Any, metric: str, products: Any, x2: Any, r2: Any) -> Any:
    if metric == "arc":
        return products.clamp_(-1.0, 1.0).acos_()
    if metric == "chord":
        return products.mul_(-2.0).add_(2.0).clamp_(min=0.0).sqrt_()
    return products.mul_(-2.0).add_(x2).add_(r2).clamp_(min=0.0).sqrt_()


def _blocks(problem: Problem, width: int, reduced: bool) -> Run:
    """Blocks of CHUNK (or TILE) rows and `width` columns; products in bfloat16 where `reduced`."""
    torch = optional("torch")
    x, corpus = torch.from_numpy(problem.x), torch.from_numpy(problem.reference)
    x2, r2 = (x * x).sum(1)[:, None], (corpus * corpus).sum(1)[None]
    height = CHUNK if width == len(corpus) else TILE
    buffer = torch.zeros(height * width)

    def block(a: Any, b: Any, i: int, j: int) -> Any:
        if reduced:
            products = (a[i : i + height] @ b[j : j + width].T).float()
        else:
            rows, columns = len(a[i : i + height]), len(b[j : j + width])
            products = buffer[: rows * columns].view(rows, columns)
            torch.mm(a[i : i + height], b[j : j + width].T, out=products)
        found = _distances(
            torch, problem.metric, products, x2[i : i + height], r2[:, j : j + width]
        )
        if problem.corpus is None and i < j + width and j < i + height:
            own = torch.arange(max(i, j), min(i + len(found), j + found.shape[1]))
            found[own - i, own - j] = 0.0
        return found.sum(1)

    def run() -> Any:
        a, b = (x.bfloat16(), corpus.bfloat16()) if reduced else (x, corpus)
        strips = [
            sum(block(a, b, i, j) for j in range(0, len(b), width))
            for i in range(0, len(a), height)
        ]
        return close(problem, torch.cat(strips).numpy())

    return run


def _compiled(problem: Problem) -> Run | None:
    """Chunks through torch.compile; None where it has no compiler to work with."""
    torch = optional("torch")
    x, corpus = torch.from_numpy(problem.x), torch.from_numpy(problem.reference)

    def chunk(part: Any, rows: Any) -> Any:
        products = part @ rows.T
        if problem.metric == "arc":
            return products.clamp(-1.0, 1.0).acos().sum(1)
        return (2.0 - 2.0 * products).clamp(min=0.0).sqrt().sum(1)

    torch._dynamo.reset()  # each number of threads gets code of its own
    fast = torch.compile(chunk, dynamic=False)
    try:
        fast(x[:CHUNK], corpus)
    except Exception:  # it fails in many ways, none of which is this bench's business
        return None

    def run() -> Any:
        strips = [fast(x[i : i + CHUNK], corpus) for i in range(0, len(x), CHUNK)]
        return close(problem, torch.cat(strips).numpy())

    return run


def _cdist(problem: Problem) -> Run:
    torch = optional("torch")
    x, corpus = torch.from_numpy(problem.x), torch.from_numpy(problem.reference)

    def run() -> Any:
        strips = [torch.cdist(x[i : i + CHUNK], corpus).sum(1) for i in range(0, len(x), CHUNK)]
        return close(problem, torch.cat(strips).numpy())

    return run


def _mean(problem: Problem) -> Run:
    torch = optional("torch")
    x, corpus = torch.from_numpy(problem.x), torch.from_numpy(problem.reference)

    def run() -> Any:
        dots = torch.mv(x, corpus.sum(0))
        if problem.corpus is None:
            return (1.0 + (dots - 1.0) / (len(corpus) - 1)).numpy()
        return (1.0 + dots / len(corpus)).numpy()

    return run


def _spatial(problem: Problem) -> Run:
    torch = optional("torch")
    x, corpus = torch.from_numpy(problem.x), torch.from_numpy(problem.reference)
    x2, r2 = (x * x).sum(1)[:, None], (corpus * corpus).sum(1)[None]
    buffer = torch.zeros(CHUNK, len(corpus))

    def run() -> Any:
        strips = []
        for i in range(0, len(x), CHUNK):
            part = x[i : i + CHUNK]
            inverse = torch.mm(part, corpus.T, out=buffer[: len(part)])
            _distances(torch, "l2", inverse, x2[i : i + CHUNK], r2)
            if problem.corpus is None:
                own = torch.arange(len(part))
                inverse[own, own + i] = float("inf")
            inverse.reciprocal_()
            gap = part * inverse.sum(1)[:, None] - inverse @ corpus
            strips.append(gap.norm(dim=1))
        return 1 - torch.cat(strips).numpy() / (len(corpus) - (problem.corpus is None))

    return run


def _directional(problem: Problem) -> Run:
    torch = optional("torch")
    x, corpus = torch.from_numpy(problem.x), torch.from_numpy(problem.corpus)
    along = torch.from_numpy(problem.directions).float()
    count = len(corpus)

    def run() -> Any:
        own, values = along @ x.T, along @ corpus.T
        if problem.metric == "projection":
            centre = values.quantile(0.5, dim=1, keepdim=True)
            spread = (values - centre).abs_().quantile(0.5, dim=1, keepdim=True)
            return (1 / (1 + ((own - centre).abs_() / spread).amax(0))).numpy()
        values = values.sort(dim=1).values
        below = torch.searchsorted(values, own, right=True)
        above = count - torch.searchsorted(values, own)
        tails = torch.minimum(below, above)
        if problem.metric == "halfspace":
            return (tails.amin(0) / count).numpy()
        return (tails.sum(0) / (count * len(along))).numpy()

    return run


@lru_cache(maxsize=1)
def bfloat16_is_fast() -> bool:
    """Whether this processor multiplies bfloat16: without that, Torch's bfloat16 only loses."""
    from bench.machine import processor_flags

    return bool({"avx512_bf16", "amx_bf16", "bf16"} & processor_flags())


def torch_peers(problem: Problem, wanted: frozenset[str]) -> list[Contestant]:
    """Return Torch's contestants for a problem, if Torch is installed."""
    if optional("torch") is None:
        return []
    metric, found = problem.metric, []

    def add(name: str, run: Run | None) -> None:
        if run is not None:
            found.append(Contestant(name, "peer", run))

    if metric == "cosine":
        add("Torch mean", _mean(problem))
    elif metric == "spatial":
        add("Torch chunks", _spatial(problem))
    elif problem.directions is not None:
        add("Torch sort", _directional(problem))
    else:
        add("Torch chunks", _blocks(problem, len(problem.reference), reduced=False))
        add("Torch tiles", _blocks(problem, TILE, reduced=False))
        if bfloat16_is_fast():
            add("Torch bfloat16", _blocks(problem, len(problem.reference), reduced=True))
        if metric == "l2":
            add("Torch cdist", _cdist(problem))
        elif "compile" in wanted and problem.corpus is not None:
            add("Torch compiled", _compiled(problem))
    return found
