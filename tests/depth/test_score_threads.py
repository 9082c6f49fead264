# SPDX-License-Identifier: Apache-2.0
"""`depth.score` on several threads: the same bits; progress, Ctrl-C, and forked processes."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from embedcore import depth
from embedcore.depth._metrics import METRICS

Array = np.ndarray[Any, Any]

NATIVE = [m for m in METRICS if m not in ("mahalanobis", "ai_irw")]
PRECISIONS = {"chord": ("float32", "bfloat16", "int8"), "arc": ("float32", "bfloat16", "int8")}


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def bits(depths: Any) -> bytes:
    return np.asarray(depths).tobytes()


@pytest.mark.parametrize("grouped", [False, True], ids=["one", "groups"])
@pytest.mark.parametrize("own", [False, True], ids=["corpus", "self"])
@pytest.mark.parametrize(("rows", "columns"), [(700, 33), (2000, 8)])
@pytest.mark.parametrize("metric", NATIVE)
def test_threads_do_not_show_in_the_bits(
    isa: str, metric: str, rows: int, columns: int, own: bool, grouped: bool
) -> None:
    x = normal(rows, columns) + 0.3
    x[5:40] = x[700 // 2] * np.linspace(1, 1.01, 35)[:, None]  # near pairs are taken exactly
    corpus = None if own else normal(rows, columns, seed=1)
    labels = np.random.default_rng(2).integers(0, 5, rows) if grouped else None
    weights = None if metric == "projection" else np.random.default_rng(3).random(rows)
    options: dict[str, Any] = {"metric": metric, "groups": labels, "weights": weights}
    if metric in ("halfspace", "projection", "irw"):
        options["n_directions"] = 60
    for precision in PRECISIONS.get(metric, ("float32",)):
        results = {
            bits(depth.score(x, corpus, precision=precision, threads=count, **options))
            for count in (1, 2, 7)
        }
        assert len(results) == 1


@pytest.mark.parametrize("metric", NATIVE)
def test_repeated_calls_give_the_same_bits(metric: str, thread_count: int) -> None:
    x = normal(900, 24).astype(np.float32)
    assert len({bits(depth.score(x, metric=metric)) for _ in range(5)}) == 1


@pytest.mark.parametrize("metric", METRICS)
def test_concurrent_calls(metric: str) -> None:
    problems = [normal(600, 16 + k, seed=k).astype(np.float32) for k in range(4)]
    alone = [bits(depth.score(x, metric=metric, threads=1)) for x in problems]
    with ThreadPoolExecutor(4) as pool:
        calls = [
            pool.submit(depth.score, problems[k % 4], metric=metric, threads=1 + k % 3)
            for k in range(16)
        ]
        got = [bits(call.result()) for call in calls]
    assert got == alone * 4


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("metric", ["arc", "spatial"])
def test_progress_rises(metric: str, precision: str) -> None:
    if metric == "spatial" and precision != "float32":
        pytest.skip("one precision")
    seen: list[float] = []
    callers: set[int] = set()

    def report(fraction: float) -> None:
        seen.append(fraction)
        callers.add(threading.get_ident())

    x = normal(9000, 256).astype(np.float32)
    got = depth.score(x, metric=metric, precision=precision, progress=report, threads=2)
    assert callers <= {threading.get_ident()}
    assert all(0 <= a <= b <= 1 for a, b in pairwise([0.0, *seen, 1.0]))
    assert bits(got) == bits(depth.score(x, metric=metric, precision=precision))


def test_an_exception_in_progress_stops_the_call() -> None:
    class StopError(Exception):
        pass

    def report(fraction: float) -> None:
        raise StopError(fraction)

    x = normal(12000, 384).astype(np.float32)
    for count in (1, 2, 7):
        start = time.monotonic()
        with pytest.raises(StopError):
            depth.score(x, metric="arc", progress=report, threads=count)
        assert time.monotonic() - start < 5
    assert np.isfinite(depth.score(x[:500], metric="arc")).all()


INTERRUPTED = """
import signal, sys, time
import numpy as np
from embedcore import depth

x = np.random.default_rng(0).standard_normal((60000, 256)).astype(np.float32)
long = {"n_directions": 20000} if sys.argv[1] in ("halfspace", "projection", "irw") else {}
small = depth.score(x[:300], metric=sys.argv[1])
signal.signal(signal.SIGALRM, signal.default_int_handler)
fired = time.monotonic() + 0.3
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    depth.score(x, metric=sys.argv[1], threads=int(sys.argv[2]), **long)
except KeyboardInterrupt:
    late = time.monotonic() - fired
else:
    raise SystemExit("the call was not interrupted")
assert depth.score(x[:300], metric=sys.argv[1]).tobytes() == small.tobytes()
print(late)
"""


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("metric", ["arc", "l2", "spatial", "halfspace", "projection", "irw"])
def test_an_interrupt_stops_a_long_call(metric: str, count: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, metric, str(count)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.5


def _score_in_child(metric: str, threads: int, to: Any) -> None:
    to.put(bits(depth.score(normal(800, 20), metric=metric, threads=threads)))


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("metric", METRICS)
def test_forked_children_can_score(metric: str) -> None:
    expected = bits(depth.score(normal(800, 20), metric=metric, threads=2))
    context = multiprocessing.get_context("fork")
    for count in (1, 3):
        results = context.Queue()
        child = context.Process(target=_score_in_child, args=(metric, count, results))
        child.start()
        assert results.get(timeout=60) == expected
        child.join(60)
        assert child.exitcode == 0
