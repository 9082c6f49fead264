# SPDX-License-Identifier: Apache-2.0
"""Cases of attention that the tests of the Torch face share: arguments by name, in float64."""

from __future__ import annotations

from typing import Any

import pytest

SEQUENCES, TOKENS, WIDTH, HEADS = 3, 5, 4, 2
LAMA = {"activation": "tanh", "norm": "l2", "temperature": 0.3}

# Names of tensors that `make_tensor` makes, and plain options.
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "tanh": {"activation": "tanh"},
    "l2": {"norm": "l2", "temperature": 0.2},
    "lama": LAMA,
    "value": {**LAMA, "value": "value"},
    "query of each sequence": {**LAMA, "query": "queries"},
    "boolean mask": {**LAMA, "mask": "flags"},
    "float mask": {**LAMA, "mask": "added"},
    "lengths": {**LAMA, "lengths": "lengths"},
    "lengths and mask": {**LAMA, "lengths": "lengths", "mask": "flags"},
    "ragged": {**LAMA, "key": "packed", "cu_seqlens": "ends"},
    "ragged value and mask": {
        **LAMA, "key": "packed", "value": "packed_value", "cu_seqlens": "ends",
        "mask": "packed_added",
    },
    "ragged bias": {**LAMA, "key": "packed", "cu_seqlens": "ends", "bias": "packed_bias"},
    "temperature number tensor": {**LAMA, "temperature": "t"},
    "temperature of heads": {**LAMA, "temperature": "t_heads"},
    "temperature of sequences": {**LAMA, "temperature": "t_sequences"},
    "temperature of both": {**LAMA, "temperature": "t_both"},
    "length law": {**LAMA, "length_scale": "log", "lengths": "lengths"},
    "length scale": {**LAMA, "length_scale": "scale", "temperature": "t_heads"},
    "bias of heads": {**LAMA, "bias": "bias_heads"},
    "bias of tokens": {**LAMA, "bias": "bias_tokens"},
    "bias of both": {"bias": "bias_both"},
    "context": {**LAMA, "context": "context", "P": "P"},
    "context of each sequence": {**LAMA, "context": "contexts", "P": "P"},
    "rank": {**LAMA, "context": "context", "query": "query_rank", "P": "P_rank"},
    "mean context": {**LAMA, "context": "mean", "P": "P"},
    "mean context, rank, value": {
        **LAMA, "context": "mean", "query": "query_rank", "P": "P_rank", "value": "value",
    },
    "mean context, lengths, mask": {
        **LAMA, "context": "mean", "P": "P", "lengths": "lengths", "mask": "added",
    },
    "mean context, ragged": {
        **LAMA, "context": "mean", "P": "P", "key": "packed", "cu_seqlens": "ends",
        "temperature": "t_both",
    },
}  # fmt: skip

SHAPES = {
    "key": (SEQUENCES, TOKENS, WIDTH),
    "packed": (9, WIDTH),
    "value": (SEQUENCES, TOKENS, 3),
    "packed_value": (9, 3),
    "query": (WIDTH, HEADS),
    "queries": (SEQUENCES, WIDTH, HEADS),
    "query_rank": (WIDTH, 3, HEADS),
    "P": (WIDTH, HEADS),
    "P_rank": (WIDTH, 3, HEADS),
    "context": (WIDTH,),
    "contexts": (SEQUENCES, WIDTH),
    "bias_heads": (HEADS,),
    "bias_tokens": (SEQUENCES, TOKENS),
    "bias_both": (SEQUENCES, TOKENS, HEADS),
    "packed_bias": (9, HEADS),
    "added": (SEQUENCES, TOKENS),
    "packed_added": (9,),
    "t": (),
    "t_heads": (HEADS,),
    "t_sequences": (SEQUENCES,),
    "t_both": (SEQUENCES, HEADS),
    "scale": (SEQUENCES,),
}


def make_tensor(torch: Any, name: str, dtype: Any) -> Any:
    """Return the tensor of a name: the same values every time."""
    if name == "lengths":
        return torch.tensor([5, 0, 3])
    if name == "ends":
        return torch.tensor([0, 4, 4, 9], dtype=torch.int32)
    if name == "flags":
        return torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 1]], dtype=torch.bool)
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    made = torch.randn(SHAPES[name], generator=generator, dtype=torch.float64)
    if name.startswith("t") or name == "scale":
        made = made.abs() * 0.2 + 0.2
    return made.to(dtype)


class Case:
    """One of `CASES` with its tensors."""

    def __init__(self, torch: Any, name: str, dtype: Any) -> None:
        named = {"key": "key", "query": "query", **CASES[name]}
        self.options = {
            argument: make_tensor(torch, value, dtype)
            if value in SHAPES or value in ("lengths", "ends", "flags")
            else value
            for argument, value in named.items()
        }

    def differentiable(self) -> list[str]:
        """Return the names of the arguments that have a gradient."""
        return [
            name
            for name, value in self.options.items()
            if hasattr(value, "dtype") and value.dtype.is_floating_point
        ]

    def leaves(self) -> dict[str, Any]:
        """Return fresh leaves for these arguments."""
        return {
            name: self.options[name].detach().clone().requires_grad_()
            for name in self.differentiable()
        }


@pytest.fixture(params=list(CASES))
def case_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def case(case_name: str) -> Case:
    """Give each case in float64."""
    torch = pytest.importorskip("torch")
    return Case(torch, case_name, torch.float64)


@pytest.fixture
def make_case() -> Any:
    """Give a function of a name and a dtype."""
    torch = pytest.importorskip("torch")
    return lambda name, dtype: Case(torch, name, dtype)
