# SPDX-License-Identifier: Apache-2.0
"""What no implementation can be expected to beat: reading the tokens, and multiplying them.

The floor of a case is the slower of the two, each timed beside the contestants. Forward: one pass
over the tokens and 4 d m operations for each; forward and backward: three passes (two that read,
one that writes the gradient, taken at the speed of reading) and 12 d m operations.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bench import peak
from bench.timing import Contestant, optional

READ, MULTIPLY = (
    "read",
    {
        "fma": "multiply-add",
        "dot": "bfloat16 dot product",
        "tile": "bfloat16 tiles",
    },
)
# Rates above those of any processor core so far: what is repeated lasts at least SHORTEST_SECONDS.
SHORTEST_SECONDS, BYTES_PER_SECOND = 0.004, 50e9
FLOPS_PER_SECOND = {"fma": 300e9, "dot": 600e9, "tile": 5e12}
_SIDE = 1024


def _times(amount: float, per_second: float, threads: int) -> int:
    return max(1, math.ceil(SHORTEST_SECONDS * per_second * threads / max(amount, 1.0)))


def reading(
    memory: Any, size_bytes: int, passes: int, threads: int, cold: bool
) -> list[Contestant]:
    """Read the first bytes of a Torch tensor, `passes` times."""
    again = 1 if cold else _times(size_bytes * passes, BYTES_PER_SECOND, threads)
    plain = memory.view(-1).view(dtype=optional("torch").int16)  # NumPy has no bfloat16
    words = plain.numpy().view(np.uint64)[: size_bytes // 8]

    def summed() -> None:
        for _ in range(passes * again):
            if threads == 1:
                np.add.reduce(words)
            else:
                list(peak.workers(threads).map(np.add.reduce, np.array_split(words, threads)))

    ways = {"NumPy sum": summed}
    loop = peak.read(memory.data_ptr(), size_bytes, passes * again, threads)
    if loop is not None:
        ways["loop"] = loop
    return [Contestant(f"{READ} ({way})", "floor", run, 1 / again) for way, run in ways.items()]


def multiplying(flops: float, dtype: str, threads: int) -> Contestant:
    """Do so many operations in registers; without a C compiler, in products of small matrices."""
    for kind in ("tile", "dot", "fma") if dtype == "bfloat16" else ("fma",):
        again = _times(flops, FLOPS_PER_SECOND[kind], threads)
        run = peak.multiply_add(kind, flops * again, threads)
        if run is not None:
            return Contestant(MULTIPLY[kind], "floor", run, 1 / again)
    a, out = np.ones((_SIDE, _SIDE), np.float32), np.ones((_SIDE, _SIDE), np.float32)
    products = math.ceil(flops / (2 * _SIDE**3))

    def multiply() -> None:
        for _ in range(products):
            np.matmul(a, a, out=out)

    return Contestant("SGEMM", "floor", multiply, flops / (2 * _SIDE**3 * products))


def floors(
    memory: Any, valid_tokens: int, heads: int, dtype: str, backward: bool, threads: int, cold: bool
) -> list[Contestant]:
    """Return the floors of attention over the valid tokens of a tensor (..., d)."""
    columns = memory.shape[-1]
    size = valid_tokens * columns * memory.element_size()
    found = reading(memory, size, 3 if backward else 1, threads, cold)
    if heads > 0:
        flops = (12.0 if backward else 4.0) * columns * heads * valid_tokens
        found.append(multiplying(flops, dtype, threads))
    return found
