# SPDX-License-Identifier: Apache-2.0
"""`LowRankAttention` and `MeanPooling`: values, gradients, options, copies, transforms."""

from __future__ import annotations

import copy
import io
import math
import pickle
import re
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from embedcore.torch import AttentionPooling, LowRankAttention, MeanPooling, low_rank_attention  # noqa: E402
from support.attention_torch import reference  # noqa: E402

OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "rank": {"rank": 3},
    "mean": {"context": "mean"},
    "mean, rank": {"context": "mean", "rank": 2},
    "plain": {"activation": None, "norm": None},
    "one temperature": {"learn_temperature": "scalar", "temperature": 0.3},
    "temperature of heads": {"learn_temperature": "head", "temperature": 0.3},
    "length law": {"length_scale": "log"},
    "projected": {"out_features": 5},
    "projected without bias": {"out_features": 5, "bias": False},
}


def normal(*shape: int, seed: int = 0, dtype: Any = torch.float64) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def make(**options: Any) -> Any:
    torch.manual_seed(0)
    return LowRankAttention(4, 3, dtype=torch.float64, **options)


def expected(head: Any, tokens: Any, **limits: Any) -> Any:
    """Return what the head computes, in plain Torch."""
    temperature = head.temperature
    if head.log_temperature is not None:
        temperature = head.log_temperature.exp()
    pooled, _ = reference(
        tokens, head.query, context="mean" if head.context is None else head.context, P=head.P,
        temperature=temperature, activation=head.activation, norm=head.norm,
        length_scale=head.length_scale, **limits,
    )  # fmt: skip
    pooled = pooled.flatten(1)
    return pooled if head.out_proj is None else head.out_proj(pooled)


@pytest.mark.parametrize("name", list(OPTIONS))
def test_values_and_gradients(name: str) -> None:
    head = make(**OPTIONS[name])
    tokens = normal(3, 6, 4)
    for limits in (
        {},
        {"lengths": torch.tensor([6, 0, 2])},
        {"mask": normal(3, 6) > 0},
        {"mask": normal(3, 6), "lengths": torch.tensor([3, 6, 1])},
    ):
        leaf = tokens.clone().requires_grad_()
        leaves = (leaf, *head.parameters())
        torch.testing.assert_close(head(leaf, **limits), expected(head, leaf, **limits))
        got = torch.autograd.grad(head(leaf, **limits).sin().sum(), leaves)
        wanted = torch.autograd.grad(expected(head, leaf, **limits).sin().sum(), leaves)
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("name", list(OPTIONS))
def test_ragged_is_dense_with_lengths(name: str) -> None:
    head = make(**OPTIONS[name])
    tokens, lengths = normal(3, 6, 4), torch.tensor([6, 0, 2])
    packed = torch.cat([row[:n] for row, n in zip(tokens, lengths, strict=True)])
    ragged = head(packed, cu_seqlens=torch.tensor([0, 6, 6, 8]))
    torch.testing.assert_close(ragged, head(tokens, lengths=lengths))
    # Empty sequences are zeros, before the projection.
    if head.out_proj is None:
        assert not ragged[1].any()


@pytest.mark.parametrize("name", list(OPTIONS))
def test_copies_are_the_same(name: str) -> None:
    head, tokens = make(**OPTIONS[name]), normal(2, 5, 4)
    result = head(tokens)
    assert torch.equal(copy.deepcopy(head)(tokens), result)
    assert torch.equal(pickle.loads(pickle.dumps(head))(tokens), result)
    other = make(**OPTIONS[name])
    torch.nn.init.ones_(other.query)
    file = io.BytesIO()
    torch.save(head.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(tokens), result)


def test_parameters() -> None:
    head = LowRankAttention(64, 8, rank=2, learn_temperature="head", temperature=0.5)
    shapes = {name: tuple(p.shape) for name, p in head.named_parameters()}
    assert shapes == {
        "query": (64, 2, 8), "P": (64, 2, 8), "context": (64,), "log_temperature": (8,),
    }  # fmt: skip
    assert head.query.abs().max() <= 1 / 8 and head.P.std() > 0.5 * (1 / 8) / math.sqrt(3)
    assert head.context.abs().max() <= 1.0
    torch.testing.assert_close(head.log_temperature.exp(), torch.full((8,), 0.5))
    assert [name for name, _ in LowRankAttention(4, 2, context="mean").named_parameters()] == [
        "query", "P",
    ]  # fmt: skip
    half = LowRankAttention(4, 2, out_features=3, dtype=torch.bfloat16)
    assert all(p.dtype is torch.bfloat16 for p in half.parameters())
    assert half(normal(2, 5, 4, dtype=torch.bfloat16)).dtype is torch.bfloat16


