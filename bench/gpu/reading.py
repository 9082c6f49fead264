# SPDX-License-Identifier: Apache-2.0
"""A kernel that only reads, in Triton: what a single pass over an array can reach at best."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

_BLOCK, _STEPS = 2048, 8  # numbers that a program loads at once, and how often


@triton.jit
def _fold(source, folded, count, BLOCK: tl.constexpr, STEPS: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0).to(tl.int64) * (BLOCK * STEPS) + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.int32)
    for step in tl.static_range(STEPS):
        place = at + step * BLOCK
        total = total ^ tl.load(source + place, mask=place < count, other=0)
    tl.store(folded + tl.program_id(0), tl.xor_sum(total, 0))


def read(numbers: torch.Tensor, folded: list[Any]) -> torch.Tensor:
    """Read a contiguous int32 array; `folded` keeps what is written to, a number a program."""
    programs = triton.cdiv(numbers.numel(), _BLOCK * _STEPS)
    if not folded:
        folded.append(torch.empty(programs, dtype=torch.int32, device=numbers.device))
    _fold[(programs,)](numbers, folded[0], numbers.numel(), BLOCK=_BLOCK, STEPS=_STEPS, num_warps=4)
    return folded[0]
