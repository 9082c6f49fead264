# SPDX-License-Identifier: Apache-2.0
"""What the device can do, measured in the same run: bytes a second, and products of matrices."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator
from typing import Any

import torch

from bench.gpu.timing import elapsed


def measure_floors(device: torch.device, *, size: int, side: int) -> dict[str, float]:
    """Return rates: GB/s of copies (read + written) and of reads, TFLOP/s of square products."""
    source = torch.ones(size // 4, device=device)
    to = torch.empty_like(source)
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    a16, b16 = a.bfloat16(), b.bfloat16()
    flops = 2.0 * side**3

    def rate(work: float, call: Any) -> float:
        for _ in range(3):
            call(0)
        return work / statistics.median(elapsed(call, 5, device) for _ in range(7))

    found = {
        "copy_gb_per_s": rate(2 * source.nbytes, lambda _: to.copy_(source)) / 1e9,
        "read_gb_per_s": rate(source.nbytes, lambda _: source.sum()) / 1e9,
        "bfloat16_tflop_per_s": rate(flops, lambda _: a16 @ b16) / 1e12,
    }
    with full_float32():
        found["float32_tflop_per_s"] = rate(flops, lambda _: a @ b) / 1e12
    return found


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Keep products of float32 matrices out of TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
