# SPDX-License-Identifier: Apache-2.0
"""Attention over a dense or a ragged batch, and means: data, answers and contestants."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from embedcore import attention

from bench.attention import allocator, data, exact
from bench.attention.cases import SHARE, Case
from bench.attention.floors import floors
from bench.attention.peers import (
    EAGER,
    TEMPERATURE,
    forward,
    masked_means,
    peers,
    run_of,
    tokens_first,
    training,
)
from bench.families import Task
from bench.timing import Contestant, optional

OPTIONS: dict[str, Any] = {"activation": "tanh", "norm": "l2", "temperature": TEMPERATURE}
# Seconds for all samples of a case, and the fewest and the most samples of one contestant.
BUDGET = {"smoke": (0.0, 1, 1), "quick": (0.3, 3, 7), "full": (1.5, 3, 9)}
FLOAT32_ERROR, HALF_ERROR = 1e-6, 2.0**-7


class TorchTask(Task):
    """What the tasks of this family share: memory, rounds, errors, targets."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.exact = exact.Exact([])
        self.facts = {
            "what": case.what,
            "shape": [case.sequences, case.tokens, case.columns],
            "m": case.heads,
            "dtype": case.dtype,
            "backward": case.backward,
        }

    @abstractmethod
    def contestants(self, threads: int) -> list[Contestant]: ...

    def error(self, answer: Any) -> float:
        return self.exact.error(answer)

    def error_limit(self, name: str, lines: dict[str, Any]) -> float:
        """Return what the dtype allows, or twice the error of Torch in it where that is more."""
        single = FLOAT32_ERROR * max(1.0, self.exact.largest_score)
        of_torch = [
            line["error"]
            for line in lines.values()
            if line["role"] == "peer" and line["error"] is not None
        ]
        if self.case.dtype == "float32":
            return max(single, 2 * min(of_torch, default=0.0))
        return 2 * min(of_torch, default=HALF_ERROR)

    def equal_error(self, lines: dict[str, Any]) -> float:
        """Return the limit: errors up to there count as equal."""
        return self.error_limit("", lines)

    def rounds(self, turn_seconds: float) -> int:
        budget, least, most = BUDGET[self.case.mode]
        return int(np.clip(budget / max(turn_seconds, 1e-3), least, most))

    def target(self, name: str) -> float | None:
        return self.case.target()

    def goals(self, name: str) -> dict[str, float]:
        return self.case.goals()

    def conditions(self) -> AbstractContextManager[None]:
        return allocator.fresh() if self.case.cold else allocator.warm()

    def problem(self, share: float = 1.0) -> data.Problem:
        case = self.case
        return data.make(case.sequences, case.tokens, case.columns, case.heads, case.dtype, share)


class AttentionTask(TorchTask):
    """The LAMA head with its factor folded: tanh, norm over the heads, softmax, pooling."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self._problem = self.problem()
        self.exact = exact.attention(self._problem, case.backward, **OPTIONS)

    def contestants(self, threads: int) -> list[Contestant]:
        case, problem = self.case, self._problem
        return [
            *self._ours(),
            *floors(
                problem.tokens, problem.valid_tokens, case.heads, case.dtype, case.backward,
                threads, case.cold,
            ),
            *peers(problem, case.backward, case.compiled),
        ]  # fmt: skip

    def _ours(self) -> list[Contestant]:
        case, problem = self.case, self._problem
        name = f"embedcore {case.dtype}"
        if case.backward:
            return [Contestant(name, "ours", ours_training(problem))]
        from_torch = forward(lambda: torch_attention(problem.tokens, problem.factor))
        if case.dtype != "float32":
            return [Contestant(name, "ours", from_torch)]
        return [
            Contestant(name, "ours", from_numpy(problem, reuse=not case.cold)),
            Contestant(f"{name}, Torch", "ours", from_torch),
        ]


def torch_attention(tokens: Any, factor: Any) -> Any:
    """Call embedcore with Torch tensors."""
    from embedcore.torch import low_rank_attention

    return low_rank_attention(tokens, factor, **OPTIONS)


def from_numpy(problem: data.Problem, reuse: bool) -> Callable[[], Any]:
    """Call embedcore with NumPy's views; into the same memory each time where `reuse`."""
    tokens, factor = problem.tokens.numpy(), problem.factor.numpy()
    place = np.zeros(problem.gradient.shape, np.float32) if reuse else None
    return lambda: attention.low_rank_attention(tokens, factor, out=place, **OPTIONS)


def ours_training(problem: data.Problem) -> Callable[[], Any]:
    """Return forward and backward through embedcore."""
    return training(torch_attention, (problem.tokens, problem.factor), problem.gradient)


class RaggedTask(TorchTask):
    """Sequences of unequal lengths, packed or padded, against the same kernel on all tokens."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self._problem = self.problem(SHARE)
        self._packed, self._starts = self._problem.packed()
        self.exact = exact.attention(self._problem, backward=False, **OPTIONS)

    def contestants(self, threads: int) -> list[Contestant]:
        case, problem = self.case, self._problem
        lengths = optional("torch").from_numpy(problem.lengths)
        from embedcore.torch import low_rank_attention

        def ours(name: str, tokens: Any, **options: Any) -> Contestant:
            run = forward(lambda: low_rank_attention(tokens, problem.factor, **options, **OPTIONS))
            return Contestant(f"embedcore {name} {case.dtype}", "ours", run)

        every = forward(lambda: low_rank_attention(problem.tokens, problem.factor, **OPTIONS))
        share = problem.valid_tokens / (case.sequences * case.tokens)
        eager = run_of(tokens_first(problem.mask()), problem, False)
        return [
            ours("ragged", self._packed, cu_seqlens=self._starts),
            ours("padded", problem.tokens, lengths=lengths),
            Contestant("all tokens, in proportion", "floor", every, share),
            *floors(
                self._packed, problem.valid_tokens, case.heads, case.dtype, False, threads, False
            ),
            Contestant(f"{EAGER}, padded", "peer", eager),
        ]


class MeanTask(TorchTask):
    """The mean of the tokens that a mask leaves."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self._problem = self.problem(SHARE)
        self.exact = exact.mean(self._problem)

    def contestants(self, threads: int) -> list[Contestant]:
        case, problem = self.case, self._problem
        return [
            Contestant(f"embedcore {case.dtype}", "ours", self._ours()),
            *floors(problem.tokens, problem.valid_tokens, 0, case.dtype, False, threads, False),
            *masked_means(problem),
        ]

    def _ours(self) -> Callable[[], Any]:
        tokens, mask = self._problem.tokens, self._problem.mask()
        if self.case.dtype != "float32":
            return forward(lambda: attention.mean_pool(tokens, mask=mask))
        plain, valid = tokens.numpy(), mask.numpy()
        place = np.zeros((len(plain), plain.shape[2]), np.float32)
        return lambda: attention.mean_pool(plain, mask=valid, out=place)
