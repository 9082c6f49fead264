# SPDX-License-Identifier: Apache-2.0
"""Low-rank attention on a GPU: cases, peers, and what the figures should reach."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from embedcore.torch import low_rank_attention

from bench.gpu.timing import Contestant, compiled

_CHECKED = 2  # sequences
_MOST_BYTES = 2 << 30  # of all sets of inputs
_TEMPERATURE = 0.25


@dataclass(frozen=True)
class Case:
    """`sequences` of `tokens` tokens of `columns` numbers, pooled by `heads` heads."""

    sequences: int
    tokens: int
    columns: int
    heads: int
    dtype: torch.dtype
    gradients: bool = False
    form: str = "plain"  # "lama": tanh and l2 over heads; "zipf", "uniform": lengths so distributed

    @property
    def name(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        way = "forward and backward" if self.gradients else "forward"
        shape = f"{self.sequences} x {self.tokens} x {self.columns}, m {self.heads}"
        return f"{way}, {shape}, {kind}, {self.form}"

    @property
    def token_bytes(self) -> float:
        """Return the bytes of all tokens."""
        return float(self.sequences * self.tokens * self.columns * self.dtype.itemsize)

    @property
    def flops(self) -> float:
        """Return the operations of the products with tokens."""
        work = 12.0 if self.gradients else 4.0
        return work * self.sequences * self.tokens * self.columns * self.heads

    @property
    def bytes(self) -> float:
        """Return what has to be moved: all tokens, with gradients read again and written once.

        And the results: what is pooled, and with gradients that, its gradient and the scores.
        """
        pooled = float(self.sequences * self.heads * self.columns * self.dtype.itemsize)
        if not self.gradients:
            return self.token_bytes + pooled
        scores = 2.0 * 4.0 * self.sequences * self.tokens * self.heads
        return 3.0 * self.token_bytes + 3.0 * pooled + scores


def cases(smoke: bool) -> list[Case]:
    """Return the cases, those of the targets first."""
    f32, bf16 = torch.float32, torch.bfloat16
    if smoke:
        return [
            Case(3, 20, 16, 8, f32),
            Case(3, 20, 16, 8, f32, gradients=True, form="lama"),
            Case(3, 20, 16, 8, bf16, form="zipf"),
        ]
    return [
        Case(512, 512, 768, 16, bf16),
        Case(512, 512, 768, 32, bf16),
        Case(2048, 512, 768, 16, bf16),
        Case(512, 512, 768, 64, bf16),
        Case(512, 512, 768, 8, bf16, form="lama"),
        Case(512, 512, 768, 16, bf16, gradients=True),
        Case(512, 512, 768, 32, bf16, gradients=True),
        Case(2048, 512, 768, 16, bf16, gradients=True, form="lama"),
        Case(1024, 1024, 768, 16, bf16, form="zipf"),
        Case(1024, 1024, 768, 16, bf16, form="uniform"),
        Case(1, 8192, 768, 16, bf16),
        Case(512, 512, 768, 16, f32),
        Case(512, 512, 768, 16, f32, gradients=True),
        Case(64, 512, 1024, 32, bf16),
        Case(1, 64, 768, 16, bf16),
    ]


class Task:
    """A case with its tokens on the device, and the right answers of a few sequences."""

    by_bytes = True  # what a rate is of

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case = case
        generator = torch.Generator(device).manual_seed(0)
        shape = (case.sequences, case.tokens, case.columns)

        def tokens() -> torch.Tensor:
            made = torch.empty(shape, dtype=case.dtype, device=device)
            for part in made.split(64):
                part.copy_(torch.randn(part.shape, device=device, generator=generator))
            return made

        sets = max(1, min(3, int(_MOST_BYTES // case.token_bytes)))
        self._tokens = [tokens() for _ in range(sets)]
        query = torch.randn(case.columns, case.heads, device=device, generator=generator)
        self._query = (query / case.columns**0.5).to(case.dtype)
        self._upstream = torch.randn(
            case.sequences, case.heads, case.columns, device=device, generator=generator
        ).to(case.dtype)
        self._lengths = self._drawn_lengths(device, generator)
        valid = 1.0
        if self._lengths is not None:
            valid = float(self._lengths.sum()) / (case.sequences * case.tokens)
        self.flops, self.bytes = valid * case.flops, valid * case.bytes
        self._right = self._answer_in(torch.float64)
        self._right_query = self._query_gradient() if case.gradients else None
        # At most twice the error of Torch in the same dtype; rounding of the result included.
        self.limit = 2.0 * self.error(self._answer_in(case.dtype)) + 1e-6

    def _drawn_lengths(self, device: torch.device, generator: Any) -> torch.Tensor | None:
        case = self.case
        if case.form not in ("zipf", "uniform"):
            return None
        drawn = torch.rand(case.sequences, device=device, generator=generator)
        if case.form == "zipf":  # the k-th longest of 16 kinds has 1 / k of the longest
            drawn = 1.0 / (1.0 + (drawn * 16).floor())
        return (drawn * case.tokens).ceil().clamp(1, case.tokens).long()

    def _answer_in(self, dtype: torch.dtype) -> Any:
        """Answer by Torch for the sequences that are checked."""
        few = self._tokens[0][:_CHECKED].to(dtype)
        lengths = None if self._lengths is None else self._lengths[:_CHECKED]
        upstream = self._upstream[:_CHECKED].to(dtype)
        return self._run(few, lengths, self._query.to(dtype), upstream, self._eager)

    def _query_gradient(self) -> torch.Tensor:
        """Return the gradient of the query in float64, from all sequences, a few at a time."""
        total = torch.zeros_like(self._query, dtype=torch.float64)
        for start in range(0, self.case.sequences, 16):
            part = slice(start, start + 16)
            lengths = None if self._lengths is None else self._lengths[part]
            few, upstream = self._tokens[0][part].double(), self._upstream[part].double()
            total += self._run(few, lengths, self._query.double(), upstream, self._eager)[1]
        return total

    def error(self, answer: Any) -> float:
        """Return the largest error over the largest number, of the sequences that are checked."""
        if not self.case.gradients:
            return _relative(answer[:_CHECKED], self._right)
        of_tokens = _relative(answer[0][:_CHECKED], self._right[0])
        if len(answer[0]) < self.case.sequences:  # Torch's, of the checked ones alone
            return of_tokens
        return max(of_tokens, _relative(answer[1], self._right_query))

    def contestants(self) -> Iterator[Contestant]:
        """Yield embedcore, the floor and the peers."""
        yield Contestant("embedcore", self._by(self._ours), "ours")
        yield Contestant("all tokens read once", self._reading, "floor")
        yield Contestant("Torch eager", self._by(self._eager))
        yield Contestant("Torch, compiled", self._by(compiled(self._eager)))
        if self.case.form == "plain":
            yield Contestant("Torch SDPA", self._by(self._sdpa))

    def _by(self, function: Any) -> Any:
        def call(turn: int) -> Any:
            tokens = self._tokens[turn % len(self._tokens)]
            return self._run(tokens, self._lengths, self._query, self._upstream, function)

        return call

    def _run(self, tokens: Any, lengths: Any, query: Any, upstream: Any, function: Any) -> Any:
        if not self.case.gradients:
            with torch.no_grad():
                return function(tokens, query, lengths)
        tokens, query = tokens.detach().requires_grad_(), query.detach().requires_grad_()
        pooled = function(tokens, query, lengths)
        of_tokens, of_query = torch.autograd.grad(pooled, (tokens, query), upstream)
        return of_tokens, of_query

    @property
    def _options(self) -> dict[str, Any]:
        return {"activation": "tanh", "norm": "l2"} if self.case.form == "lama" else {}

    def _ours(self, tokens: Any, query: Any, lengths: Any) -> Any:
        return low_rank_attention(
            tokens, query, lengths=lengths, temperature=_TEMPERATURE, **self._options
        )

    def _eager(self, tokens: Any, query: Any, lengths: Any) -> Any:
        scores = tokens @ query
        if self.case.form == "lama":
            scores = scores.tanh()
            scores = scores / torch.linalg.vector_norm(scores, dim=-1, keepdim=True)
        if lengths is not None:
            beyond = torch.arange(tokens.shape[1], device=tokens.device) >= lengths[:, None]
            scores = scores.masked_fill(beyond[..., None], float("-inf"))
        return (scores / _TEMPERATURE).softmax(dim=1).mT @ tokens

    def _sdpa(self, tokens: Any, query: Any, lengths: Any) -> Any:
        del lengths
        factor = query.mT.expand(len(tokens), 1, -1, -1)  # fused kernels take four axes
        one = tokens[:, None]
        return torch.nn.functional.scaled_dot_product_attention(
            factor, one, one, scale=1.0 / _TEMPERATURE
        ).squeeze(1)

    def _reading(self, turn: int) -> Any:
        """Read all tokens by the quickest kernel of Torch that does nothing else."""
        return self._tokens[turn % len(self._tokens)].view(torch.int32).amax()


def _relative(got: torch.Tensor, right: torch.Tensor) -> float:
    return float((got.double() - right).abs().max() / right.abs().max())
