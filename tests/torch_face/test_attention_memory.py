# SPDX-License-Identifier: Apache-2.0
"""`torch.low_rank_attention` holds one array of the size of the tokens: their gradient."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("torch")

HEADS = 8
SHAPE = (16, 1024, 1024)

# Peaks only rise: imports and a small call come first, then the forward, then both directions.
PROGRAM = """
import json, resource, sys
import torch
from embedcore.torch import low_rank_attention

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def run(key, context):
    query, P = (torch.randn(key.shape[-1], heads, requires_grad=True) for _ in range(2))
    out = low_rank_attention(
        key, query, context=context, P=None if context is None else P, activation="tanh",
        norm="l2", temperature=0.1, threads=1,
    )
    forward = peak()
    out.sum().backward()
    return forward

torch.set_num_threads(1)
context, heads, *shape = json.loads(sys.argv[1])
run(torch.randn(2, 64, 1024, requires_grad=True), context)
key = torch.ones(shape, requires_grad=True)
before = peak()
forward = run(key, context)
print(forward - before, peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux")
@pytest.mark.parametrize("context", [None, "mean"], ids=["no context", "mean context"])
def test_peak_memory(context: str | None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([context, HEADS, *SHAPE])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    forward, both = (int(field) for field in done.stdout.split())
    sequences, tokens, columns = SHAPE
    size = 4 * sequences * tokens * columns
    scores = 4 * HEADS * sequences * tokens
    assert forward <= 0.05 * size + scores
    assert both <= 1.05 * size + scores
