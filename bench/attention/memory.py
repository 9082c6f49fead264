# SPDX-License-Identifier: Apache-2.0
"""Memory beyond the inputs of forward and backward, each measured in a process of its own.

python bench/attention/memory.py METHOD B L d m DTYPE THREADS
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OURS = "embedcore"
# Of the input: its own gradient, and a little; and four bytes for each head of a token.
ALLOWED_SHARE, ALLOWED_BYTES_PER_SCORE = 1.05, 4


def _training(method: str, problem: Any) -> Callable[[], Any]:
    from bench.attention import peers, tasks

    if method == OURS:
        return tasks.ours_training(problem)
    if method == peers.SDPA:
        return peers.sdpa(problem, True)
    form = peers.heads_first() if method == peers.HEADS_FIRST else peers.tokens_first()
    return peers.run_of(form, problem, True)


def _child(arguments: list[str]) -> None:
    sys.path.insert(0, str(ROOT))
    from bench.attention import data
    from bench.resident import peak_bytes, reset_peak
    from bench.timing import thread_limit

    method, dtype = arguments[0], arguments[5]
    sequences, tokens, columns, heads, threads = (int(arguments[i]) for i in (1, 2, 3, 4, 6))
    with thread_limit(threads):
        small = data.make(2, 64, columns, heads, dtype)
        _training(method, small)()
        problem = data.make(sequences, tokens, columns, heads, dtype)
        data.hidden.cache_clear()
        run = _training(method, problem)
        reset_peak()
        before, start = peak_bytes(), time.perf_counter()
        found = run()
        seconds = time.perf_counter() - start
        extra = peak_bytes() - before
    input_bytes = problem.tokens.numel() * problem.tokens.element_size()
    assert len(found) > 0
    print(json.dumps({"seconds": seconds, "extra_bytes": extra, "input_bytes": input_bytes}))


def _measure(*arguments: Any) -> Any:
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def runs_of(mode: str) -> list[tuple[str, tuple[int, int, int, int], str]]:
    """Return the method, the shape (B, L, d, m) and the dtype of each run."""
    from bench.attention.peers import EAGER, HEADS_FIRST, SDPA

    if mode == "smoke":
        return [(OURS, (4, 64, 32, 4), "float32")]
    if mode == "quick":
        return [(method, (16, 1024, 768, 8), "float32") for method in (OURS, EAGER)]
    every, some = (OURS, EAGER, HEADS_FIRST, SDPA), (OURS, EAGER)
    return [
        *((method, (32, 2048, 768, 8), "float32") for method in every),
        *((method, (32, 2048, 768, 32), "float32") for method in some),
        *((method, (32, 2048, 768, 8), "bfloat16") for method in some),
        *((method, (32, 2048, 768, 32), "bfloat16") for method in some),
    ]


def measure(mode: str, threads: int, show: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run all of a mode; an entry of our own says what is allowed."""
    records: list[dict[str, Any]] = []
    for method, shape, dtype in runs_of(mode):
        title = f"{method} {' x '.join(map(str, shape[:3]))}, m {shape[3]}, {dtype}"
        show(f"memory: {title}")
        found = _measure(method, *shape, dtype, threads)
        if method == OURS:
            scores = shape[0] * shape[1] * shape[3]
            found["allowed_bytes"] = int(
                ALLOWED_SHARE * found["input_bytes"] + ALLOWED_BYTES_PER_SCORE * scores
            )
        records.append({"title": title, "method": method, "threads": threads, **found})
    return records


if __name__ == "__main__":
    _child(sys.argv[1:])
