# SPDX-License-Identifier: Apache-2.0
"""Problems large enough for threads, cut sequences and writing past the caches; Ctrl-C, memory."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from embedcore import attention
from support.attention import (
    Problem,
    expected_of,
    make_problem,
    native_backward,
    native_forward,
)
from support.attention_limits import check, limits

Array = np.ndarray[Any, Any]

# (sequences, tokens, heads, columns): cut and whole sequences, few and many, wide and narrow.
SHAPES = [(1, 5000, 3, 64), (3, 700, 6, 64), (20, 300, 9, 33), (40, 60, 17, 48), (17, 1100, 2, 40)]
MASKINGS = ["none", "lengths bool", "ragged float"]


@cache
def solved(
    shape: tuple[int, int, int, int], dtype: str, masking: str, query: str
) -> tuple[Problem, Array, Array, dict[str, Array], dict[str, float]]:
    p = make_problem(
        *shape,
        dtype,
        seed=SHAPES.index(shape),
        masking=masking,
        query=query,
        bias="heads",
        temperature="both",
        activation="tanh" if shape[2] % 2 else None,
        norm="l2" if shape[2] % 3 else None,
        value_columns=None if query == "own" else 40,
    )
    rng = np.random.default_rng(1)
    grad_out = rng.standard_normal(p.out_shape).astype(p.key.dtype)
    grad_lse = rng.standard_normal(p.out_shape[:2]).astype(p.real)
    forward, gradients = expected_of(p, grad_out, grad_lse)
    expected = {**forward, **gradients}
    return p, grad_out, grad_lse, expected, limits(p, expected, grad_out, grad_lse)


def bits(arrays: dict[str, Array]) -> bytes:
    """Scores excepted: what stands at tokens that are not valid is not promised."""
    return b"".join(x.tobytes() for name, x in arrays.items() if name != "scores")


@pytest.mark.parametrize("query", ["shared", "own"])
@pytest.mark.parametrize("masking", MASKINGS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
def test_threads_do_not_show_in_the_bits(
    isa: str, shape: tuple[int, int, int, int], dtype: str, masking: str, query: str
) -> None:
    p, grad_out, grad_lse, expected, allowed = solved(shape, dtype, masking, query)
    seen = set()
    for threads in (1, 2, 7):
        saved = native_forward(p, threads)
        gradients = native_backward(p, saved, grad_out, grad_lse, threads)
        if threads == 2:
            check(p, saved, expected, allowed)
            check(p, gradients, expected, allowed)
        seen.add(bits(saved) + bits(gradients))
    assert len(seen) == 1


def on_cache_lines(x: Array) -> Array:
    raw = np.empty(x.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy = raw[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


@cache
def wide_problem(
    value_columns: int | None, masking: str
) -> tuple[Problem, Array, dict[str, Array], dict[str, float]]:
    p = make_problem(3, 2003, 3, 768, value_columns=value_columns, masking=masking, norm="l2")
    grad_out = np.random.default_rng(1).standard_normal(p.out_shape).astype(np.float32)
    forward, gradients = expected_of(p, grad_out)
    expected = {**forward, **gradients}
    return p, grad_out, expected, limits(p, expected, grad_out, np.zeros(p.out_shape[:2]))


@pytest.mark.parametrize("masking", ["none", "lengths bool"])
@pytest.mark.parametrize("value_columns", [None, 768])
def test_gradients_larger_than_the_caches(
    isa: str, value_columns: int | None, masking: str
) -> None:
    p, grad_out, expected, allowed = wide_problem(value_columns, masking)
    saved = native_forward(p)
    got = native_backward(p, saved, grad_out, place=on_cache_lines)
    check(p, got, expected, allowed)
    again = native_backward(p, saved, grad_out)  # memory off the cache lines
    for name, x in again.items():
        np.testing.assert_array_equal(x, got[name])


def test_tokens_and_sequences_that_share_memory(isa: str, dtype_name: str) -> None:
    p = make_problem(3, 100, 4, 32, dtype_name, query="own")
    for shared in (p.key[:1], p.key[:, :1], p.key[:1, :1]):
        same = np.broadcast_to(shared, p.key.shape)
        got = native_forward(replace(p, key=same))
        exact = native_forward(replace(p, key=same.copy()))
        assert bits(got) == bits(exact)
        gradients = [
            native_backward(replace(p, key=key), exact, np.ones(p.out_shape, p.key.dtype))
            for key in (same, same.copy())
        ]
        assert bits(gradients[0]) == bits(gradients[1])


def test_concurrent_calls() -> None:
    problems = [make_problem(2, 900, 4, 20 + k, seed=k, norm="l2") for k in range(4)]
    alone = [bits(native_forward(p, 1)) for p in problems]
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(native_forward, problems[k % 4], 1 + k % 3) for k in range(24)]
        assert [bits(call.result()) for call in calls] == alone * 6


def _pool_in_child(threads: int, to: Any) -> None:
    to.put(bits(native_forward(make_problem(4, 900, 4, 32), threads)))


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_children_can_pool() -> None:
    expected = bits(native_forward(make_problem(4, 900, 4, 32), 2))
    context = multiprocessing.get_context("fork")
    for count in (1, 3):
        results = context.Queue()
        child = context.Process(target=_pool_in_child, args=(count, results))
        child.start()
        assert results.get(timeout=60) == expected
        child.join(60)
        assert child.exitcode == 0


def in_child(program: str, *arguments: str) -> float:
    """What a program prints at last."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


