# SPDX-License-Identifier: Apache-2.0
"""Torch's ways to attention pooling, each with contiguous inputs and without needless copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.attention.data import Problem
from bench.timing import Contestant, optional

TEMPERATURE = 0.25
TINY = 1e-12
EAGER, HEADS_FIRST = "Torch eager", "Torch eager, heads first"
COMPILED, SDPA = "Torch compiled", "Torch SDPA"

Run = Callable[[], Any]
Form = Callable[..., Any]


def tokens_first(mask: Any = None) -> Form:
    """Scores as (B, L, m): tanh, l2 over the heads, softmax over the tokens."""
    torch = optional("torch")
    hidden = None if mask is None else ~mask[:, :, None]

    def run(tokens: Any, factor: Any) -> Any:
        scores = torch.tanh(tokens @ factor)
        scores = torch.nn.functional.normalize(scores, dim=-1, eps=TINY) / TEMPERATURE
        if hidden is not None:
            scores = scores.masked_fill(hidden, float("-inf"))
        return torch.bmm(torch.softmax(scores, 1).transpose(1, 2), tokens)

    return run


def heads_first(mask: Any = None) -> Form:
    """Scores as (B, m, L): faster in float32 with few heads, slower with many."""
    torch = optional("torch")
    hidden = None if mask is None else ~mask[:, None, :]

    def run(tokens: Any, factor: Any) -> Any:
        scores = torch.tanh(factor.t().contiguous() @ tokens.transpose(1, 2))
        scores = torch.nn.functional.normalize(scores, dim=1, eps=TINY) / TEMPERATURE
        if hidden is not None:
            scores = scores.masked_fill(hidden, float("-inf"))
        return torch.bmm(torch.softmax(scores, -1), tokens)

    return run


def forward(form: Form, *inputs: Any) -> Run:
    """Call without a graph."""
    torch = optional("torch")

    def run() -> Any:
        with torch.no_grad():
            return form(*inputs)

    return run


def training(form: Form, inputs: tuple[Any, ...], gradient: Any, wanted: int = 2) -> Run:
    """Call forward and backward; returns the output and the gradients of the first inputs.

    Gradients are returned instead of added to `.grad`, which spares a pass over them.
    """
    torch = optional("torch")
    leaves = tuple(one.detach().requires_grad_() for one in inputs)

    def run() -> Any:
        out = form(*leaves)
        found = torch.autograd.grad(out, leaves, gradient)
        return (out.detach(), *found[:wanted])

    return run


def run_of(form: Form, problem: Problem, backward: bool) -> Run:
    """Return one call over a problem."""
    inputs = (problem.tokens, problem.factor)
    return training(form, inputs, problem.gradient) if backward else forward(form, *inputs)


def sdpa(problem: Problem, backward: bool) -> Run:
    """Softmax without tanh and norm; its queries are made before, one set for each sequence."""
    torch = optional("torch")
    sequences = len(problem.tokens)
    queries = problem.factor.t().contiguous().repeat(sequences, 1, 1)[:, None].contiguous()

    def form(tokens: Any, query: Any) -> Any:
        keys = tokens[:, None]
        return torch.nn.functional.scaled_dot_product_attention(
            query, keys, keys, scale=1.0 / TEMPERATURE
        )[:, 0]

    inputs = (problem.tokens, queries)
    return training(form, inputs, problem.gradient) if backward else forward(form, *inputs)


def compiled(problem: Problem, backward: bool) -> Run:
    """Compile the form with tokens first; the first call raises where Torch cannot."""
    torch = optional("torch")
    torch._dynamo.reset()  # each number of threads gets code of its own
    return run_of(torch.compile(tokens_first(), dynamic=False), problem, backward)


def peers(problem: Problem, backward: bool, compile_too: bool) -> list[Contestant]:
    """Return all that pool a dense batch."""
    found = [
        Contestant(EAGER, "peer", run_of(tokens_first(), problem, backward)),
        Contestant(HEADS_FIRST, "peer", run_of(heads_first(), problem, backward)),
        # Another function: there is no error to state.
        Contestant(SDPA, "peer", sdpa(problem, backward), comparable=False),
    ]
    if compile_too:
        found.append(Contestant(COMPILED, "peer", compiled(problem, backward)))
    return found


def masked_means(problem: Problem) -> list[Contestant]:
    """Return the ways to the mean of the valid tokens; the mask is one of integers, as usual."""
    torch = optional("torch")
    tokens, mask = problem.tokens, problem.mask().long()

    def expanded() -> Any:
        wide = mask[:, :, None].expand(tokens.shape).to(tokens.dtype)
        return (tokens * wide).sum(1) / wide.sum(1).clamp(min=1e-9)

    def product() -> Any:
        row = mask[:, None].to(tokens.dtype)
        return torch.bmm(row, tokens)[:, 0] / mask.sum(1, keepdim=True).to(tokens.dtype)

    return [
        Contestant("sentence-transformers form", "peer", forward(expanded)),
        Contestant("bmm(mask, H)", "peer", forward(product)),
        Contestant("H.mean, all tokens", "peer", forward(lambda: tokens.mean(1)), comparable=False),
    ]
