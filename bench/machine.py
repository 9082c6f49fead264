# SPDX-License-Identifier: Apache-2.0
"""The machine, the build and the versions behind a set of figures, and what the machine can do."""

from __future__ import annotations

import os
import platform
import re
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import embedcore
import numpy as np

from bench import peak
from bench.commit import commit
from bench.timing import thread_limit

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "numpy", "scipy", "torch", "scikit-learn", "data-depth", "threadpoolctl", "faiss-cpu",
    "hnswlib", "usearch", "scalable-vs", "pynndescent", "qdrant-edge-py", "zvec",
)  # fmt: skip
_DEFAULT_CACHE = 32 << 20


def processor() -> dict[str, str]:
    """Return the fields of the first processor, where the system shows them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return {}
    first = text.split("\n\n", maxsplit=1)[0]
    pairs = (line.split(":", maxsplit=1) for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def processor_flags() -> set[str]:
    """Return the names of the instruction sets that the system reports."""
    fields = processor()
    return set((fields.get("flags") or fields.get("Features") or "").split())


def cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_bytes() -> int:
    """Return the size of the last cache."""
    sizes = []
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        match = re.fullmatch(r"(\d+)([KM])", file.read_text().strip())
        if match:
            sizes.append(int(match[1]) << (10 if match[2] == "K" else 20))
    return max(sizes, default=_DEFAULT_CACHE)


def machine_name() -> str:
    """Return a folder name: the processor's model and the number of cores."""
    fields = processor()
    model = fields.get("model name") or platform.processor() or platform.machine()
    family = "-".join(fields[key] for key in ("cpu family", "model") if key in fields)
    words = re.sub(r"\(\w+\)|CPU|Processor|@.*", " ", f"{model} {family}").lower()
    return re.sub(r"[^a-z0-9]+", "-", f"{words} {cores()} cores").strip("-")


def _kernel_flags() -> str:
    """Return the flags of the current instruction set, from the build files of the checkout."""
    try:
        text = (ROOT / "csrc" / "cmake" / "isa.cmake").read_text(encoding="ascii")
    except OSError:
        return "unknown"
    known = {
        name: re.sub(r"\s+", " ", value).strip().strip('"')
        for name, value in re.findall(r"set\(EC_(\w+)\s+([^)]*)\)", text)
    }

    def flags(name: str) -> str:  # of one set by way of another
        return re.sub(r"\$\{EC_(\w+)\}", lambda found: flags(found[1]), known.get(name, ""))

    return f"{flags('KERNEL_FLAGS')} {flags(f'ISA_FLAGS_{embedcore.get_isa()}')}".strip()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def _blas() -> str:
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "unknown"
    libraries = [entry for entry in threadpool_info() if entry["user_api"] == "blas"]
    return ", ".join(
        f"{entry['internal_api']} {entry['version']} ({entry.get('architecture', 'unknown')})"
        for entry in libraries
    )


def _environment() -> dict[str, str]:
    """Return the variables that steer embedcore, BLAS, OpenMP and Torch."""
    steering = ("EMBEDCORE_", "OPENBLAS_", "MKL_", "OMP_", "GOMP_", "ATEN_", "ONEDNN_", "NPY_")
    found = sorted(os.environ.items())
    # Of a file its name: where it lies says nothing.
    return {name: Path(value).name for name, value in found if name.startswith(steering)}


def record() -> dict[str, Any]:
    """Return all that the figures depend on, but the floors."""
    facts = embedcore.show_config("dict")
    return {
        "name": machine_name(),
        "processor": processor().get("model name", platform.machine()),
        "cores": cores(),
        "last_cache_bytes": cache_bytes(),
        "system": f"{platform.system()} {platform.release()}",
        "embedcore": facts["version"],
        "commit": commit(),
        "build": facts["build"],
        "kernel_flags": _kernel_flags(),
        "isa": facts["isa"]["current"],
        "blas": _blas(),
        "versions": _versions(),
        "environment": _environment(),
    }


def measure_floors(size_bytes: int = 256 << 20, repeats: int = 7) -> dict[str, dict[str, float]]:
    """Return the best rates of reading and multiplying, by number of threads.

    Reading: of an array that no cache holds, in the fastest of several ways. Multiplying: float32
    products of square matrices whose tiles stay in a cache and, where there is a C compiler,
    multiply-adds that stay in registers.
    """
    rows = np.ones(size_bytes // 4, np.float32)
    side = 2048 if size_bytes >= 64 << 20 else 256
    a, out = np.ones((side, side), np.float32), np.ones((side, side), np.float32)
    found: dict[str, dict[str, float]] = {}
    for threads in sorted({1, cores()}):
        with thread_limit(threads), ThreadPoolExecutor(threads) as workers:
            parts = np.array_split(rows, threads)
            words = [part.view(np.uint32) for part in parts]
            seconds = min(
                _best(lambda parts=parts: list(workers.map(np.maximum.reduce, parts)), repeats),
                _best(lambda words=words: list(workers.map(np.add.reduce, words)), repeats),
                _best(lambda: np.dot(rows, rows), repeats),
            )
            multiply = _best(lambda: np.matmul(a, a, out=out), repeats)
        found[str(threads)] = {
            "read_gb_per_s": rows.nbytes / seconds / 1e9,
            "sgemm_gflop_per_s": 2 * side**3 / multiply / 1e9,
            **peak.rates(threads, repeats),
        }
    return found


def _best(run: Any, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)
