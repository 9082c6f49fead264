# SPDX-License-Identifier: Apache-2.0
"""Heads that pool through nn.MultiheadAttention with a learned query, folded and as they are."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from bench.attention import exact
from bench.attention.cases import Case
from bench.attention.floors import floors
from bench.attention.peers import forward
from bench.attention.tasks import TorchTask
from bench.timing import Contestant, optional

MULTIHEAD, FOLDED = "nn.MultiheadAttention", "Torch eager, folded"


class PoolingTask(TorchTask):
    """One learned query for each sequence; the answer is that of the module in float64."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        torch = optional("torch")
        self._problem = self.problem()
        torch.manual_seed(6)
        self._module = torch.nn.MultiheadAttention(case.columns, case.heads, batch_first=True)
        self._probe = torch.randn(1, 1, case.columns)
        dtype = self._problem.tokens.dtype
        self._module, self._probe = self._module.to(dtype), self._probe.to(dtype)
        self._gradient = self._problem.gradient[:, 0].contiguous()
        self.exact = self._right_answer()

    def _right_answer(self) -> exact.Exact:
        checked = exact.sampled(self.case.sequences, self.case.tokens)
        form = multihead(deepcopy(self._module).double(), self._probe.double())
        rows = self._problem.tokens[checked].double()
        found = self._run(form, rows, self._gradient[checked].double())()
        found = found if isinstance(found, tuple) else (found,)
        return exact.Exact([exact.Part(exact.as_float64(part), checked) for part in found])

    def _run(self, form: Any, tokens: Any = None, gradient: Any = None) -> Callable[[], Any]:
        """Return one call; parameters get gradients too, which the answer leaves out."""
        torch = optional("torch")
        tokens = self._problem.tokens if tokens is None else tokens
        gradient = self._gradient if gradient is None else gradient
        if not self.case.backward:
            return forward(form, tokens)
        leaf = tokens.detach().requires_grad_()
        leaves = (leaf, *form.parameters)

        def run() -> Any:
            out = form(leaf)
            return out.detach(), torch.autograd.grad(out, leaves, gradient)[0]

        return run

    def contestants(self, threads: int) -> list[Contestant]:
        case, problem = self.case, self._problem
        module, probe = self._module, self._probe
        return [
            Contestant(f"embedcore {case.dtype}", "ours", self._run(_ours(self))),
            *floors(
                problem.tokens, problem.valid_tokens, case.heads, case.dtype, case.backward,
                threads, case.cold,
            ),
            Contestant(MULTIHEAD, "peer", self._run(multihead(module, probe))),
            Contestant(FOLDED, "peer", self._run(folded(module, probe))),
        ]  # fmt: skip


class Form:
    """A function of the tokens, (B, L, d) to (B, d), and its parameters."""

    def __init__(self, run: Callable[[Any], Any], parameters: list[Any]) -> None:
        self._run, self.parameters = run, parameters

    def __call__(self, tokens: Any) -> Any:
        """Pool."""
        return self._run(tokens)


def multihead(module: Any, probe: Any) -> Form:
    """Return the module with the probe as its query."""
    query = probe.detach().clone().requires_grad_()

    def run(tokens: Any) -> Any:
        pooled, _ = module(query.expand(len(tokens), 1, -1), tokens, tokens, need_weights=False)
        return pooled[:, 0]

    return Form(run, [query, *module.parameters()])


def folded(module: Any, probe: Any) -> Form:
    """Return the same in plain Torch, with keys and values never made: the best it can do."""
    torch = optional("torch")
    query = probe.detach().clone().requires_grad_()
    heads, size = module.num_heads, module.head_dim

    def run(tokens: Any) -> Any:
        of_query, of_key, of_value = module.in_proj_weight.chunk(3)
        bias_query, _, bias_value = module.in_proj_bias.chunk(3)  # that of the keys cancels
        projected = (query[0, 0] @ of_query.t() + bias_query).view(heads, 1, size)
        factor = (projected @ of_key.view(heads, size, -1))[:, 0] / size**0.5
        scores = torch.softmax(factor @ tokens.transpose(1, 2), -1)
        pooled = torch.bmm(scores, tokens)
        values = torch.einsum("bhd,hed->bhe", pooled, of_value.view(heads, size, -1))
        return module.out_proj(values.flatten(1) + bias_value)

    return Form(run, [query, *module.parameters()])


def _ours(task: PoolingTask) -> Form:
    from embedcore.torch import AttentionPooling

    module = AttentionPooling.from_multihead_attention(deepcopy(task._module), task._probe[0])
    module.train(task.case.backward)

    def run(tokens: Any) -> Any:
        out = module(tokens)
        return out.reshape(len(tokens), -1)

    return Form(run, list(module.parameters()))
