# SPDX-License-Identifier: Apache-2.0
"""Float64 answers from the oracle of the tests, which contestants are held against."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.attention.data import Problem

Floats = NDArray[np.float64]

TESTS = Path(__file__).parents[2] / "tests"
CHECKED_TOKENS = 16_384


@lru_cache(maxsize=1)
def oracle() -> Any:
    """Return the module with the oracle's `forward` and `backward`."""
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    return import_module("oracle.attention_kernel")


@dataclass(frozen=True)
class Part:
    """One array of an answer: all of it, or the entries of some sequences."""

    wanted: Floats
    sequences: NDArray[np.intp] | None = None

    def error(self, found: Any) -> float:
        """Return the largest difference over the largest value that is right."""
        rows = found if self.sequences is None else found[self.sequences]
        gap = np.abs(as_float64(rows) - self.wanted).max()
        return float(gap / np.abs(self.wanted).max())


@dataclass(frozen=True)
class Exact:
    """The parts of the right answer, and the largest score over its temperature."""

    parts: list[Part]
    largest_score: float = 1.0

    def error(self, answer: Any) -> float:
        """Return the largest error of the parts."""
        found = answer if isinstance(answer, tuple) else (answer,)
        return max(part.error(one) for part, one in zip(self.parts, found, strict=True))


def as_float64(values: Any) -> Floats:
    """Return any array as NumPy's float64."""
    if hasattr(values, "detach"):
        values = values.detach().double().numpy()
    return np.asarray(values, np.float64)


def sampled(sequences: int, tokens: int) -> NDArray[np.intp]:
    """Return the sequences whose outputs and gradients are checked, the last one among them."""
    wanted = max(1, min(sequences, CHECKED_TOKENS // max(1, tokens)))
    return np.unique(np.linspace(sequences - 1, 0, wanted).astype(np.intp))


def attention(problem: Problem, backward: bool, **options: Any) -> Exact:
    """Return outputs and, where `backward`, the gradients of some tokens and of the factor."""
    factor, gradient = as_float64(problem.factor), as_float64(problem.gradient)
    sequences = len(problem.tokens)
    checked = sampled(sequences, problem.tokens.shape[1])
    outputs, of_tokens, of_factor, largest = [], [], np.zeros(factor.shape[::-1]), 0.0
    for b in range(sequences) if backward else checked:
        tokens = as_float64(problem.tokens[b : b + 1])
        own = {} if problem.lengths is None else {"lengths": problem.lengths[b : b + 1]}
        if backward:
            found = oracle().backward(
                tokens, factor, grad_out=gradient[b : b + 1], **own, **options
            )
            of_factor += found.query[0]
        if b in checked:
            if backward:
                of_tokens.append(found.key[0])
            right = oracle().forward(tokens, factor, **own, **options)
            outputs.append(right.out[0])
            largest = max(largest, float(np.abs(right.scores).max()))
    parts = [Part(np.array(outputs), checked)]
    if backward:
        parts += [Part(np.array(of_tokens), checked), Part(of_factor.T)]
    bounded = 1.0 if options.get("norm") or options.get("activation") else largest
    return Exact(parts, bounded / options.get("temperature", 1.0))


def mean(problem: Problem) -> Exact:
    """Return the means of the valid tokens."""
    checked = sampled(len(problem.tokens), problem.tokens.shape[1])
    assert problem.lengths is not None
    means = [as_float64(problem.tokens[b, : problem.lengths[b]]).mean(axis=0) for b in checked]
    return Exact([Part(np.array(means), checked)])
