# SPDX-License-Identifier: Apache-2.0
"""Low-rank attention on a GPU: cases, peers, and what the figures should reach."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from embedcore.torch import AttentionPooling, low_rank_attention

from bench.gpu.timing import Contestant, compiled, replayed

_CHECKED = 2  # sequences
_MOST_BYTES = 2 << 30  # of all sets of inputs
_TEMPERATURE = 0.25
_REPLAYED = 20  # calls of a graph, beside which what its start takes is little


@dataclass(frozen=True)
class Case:
    """`sequences` of `tokens` tokens of `columns` numbers, pooled by `heads` heads."""

    sequences: int
    tokens: int
    columns: int
    heads: int
    dtype: torch.dtype
    way: str = "forward"  # "backward": alone; "both"
    # "lama": tanh and l2 over heads; "zipf", "uniform": lengths so distributed; "pooling": a probe
    # of nn.MultiheadAttention.
    form: str = "plain"
    rivals: bool = False  # with those that take long to compile

    @property
    def name(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        way = "forward and backward" if self.way == "both" else self.way
        shape = f"{self.sequences} x {self.tokens} x {self.columns}, m {self.heads}"
        return f"{way}, {shape}, {kind}, {self.form}"

    @property
    def token_bytes(self) -> float:
        """Return the bytes of all tokens."""
        return float(self.sequences * self.tokens * self.columns * self.dtype.itemsize)

    @property
    def flops(self) -> float:
        """Return the operations of the products with tokens."""
        work = {"forward": 4.0, "backward": 8.0, "both": 12.0}[self.way]
        return work * self.sequences * self.tokens * self.columns * self.heads

    @property
    def bytes(self) -> float:
        """Return what has to be moved: all tokens, and forward what is pooled.

        Backward tokens are read again, and their gradient is written.
        """
        pooled = float(self.sequences * self.heads * self.columns * self.dtype.itemsize)
        passes = {"forward": 1.0, "backward": 2.0, "both": 3.0}[self.way]
        return passes * self.token_bytes + (pooled if self.way == "forward" else 0.0)


def cases(smoke: bool) -> list[Case]:
    """Return the cases, those of the targets first."""
    f32, bf16 = torch.float32, torch.bfloat16
    if smoke:
        return [
            Case(3, 20, 16, 8, f32, rivals=True),
            Case(3, 20, 16, 8, f32, "both", "lama"),
            Case(3, 20, 16, 8, bf16, form="zipf"),
            Case(3, 20, 16, 8, f32, "backward"),
            Case(3, 20, 16, 8, f32, form="pooling"),
        ]
    return [
        Case(512, 512, 768, 16, bf16),
        Case(2048, 512, 768, 16, bf16),
        Case(512, 512, 768, 16, bf16, "both"),
        Case(512, 512, 768, 16, bf16, "backward"),
        Case(512, 512, 768, 64, bf16),
        Case(1, 8192, 768, 16, bf16),
        Case(1024, 1024, 768, 16, bf16),
        Case(1024, 1024, 768, 16, bf16, form="zipf"),
        Case(1024, 1024, 768, 16, bf16, form="uniform"),
        Case(512, 512, 768, 16, bf16, form="pooling"),
        Case(256, 512, 768, 8, bf16),
        Case(512, 512, 768, 32, bf16),
        Case(512, 512, 768, 32, bf16, "both"),
        Case(512, 512, 768, 32, bf16, "backward"),
        Case(512, 512, 768, 8, bf16, form="lama", rivals=True),
        Case(256, 512, 768, 16, bf16, rivals=True),
        Case(256, 512, 768, 16, bf16, "both", rivals=True),
        Case(2048, 512, 768, 16, bf16, "both", "lama"),
        Case(512, 512, 768, 16, f32),
        Case(512, 512, 768, 16, f32, "both"),
        Case(64, 512, 1024, 32, bf16),
        Case(1, 64, 768, 16, bf16),
    ]


class Task:
    """A case with its tokens on the device, and the right answers of a few sequences."""

    by_bytes = True  # what a rate is of

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case, self._device = case, device
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
        self._lengths = self._drawn_lengths(generator)
        valid = 1.0
        if self._lengths is not None:
            valid = float(self._lengths.sum()) / (case.sequences * case.tokens)
        self.flops, self.bytes = valid * case.flops, valid * case.bytes
        self._attention = self._drawn_attention() if case.form == "pooling" else None
        self._right = self._answer_in(torch.float64)
        self._right_query = self._query_gradient() if case.way != "forward" else None
        # At most twice the error of Torch in the same dtype; rounding of the result included.
        self.limit = 2.0 * self.error(self._answer_in(case.dtype)) + 1e-6
        self._written = torch.empty(0, dtype=case.dtype, device=device)

    def _drawn_lengths(self, generator: Any) -> torch.Tensor | None:
        case = self.case
        if case.form not in ("zipf", "uniform"):
            return None
        drawn = torch.rand(case.sequences, device=self._device, generator=generator)
        if case.form == "zipf":  # the k-th longest of 16 kinds has 1 / k of the longest
            drawn = 1.0 / (1.0 + (drawn * 16).floor())
        return (drawn * case.tokens).ceil().clamp(1, case.tokens).long()

    def _drawn_attention(self) -> Any:
        torch.manual_seed(0)
        made = torch.nn.MultiheadAttention(self.case.columns, self.case.heads, batch_first=True)
        self._probe = torch.nn.Parameter(torch.randn(1, self.case.columns))
        self._probe.data = self._probe.data.to(self._device, self.case.dtype)
        return made.to(self._device, self.case.dtype).eval()

    def _answer_in(self, dtype: torch.dtype) -> Any:
        """Answer by Torch for the sequences that are checked."""
        few = self._tokens[0][:_CHECKED].to(dtype)
        if self._attention is not None:
            before, probe = self._attention, self._probe
            try:
                # As good as in float64, from what the parameters are after rounding.
                self._attention = torch.nn.MultiheadAttention(
                    self.case.columns, self.case.heads, batch_first=True,
                    device=self._device, dtype=dtype,
                ).eval()  # fmt: skip
                self._attention.load_state_dict(before.state_dict())
                self._probe = torch.nn.Parameter(probe.detach().to(dtype))
                return self._multihead(few)
            finally:
                self._attention, self._probe = before, probe
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
        if self.case.way == "forward":
            return _relative(answer[:_CHECKED], self._right)
        of_tokens = _relative(answer[0][:_CHECKED], self._right[0])
        if len(answer[0]) < self.case.sequences:  # Torch's, of the checked ones alone
            return of_tokens
        return max(of_tokens, _relative(answer[1], self._right_query))

    def contestants(self) -> Iterator[Contestant]:
        """Yield embedcore, the floors and the peers."""
        case, on_gpu = self.case, self._device.type == "cuda"
        if case.form == "pooling":
            yield from self._poolings()
            return
        yield Contestant("embedcore", self._by(self._ours), "ours")
        if on_gpu and case.sequences == 1:
            again = replayed(self._by(self._ours), _REPLAYED)
            yield Contestant("embedcore, replayed from a graph", again, "ours", _REPLAYED)
        yield from self._floors()
        yield Contestant("Torch eager", self._by(self._eager))
        if case.rivals:
            yield Contestant("Torch, compiled", self._by(compiled(self._eager)))
        if case.form == "plain":
            yield Contestant("Torch SDPA", self._by(self._sdpa))

    def _floors(self) -> Iterator[Contestant]:
        """Yield passes over the same bytes: of each kind the quicker one is the floor."""
        ways = {"Torch": self._reading}
        if self._device.type == "cuda" and importlib.util.find_spec("triton") is not None:
            ways["Triton"] = functools.partial(self._reading_by_triton, [])
        if self.case.way == "forward":
            for name, read in ways.items():
                yield Contestant(f"all tokens read once, {name}", read, "floor")
            return
        yield Contestant("all tokens copied", self._copying, "floor")
        if self.case.way == "both":
            for name, read in ways.items():
                yield Contestant(
                    f"all tokens read, then copied, {name}",
                    functools.partial(_one_behind_the_other, read, self._copying), "floor",
                )  # fmt: skip

    def extra(self) -> dict[str, float]:
        """Return the memory that a forward and a backward take at most beyond their inputs."""
        if self.case.way != "both" or self._device.type != "cuda":
            return {}
        self._written = torch.empty(0, device=self._device)
        run = self._by(self._ours)
        run(0)  # what is made once
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        run(0)
        peak = torch.cuda.max_memory_allocated(self._device) - before
        case = self.case
        allowed = 1.05 * case.token_bytes + 4.0 * case.heads * case.sequences * case.tokens
        return {"extra_bytes": float(peak), "extra_limit_bytes": allowed}

    def _by(self, function: Any) -> Any:
        graphs: dict[int, Any] = {}  # of each set, where the backward is alone

        def call(turn: int) -> Any:
            turn %= len(self._tokens)
            tokens = self._tokens[turn]
            if self.case.way != "backward":
                return self._run(tokens, self._lengths, self._query, self._upstream, function)
            if turn not in graphs:
                leaves = tokens.detach().requires_grad_(), self._query.detach().requires_grad_()
                graphs[turn] = function(*leaves, self._lengths), leaves
            pooled, leaves = graphs[turn]
            return torch.autograd.grad(pooled, leaves, self._upstream, retain_graph=True)

        return call

    def _run(self, tokens: Any, lengths: Any, query: Any, upstream: Any, function: Any) -> Any:
        if self.case.way == "forward":
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

    def _poolings(self) -> Iterator[Contestant]:
        pooling = AttentionPooling.from_multihead_attention(self._attention, self._probe)

        def by(function: Any) -> Any:
            def call(turn: int) -> Any:
                with torch.no_grad():
                    return function(self._tokens[turn % len(self._tokens)])

            return call

        yield Contestant("embedcore", by(pooling), "ours")
        yield from self._floors()
        yield Contestant("nn.MultiheadAttention", by(self._multihead))

    def _multihead(self, tokens: Any) -> Any:
        probes = self._probe.expand(len(tokens), 1, -1)
        with torch.no_grad():
            return self._attention(probes, tokens, tokens, need_weights=False)[0]

    def _reading(self, turn: int) -> Any:
        """Read all tokens by the quickest kernel of Torch that does nothing else."""
        return self._tokens[turn % len(self._tokens)].view(torch.int32).amax()

    def _reading_by_triton(self, kept: list[Any], turn: int) -> Any:
        from bench.gpu.reading import read

        return read(self._tokens[turn % len(self._tokens)].view(torch.int32), kept)

    def _copying(self, turn: int) -> Any:
        tokens = self._tokens[turn % len(self._tokens)]
        if self._written.shape != tokens.shape:
            self._written = torch.empty_like(tokens)
        return self._written.copy_(tokens)


def _one_behind_the_other(first: Any, second: Any, turn: int) -> Any:
    first(turn)
    return second(turn)


def _relative(got: torch.Tensor, right: torch.Tensor) -> float:
    return float((got.double() - right).abs().max() / right.abs().max())
