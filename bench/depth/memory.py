# SPDX-License-Identifier: Apache-2.0
"""Memory beyond the inputs, measured from outside: each call runs in a process of its own.

python bench/depth/memory.py FILE.npy FILE.npy|- METRIC PRECISION THREADS
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ALLOWED_BEYOND_INPUTS = 64 << 20


def _child(arguments: list[str]) -> None:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from embedcore import depth

    from bench.resident import peak_bytes, reset_peak

    x_file, corpus_file, metric, precision, threads = arguments
    x = np.load(x_file)
    corpus = None if corpus_file == "-" else np.load(corpus_file)
    small = x[:64]
    depth.score(small, metric=metric, precision=precision, threads=int(threads))
    reset_peak()
    before, start = peak_bytes(), time.perf_counter()
    depth.score(x, corpus, metric=metric, precision=precision, threads=int(threads))
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "extra_bytes": peak_bytes() - before}))


def _measure(x: Path, corpus: Path | None, metric: str, precision: str, threads: int) -> Any:
    command = [
        sys.executable,
        __file__,
        str(x),
        str(corpus or "-"),
        metric,
        precision,
        str(threads),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def runs_of(mode: str, threads: int) -> list[tuple[str, str, int, int | None, int]]:
    """Return metric, precision, n, m and threads of each run."""
    if mode == "smoke":
        return [("arc", "float32", 300, None, 1)]
    n = 10_000
    found: list[tuple[str, str, int, int | None, int]] = [
        ("arc", "float32", n, n, threads),
        ("arc", "float32", n, None, threads),
        ("arc", "int8", n, n, threads),
        ("cosine", "float32", n, n, threads),
    ]
    if mode == "full":
        found += [("l2", "float32", n, n, threads), ("spatial", "float32", n, n, threads)]
        found += [
            ("arc", precision, 100_000, None, threads)
            for precision in ("float32", "bfloat16", "int8")
        ]
    return found


def measure(
    mode: str, threads: int, show: Callable[[str], None] = lambda title: None
) -> list[dict[str, Any]]:
    """Run all of a mode; extra memory may be the size of the inputs and 64 MiB."""
    from bench.depth.data import pool

    records: list[dict[str, Any]] = []
    for metric, precision, n, m, count in runs_of(mode, threads):
        title = f"memory: {metric} {precision} {n:,} x {'self' if m is None else format(m, ',')}"
        show(title)
        rows = pool("made", n + (m or 0), 384)
        with tempfile.TemporaryDirectory(prefix="embedcore-bench-") as folder:
            x_file, corpus_file = Path(folder) / "x.npy", Path(folder) / "corpus.npy"
            np.save(x_file, rows[:n])
            if m is not None:
                np.save(corpus_file, rows[n:])
            found = _measure(x_file, None if m is None else corpus_file, metric, precision, count)
        records.append(
            {
                "metric": metric,
                "precision": precision,
                "n": n,
                "m": m,
                "d": 384,
                "threads": count,
                "input_bytes": rows.nbytes,
                "allowed_bytes": rows.nbytes + ALLOWED_BEYOND_INPUTS,
                **found,
            }
        )
    return records


if __name__ == "__main__":
    _child(sys.argv[1:])
