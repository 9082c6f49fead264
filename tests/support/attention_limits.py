# SPDX-License-Identifier: Apache-2.0
"""How far results of attention may be from the oracle.

float32 and float64: 1e-6 (or its like in float64) times max(1, largest score / T), relative to what
is summed; or twice the error of the plain computation in the same dtype, by Torch's operations and
autograd. float16 and bfloat16: twice that error, or the rounding of the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from oracle.attention_kernel import Head, one_forward, problem_of
from oracle.attention_kernel import Problem as Spelled

from .attention import Problem
from .kinds import to_torch

Array = np.ndarray[Any, Any]

# Of one rounding to nearest.
UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-9}
SUMS = {"float16": 1e-6, "bfloat16": 1e-6, "float32": 1e-6, "float64": 1e-14}
IN_TOKEN_DTYPE = ("out", "key", "value")
SMALLEST_HALF = 2.0**-24
SMALLEST_FLOAT = 1.2e-38  # what is below may be 0


def _spelled(p: Problem) -> Spelled:
    tokens = (p.cu_seqlens, p.lengths, p.mask)
    return problem_of(p.key, p.query, p.value, *tokens, p.bias, p.temperature)


def _nothing(p: Problem) -> dict[str, Array]:
    """Zeros in the layouts of `native_forward` and `native_backward`."""
    s = _spelled(p)
    heads_first = s.heads_first(np.zeros((len(s.key), p.heads)))
    return {
        "out": np.zeros(p.out_shape),
        "lse": np.full(p.out_shape[:2], -np.inf),
        "scores": heads_first.copy(),
        "weights": heads_first.copy(),
        "key": np.zeros(s.key.shape),
        "value": np.zeros(s.value.shape),
        "query": np.zeros((p.sequences, p.heads, p.key.shape[-1])),
        "temperature": np.zeros(p.out_shape[:2]),
        "bias": heads_first.copy(),
        "mask": np.zeros(len(s.key)),
    }


def _finish(p: Problem, found: dict[str, Array]) -> dict[str, Array]:
    """Shapes of the arguments; one gradient for a value that is the key, and for a shared query."""
    if p.query is None:
        del found["query"]
    elif p.query.ndim == 2:
        found["query"] = found["query"].sum(axis=0, keepdims=True)
    value = found.pop("value")
    if p.value is None:
        found["key"] = found["key"] + value
    else:
        found["value"] = value.reshape(p.value.shape)
    found["key"] = found["key"].reshape(p.key.shape)
    found["mask"] = found["mask"].reshape(p.key.shape[:-1])
    return found


def _put(found: dict[str, Array], p: Problem, b: int, rows: Array, per_token: Any) -> None:
    """Write (n, m) arrays of the valid tokens of b into their layout."""
    for name, x in per_token.items():
        flat = np.moveaxis(found[name], -1, -2) if p.cu_seqlens is not None else found[name][b].T
        flat[rows if p.cu_seqlens is not None else rows - b * p.key.shape[1]] = x


def plain(p: Problem, grad_out: Array, grad_lse: Array) -> dict[str, Array]:
    """The results by Torch's own operations, all in the dtype of the key; skips without Torch."""
    torch = pytest.importorskip("torch")
    dtype = to_torch(p.key.reshape(-1)[:1]).dtype
    s, found = _spelled(p), _nothing(p)
    least = max(1e-12, SMALLEST_HALF if dtype is torch.float16 else 0.0)

    def leaf(x: Array) -> Any:
        return torch.tensor(np.asarray(x, np.float64)).to(dtype).requires_grad_()

    def wide(x: Any) -> Array:
        return np.asarray(x.detach().double())

    shared = leaf(s.query[0]) if p.query is not None and p.query.ndim == 2 else None
    for b, rows in enumerate(s.rows):
        if len(rows) == 0:
            continue
        k, v, z0 = leaf(s.key[rows]), leaf(s.value[rows]), leaf(s.bias[rows])
        q = leaf(s.query[b]) if shared is None else shared
        t, added = leaf(s.temperature[b]), leaf(s.mask[rows, None])
        y = k @ q
        a = torch.tanh(y + z0) if p.activation else y + z0
        f = a / torch.linalg.vector_norm(a, dim=1, keepdim=True).clamp_min(least) if p.norm else a
        scores = (f + added) / t
        weights = torch.softmax(scores, 0)
        out, lse = weights.T @ v, torch.logsumexp(scores, 0)
        leaves = (k, v, q, t, z0, added)
        seeds = (torch.tensor(grad_out[b].astype(np.float64)), torch.tensor(grad_lse[b]))
        seeds = tuple(x.to(dtype) for x in seeds)
        grads = torch.autograd.grad((out, lse), leaves, seeds, allow_unused=True)
        g_k, g_v, g_q, g_t, g_z, g_m = (
            np.zeros(x.shape) if g is None else wide(g) for g, x in zip(grads, leaves, strict=True)
        )
        found["out"][b], found["lse"][b] = wide(out), wide(lse)
        found["key"][rows], found["value"][rows], found["query"][b] = g_k, g_v, g_q.T
        found["temperature"][b], found["mask"][rows] = g_t, g_m[:, 0]
        _put(found, p, b, rows, {"scores": wide(y), "weights": wide(weights), "bias": g_z})
    return _finish(p, found)


