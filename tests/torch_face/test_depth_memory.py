# SPDX-License-Identifier: Apache-2.0
"""`torch.depth_score` holds no distance matrix, in neither direction."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch")

ROWS = 6000

# Peaks only rise, so the smallest of them comes first: imports, then every metric on few rows.
PROGRAM = """
import resource, sys
import torch
from embedcore.torch import depth_score

def run(rows, dtype, metrics=("cosine", "chord", "arc", "l2", "spatial", "mahalanobis")):
    for metric in metrics:
        x = torch.randn(rows, 8, dtype=dtype, requires_grad=True)
        corpus = torch.randn(rows, 8, dtype=dtype, requires_grad=True)
        weights = torch.rand(rows, dtype=dtype).requires_grad_()
        depth_score(x, corpus, metric=metric, weights=weights, threads=1).sum().backward()
        if metric in ("l2", "spatial"):
            depth_score(x, metric=metric, threads=1).sum().backward()

torch.set_num_threads(1)
run(50, torch.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(int(sys.argv[1]), torch.float32)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
run(int(sys.argv[1]), torch.float64, ["spatial"])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux")
def test_no_matrix_of_pairs_is_held() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROWS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    narrow, wide = (int(line) for line in done.stdout.split())
    assert narrow < ROWS * ROWS * 4 / 3
    assert wide < ROWS * ROWS * 8 / 3
