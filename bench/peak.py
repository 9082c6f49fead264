# SPDX-License-Identifier: Apache-2.0
"""The rates that no kernel can exceed, from peak.c, compiled for this machine when first needed."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("peak.c")
FLAGS = ("-O3", "-ffp-contract=fast", "-shared", "-fPIC")
SHORTEST_SECONDS = 0.004
KINDS = ("fma", "dot", "tile")


@lru_cache(maxsize=1)
def library() -> Any:
    """Return the compiled loops, or None where there is no C compiler that can compile them."""
    compilers = (os.environ.get("CC"), "cc", "gcc", "clang")
    compiler = next((found for found in compilers if found and shutil.which(found)), None)
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory(prefix="embedcore-bench-") as folder:
        file = Path(folder) / "peak.so"
        for machine in ("-march=native", "-mcpu=native"):
            command = [compiler, *FLAGS, machine, str(SOURCE), "-o", str(file)]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return _declared(ctypes.CDLL(str(file)))
    return None


def _declared(loaded: Any) -> Any:
    for name in KINDS:
        getattr(loaded, f"{name}_flops_per_round").restype = ctypes.c_double
        getattr(loaded, f"{name}_rounds").argtypes = [ctypes.c_size_t]
        getattr(loaded, f"{name}_rounds").restype = None
    loaded.read_bytes.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    loaded.read_bytes.restype = None
    return loaded


@lru_cache(maxsize=4)
def workers(threads: int) -> ThreadPoolExecutor:
    """Return threads that wait without spinning; calls of the library run in them at once."""
    return ThreadPoolExecutor(threads)


def multiply_add(kind: str, flops: float, threads: int) -> Callable[[], None] | None:
    """Return what does at least so many float operations; None without the instruction.

    `kind`: "fma", float32; "dot", products of bfloat16 pairs added to float32; "tile", of
    matrices of bfloat16 in tile registers.
    """
    loaded = library()
    of_round = getattr(loaded, f"{kind}_flops_per_round")() if loaded is not None else 0.0
    if of_round == 0.0:
        return None
    run = getattr(loaded, f"{kind}_rounds")
    rounds = max(1, round(flops / threads / of_round))
    if threads == 1:
        return lambda: run(rounds)
    return _all_at_once(run, [(rounds,)] * threads)


def read(address: int, size_bytes: int, count: int, threads: int) -> Callable[[], None] | None:
    """Return what reads memory `count` times, each thread its own part."""
    loaded = library()
    if loaded is None:
        return None
    part = size_bytes // threads
    if threads == 1:
        return lambda: loaded.read_bytes(address, part, count)
    parts = [(address + i * part, part, count) for i in range(threads)]
    return _all_at_once(loaded.read_bytes, parts)


def _all_at_once(
    run: Callable[..., None], arguments: Sequence[tuple[int, ...]]
) -> Callable[[], None]:
    def call() -> None:
        list(workers(len(arguments)).map(lambda own: run(*own), arguments))

    return call


def rates(threads: int, repeats: int = 7) -> dict[str, float]:
    """Return the best rates of multiplying and adding, in GF/s; empty without a compiler."""
    found = {}
    for kind in KINDS:
        flops = 1e9 * threads
        run = multiply_add(kind, flops, threads)
        if run is None:
            continue
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        found[f"{kind}_gflop_per_s"] = flops / min(times) / 1e9
    return found