def test_weights_are_returned() -> None:
    head, tokens = make(out_features=2), normal(2, 5, 4)
    pooled, weights = head(tokens, return_weights=True)
    assert torch.equal(pooled, head(tokens)) and weights.shape == (2, 3, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_projected_tokens_of_another_dtype_keep_it(dtype: Any) -> None:
    head = LowRankAttention(8, 2, out_features=4)
    tokens = torch.randn(3, 5, 8)
    found = head(tokens.to(dtype))
    assert found.dtype is dtype
    torch.testing.assert_close(found.float(), head(tokens), rtol=0.05, atol=0.05)


def test_training_learns_the_temperature() -> None:
    head = make(learn_temperature="scalar", temperature=1.0)
    tokens = normal(8, 6, 4)
    step = torch.optim.Adam(head.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        # The token of the largest first column is to be found.
        best = tokens[torch.arange(8), tokens[..., 0].argmax(1)]
        loss = (head(tokens).unflatten(1, (3, 4)).mean(1) - best).square().mean()
        step.zero_grad()
        loss.backward()
        step.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert 0.0 < head.log_temperature.exp().item() < 0.8


@pytest.mark.parametrize("name", ["defaults", "mean", "one temperature", "length law"])
def test_compiles_and_exports(name: str) -> None:
    torch._dynamo.reset()
    head = make(**OPTIONS[name])
    tokens, lengths = normal(3, 6, 4), torch.tensor([6, 0, 2])
    compiled = torch.compile(head, fullgraph=True, dynamic=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens, lengths=lengths), head(tokens, lengths=lengths))
    compiled(tokens, lengths=lengths).sum().backward()
    assert head.query.grad.any()
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=1)
    program = torch.export.export(
        head,
        (tokens,),
        {"lengths": lengths},
        dynamic_shapes={"tokens": {0: batch, 1: length}, "lengths": {0: batch}},
    )
    more, counts = normal(5, 9, 4), torch.tensor([9, 1, 0, 4, 2])
    got = program.module()(more, lengths=counts)
    torch.testing.assert_close(got, head(more, lengths=counts))


def test_functional_calls_and_ensembles() -> None:
    heads = [make(temperature=0.2) for _ in range(2)]
    torch.nn.init.normal_(heads[1].query)
    tokens = normal(3, 6, 4)
    parameters, buffers = torch.func.stack_module_state(heads)
    got = torch.vmap(
        lambda p, b, x: torch.func.functional_call(heads[0], (p, b), (x,)), (0, 0, None)
    )(parameters, buffers, tokens)
    torch.testing.assert_close(got, torch.stack([head(tokens) for head in heads]))


def test_it_says_what_it_is() -> None:
    assert repr(LowRankAttention(4, 3)) == "LowRankAttention(4, 3)"
    head = LowRankAttention(
        4, 3, rank=2, context="mean", activation=None, norm=None, temperature=0.5,
        learn_temperature="head", length_scale="log",
    )  # fmt: skip
    assert repr(head) == (
        "LowRankAttention(4, 3, rank=2, context='mean', activation=None, norm=None, "
        "temperature=0.5, learn_temperature='head', length_scale='log')"
    )


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"embed_dim": 0}, "'embed_dim' must be at least 1; got 0."),
        ({"num_heads": 0}, "'num_heads' must be at least 1; got 0."),
        ({"rank": 0}, "'rank' must be at least 1; got 0."),
        ({"out_features": 0}, "'out_features' must be at least 1; got 0."),
        ({"temperature": 0.0}, "'temperature' must be positive and finite; got 0.0."),
        ({"temperature": math.inf}, "'temperature' must be positive and finite; got inf."),
        ({"context": "global"}, "'context' must be one of 'learned', 'mean'; got 'global'."),
        ({"norm": "l1"}, "'norm' must be one of 'l2'; got 'l1'"),
        ({"activation": "relu"}, "'activation' must be one of 'tanh'; got 'relu'."),
        ({"length_scale": "logs"}, "'length_scale' must be one of "),
        ({"learn_temperature": "all"}, "'learn_temperature' must be one of 'scalar', 'head'"),
    ],
    ids=str,
)
def test_refused(changed: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as caught:
        LowRankAttention(**{"embed_dim": 4, "num_heads": 2, **changed})
    assert str(caught.value).startswith(f"torch.LowRankAttention: {text}")


@pytest.mark.parametrize("temperature", [None, "1", True], ids=repr)
def test_temperatures_that_are_no_numbers(temperature: Any) -> None:
    text = f"'temperature' must be a number; got {type(temperature).__name__}."
    for kind in (LowRankAttention, AttentionPooling):
        with pytest.raises(TypeError) as caught:
            kind(4, 2, temperature=temperature)
        assert str(caught.value) == f"torch.{kind.__name__}: {text}"


@pytest.mark.parametrize("pool", [make(), AttentionPooling(4, 2).eval(), MeanPooling()])
def test_tokens_that_are_no_tensor(pool: Any) -> None:
    for tokens in (None, 1.0, [[[1.0]]]):
        text = f"must be a torch.Tensor; got {type(tokens).__name__}."
        with torch.no_grad(), pytest.raises(TypeError, match=re.escape(text)):
            pool(tokens)


def test_mean_pooling() -> None:
    tokens, pool = normal(3, 6, 4), pickle.loads(pickle.dumps(MeanPooling()))
    torch.testing.assert_close(pool(tokens), tokens.mean(1))
    lengths = torch.tensor([6, 1, 2])
    means = torch.stack([row[:n].mean(0) for row, n in zip(tokens, lengths, strict=True)])
    torch.testing.assert_close(pool(tokens, lengths=lengths), means)
    mask = torch.arange(6) < lengths[:, None]
    torch.testing.assert_close(pool(tokens, mask=mask), means)
    torch.testing.assert_close(pool(tokens, weights=mask.double()), means)
    packed = tokens[mask]
    torch.testing.assert_close(pool(packed, cu_seqlens=[0, 6, 7, 9]), means)
    compiled = torch.compile(pool, fullgraph=True, dynamic=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens, weights=mask.double()), means)
    zeros = torch.zeros(4, 1, dtype=torch.float64)
    assert torch.equal(low_rank_attention(tokens, zeros).squeeze(1), pool(tokens))