def _condition(s: Spelled, b: int, head: Head, p: Problem) -> Array:
    """How much larger than 1e-6 of it the error of a weight may be, (n, m).

    A score is a sum that is off by a few 2^-24 |k| |q|, whatever it comes to. Where the scores of
    all heads come to little, the norm over heads makes much of that.
    """
    if not p.norm:
        return np.ones_like(head.y)
    lengths = np.linalg.norm(s.key[s.rows[b]], axis=1)[:, None] * np.linalg.norm(s.query[b], axis=0)
    slope = np.where(head.norm > 1e-12, 1 / np.maximum(head.norm, 1e-12), 0.0)
    return np.maximum(1.0, lengths * slope / s.temperature[b] / 4)


def sizes_of(p: Problem, grad_out: Array, grad_lse: Array) -> tuple[dict[str, float], float]:
    """Largest sum of magnitudes that makes a number of each result, and the largest |s|."""
    s, found, steepest = _spelled(p), _nothing(p), 1.0
    for b, rows in enumerate(s.rows):
        if len(rows) == 0:
            continue
        head, g = one_forward(s, b, p.activation, p.norm), np.abs(grad_out[b].astype(np.float64))
        k, v, q = np.abs(s.key[rows]), s.value[rows], np.abs(s.query[b])
        grad_weights = np.abs(v @ grad_out[b].astype(np.float64).T)
        mean = np.abs((grad_out[b] * head.out).sum(axis=1))
        weights = head.weights * _condition(s, b, head, p)
        d_s = weights * (grad_weights.max(axis=0) + mean + np.abs(grad_lse[b]))
        d_f = d_s / s.temperature[b]
        d_z = d_f
        if p.norm:
            along = (np.abs(head.f) * d_f).sum(axis=1, keepdims=True)
            d_z = (d_f + np.abs(head.f) * along) / np.maximum(head.norm, 1e-12)
            d_z[head.norm[:, 0] <= 1e-12] = 0
        if p.activation:
            d_z = d_z * (1 - head.a**2)
        steepest = max(steepest, float(np.abs(head.s[np.isfinite(head.s)]).max(initial=0)))
        found["out"][b] = weights.T @ np.abs(v)
        found["lse"][b] = weights.sum(axis=0)
        found["key"][rows], found["value"][rows] = d_z @ q.T, weights @ g
        found["query"][b] = d_z.T @ k
        finite = np.where(np.isfinite(head.s), np.abs(head.s), 0)
        found["temperature"][b] = (d_s * finite).sum(axis=0) / s.temperature[b]
        found["mask"][rows] = d_f.sum(axis=1)
        _put(found, p, b, rows, {"scores": np.abs(head.y), "weights": weights, "bias": d_z})
    found = _finish(p, found)
    return {name: float(x.max(initial=0)) for name, x in found.items()}, steepest


def distance(got: Array, expected: Array) -> float:
    """Largest difference; infinite numbers are equal to themselves, NaN to nothing."""
    a, b = np.asarray(got).astype(np.float64), np.asarray(expected).astype(np.float64)
    assert a.shape == b.shape
    with np.errstate(invalid="ignore"):
        return float(np.where(a == b, 0.0, np.abs(a - b)).max(initial=0))


def limits(
    p: Problem, expected: dict[str, Array], grad_out: Array, grad_lse: Array
) -> dict[str, float]:
    """Largest allowed difference of each result."""
    dtype = p.key.dtype.name
    sizes, steepest = sizes_of(p, grad_out, grad_lse)
    try:
        rough = plain(p, grad_out, grad_lse)
    except pytest.skip.Exception:
        if dtype in ("float16", "bfloat16"):
            raise
        rough = expected
    found = {}
    for name, size in sizes.items():
        bound = SUMS[dtype] * steepest * size
        if name in IN_TOKEN_DTYPE and dtype in ("float16", "bfloat16"):
            bound += UNIT[dtype] * float(np.abs(expected[name]).max(initial=0)) + SMALLEST_HALF
        off = distance(rough[name], expected[name])
        if not np.isfinite(off):  # Torch's has failed
            off = UNIT.get(dtype, 0.0) * size
        if dtype != "float64":
            bound += SMALLEST_FLOAT
        found[name] = max(bound, 2 * off)
    return found


def check(
    p: Problem, got: dict[str, Array], expected: dict[str, Array], allowed: dict[str, float]
) -> None:
    """Fail with the name of the first result that is too far off."""
    for name, x in got.items():
        wanted, seen = expected[name], np.asarray(x).astype(np.float64)
        if name == "scores":  # what stands at tokens that are not valid is not promised
            valid = p.valid() if p.cu_seqlens is not None else p.valid()[:, None]
            wanted, seen = np.where(valid, wanted, 0), np.where(valid, seen, 0)
        off = distance(seen, wanted)
        bound = allowed["out" if name == "wide" else name]
        assert off <= bound, f"{name} is off by {off:.3g}, allowed {bound:.3g}"