INTERRUPTED = """
import signal, sys, time
import numpy as np
from embedcore import attention

rng = np.random.default_rng(0)
token, query = rng.standard_normal((1, 1, 64)), rng.standard_normal((64, 32))
key = np.broadcast_to(token.astype(np.float32), (1, 100_000_000, 64))  # one token in memory
query = query.astype(np.float32)
signal.signal(signal.SIGALRM, signal.default_int_handler)
fired = time.monotonic() + 0.2
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    attention.low_rank_attention(key, query, threads=int(sys.argv[1]))
except KeyboardInterrupt:
    late = time.monotonic() - fired
else:
    raise SystemExit("the call was not interrupted")
small = attention.low_rank_attention(key[:, :1000], query)
assert np.allclose(small, token, atol=1e-4)
print(late)
"""


@pytest.mark.parametrize("count", ["1", "2"])
def test_an_interrupt_stops_a_long_call(count: str) -> None:
    assert in_child(INTERRUPTED, count) < 1.5


MEMORY = """
import resource
import numpy as np
from embedcore import attention

rng = np.random.default_rng(0)
query = rng.standard_normal((64, 4)).astype(np.float32)
token = rng.standard_normal((1, 1, 64)).astype(np.float32)
attention.low_rank_attention(np.broadcast_to(token, (1, 1000, 64)), query)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
attention.low_rank_attention(np.broadcast_to(token, (1, 3_000_000, 64)), query, norm="l2")
attention.mean_pool(np.broadcast_to(token, (3, 1_000_000, 64)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow  # under sanitizers, which keep memory of their own
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss in KiB")
def test_no_memory_that_grows_with_the_tokens() -> None:
    assert in_child(MEMORY) < 8 << 10  # weights would be 48 MB, a copy of the tokens 768


def test_many_sequences_of_few_tokens(thread_count: int) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 4, 20000)
    key = rng.standard_normal((int(lengths.sum()), 5)).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    got = attention.low_rank_attention(key, np.zeros((5, 2), np.float32), cu_seqlens=offsets)
    sums = np.add.reduceat(np.vstack([key, np.zeros((1, 5))]), np.minimum(offsets[:-1], len(key)))
    means = np.where(lengths[:, None] > 0, sums / np.maximum(lengths, 1)[:, None], 0)
    np.testing.assert_allclose(got, np.repeat(means[:, None], 2, axis=1), atol=1e-6)
