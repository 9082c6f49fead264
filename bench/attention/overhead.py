# SPDX-License-Identifier: Apache-2.0
"""What one call costs when there is next to nothing to compute, from NumPy and from Torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.attention import data
from bench.attention.peers import forward, sdpa, tokens_first, training
from bench.attention.tasks import from_numpy, ours_training, torch_attention
from bench.timing import Contestant, interleave, optional, thread_limit

SHAPE = (1, 4, 32, 4)  # B, L, d, m
FIRST_SECONDS = 10e-6  # about what a call takes; a sample repeats it accordingly


def _recorded(form: Callable[..., Any], *inputs: Any) -> Callable[[], Any]:
    """Call with inputs that ask for gradients, and leave them unasked."""
    leaves = [one.detach().requires_grad_() for one in inputs]
    return lambda: form(*leaves)


def _sdpa_form(query: Any, keys: Any) -> Any:
    torch = optional("torch")
    return torch.nn.functional.scaled_dot_product_attention(query, keys, keys)


def _calls() -> dict[str, Callable[[], Any]]:
    problem = data.make(*SHAPE, "float32")
    inputs = (problem.tokens, problem.factor)
    query = problem.factor.t().contiguous()[None, None]
    heads = (query, problem.tokens[:, None].contiguous())
    return {
        "NumPy": from_numpy(problem, reuse=False),
        "NumPy, out=": from_numpy(problem, reuse=True),
        "Torch, no gradient": forward(torch_attention, *inputs),
        "Torch, with autograd": _recorded(torch_attention, *inputs),
        "Torch, forward+backward": ours_training(problem),
        "SDPA, no gradient": forward(_sdpa_form, *heads),
        "SDPA, with autograd": _recorded(_sdpa_form, *heads),
        "SDPA, forward+backward": sdpa(problem, True),
        "Torch eager, no gradient": forward(tokens_first(), *inputs),
        "Torch eager, forward+backward": training(tokens_first(), inputs, problem.gradient),
    }


def measure(rounds: int = 15) -> list[dict[str, Any]]:
    """Return seconds of a call of each kind, all in turns."""
    if optional("torch") is None:
        return []
    calls = _calls()
    plain, torch_found = calls["NumPy"](), calls["Torch, no gradient"]()
    if not np.array_equal(plain, torch_found.numpy()):
        raise AssertionError("the answer from Torch differs from NumPy's")
    with thread_limit(1):
        contestants = [Contestant(kind, "ours", run) for kind, run in calls.items()]
        first = dict.fromkeys(calls, FIRST_SECONDS)
        samples = interleave(contestants, first, rounds=rounds, settle=False)
    return [{"kind": kind, "seconds": kept.seconds()} for kind, kept in samples.items()]
