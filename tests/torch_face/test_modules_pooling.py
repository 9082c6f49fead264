# SPDX-License-Identifier: Apache-2.0
"""`AttentionPooling` against `nn.MultiheadAttention`: values, gradients, the folded factor."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from embedcore.torch import AttentionPooling  # noqa: E402

E, HEADS, PROBES = 8, 4, 3


def normal(*shape: int, seed: int = 0, dtype: Any = torch.float64) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def make_attention(**options: Any) -> Any:
    torch.manual_seed(0)
    options = {"batch_first": True, "dtype": torch.float64, **options}
    attention = torch.nn.MultiheadAttention(E, HEADS, **options)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return attention


def attend(attention: Any, probe: Any, tokens: Any, **options: Any) -> Any:
    """Return what the attention gives for the probe, and its weights by head."""
    queries = probe.reshape(1, -1, E).expand(len(tokens), -1, -1)
    if not attention.batch_first:
        queries, tokens = queries.transpose(0, 1), tokens.transpose(0, 1)
    pooled, weights = attention(queries, tokens, tokens, average_attn_weights=False, **options)
    return (pooled if attention.batch_first else pooled.transpose(0, 1)), weights.transpose(1, 2)


VARIANTS: dict[str, dict[str, Any]] = {
    "stacked": {},
    "without bias": {"bias": False},
    "narrow tokens": {"kdim": 6, "vdim": 6},
    "sequence first": {"batch_first": False},
}


@pytest.mark.parametrize("masked", ["no", "boolean", "float"])
@pytest.mark.parametrize("name", list(VARIANTS))
def test_is_multihead_attention(name: str, masked: str) -> None:
    attention, probe = make_attention(**VARIANTS[name]), torch.nn.Parameter(normal(PROBES, E))
    pool = AttentionPooling.from_multihead_attention(attention, probe)
    tokens = normal(2, 5, attention.kdim, seed=1)
    padding = None
    if masked == "boolean":
        padding = torch.tensor([[0, 0, 0, 1, 1], [0, 1, 0, 0, 0]], dtype=torch.bool)
    elif masked == "float":
        padding = normal(2, 5, seed=2)
    leaves = {"tokens": tokens.requires_grad_(), "probe": probe, **dict(pool.named_parameters())}

    expected, expected_weights = attend(attention, probe, tokens, key_padding_mask=padding)
    got, weights = pool(tokens, padding, return_weights=True)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(weights, expected_weights.detach(), rtol=1e-12, atol=1e-12)
    assert torch.equal(pool(tokens, key_padding_mask=padding), got)
    wanted = torch.autograd.grad(expected.sin().sum(), leaves.values())
    found = torch.autograd.grad(got.sin().sum(), leaves.values())
    for leaf, a, b in zip(leaves, found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11, msg=leaf)


def test_other_ways_to_limit_tokens() -> None:
    attention, probe = make_attention(), normal(1, PROBES, E)
    pool = AttentionPooling.from_multihead_attention(attention, probe)
    tokens, lengths = normal(2, 5, E, seed=1), torch.tensor([5, 2])
    mask = torch.arange(5) < lengths[:, None]
    expected, _ = attend(attention, probe, tokens, key_padding_mask=~mask)
    torch.testing.assert_close(pool(tokens, lengths=lengths), expected)
    torch.testing.assert_close(pool(tokens, mask=mask), expected)
    ragged, weights = pool(tokens[mask], cu_seqlens=[0, 5, 7], return_weights=True)
    torch.testing.assert_close(ragged, expected)
    assert weights.shape == (PROBES, HEADS, 7)
    with pytest.raises(ValueError, match="'mask' must not be given together with 'key_padding_"):
        pool(tokens, ~mask, mask=mask)


def test_empty_sequences_give_the_biases_and_finite_gradients() -> None:
    attention = make_attention()
    pool = AttentionPooling.from_multihead_attention(attention, normal(1, E))
    tokens = normal(2, 5, E, seed=1).requires_grad_()
    pooled = pool(tokens, torch.tensor([[True] * 5, [False] * 5]))
    torch.testing.assert_close(
        pooled[0, 0], attention.out_proj(attention.in_proj_bias[2 * E :]).detach()
    )
    pooled.square().sum().backward()
    assert tokens.grad.isfinite().all() and not tokens.grad[0].any()
    assert all(p.grad.isfinite().all() for p in pool.parameters())


def test_temperature_divides_scores_and_mask() -> None:
    attention, probe = make_attention(), normal(PROBES, E)
    pool = AttentionPooling.from_multihead_attention(attention, probe, temperature=0.5)
    tokens, added = normal(2, 5, E, seed=1), normal(2, 5, seed=2)
    sharper = copy.deepcopy(attention)
    with torch.no_grad():
        sharper.in_proj_weight[:E] *= 2.0
        sharper.in_proj_bias[:E] *= 2.0
    expected, _ = attend(sharper, probe, tokens, key_padding_mask=2.0 * added)
    torch.testing.assert_close(pool(tokens, added), expected)


def test_parameters_are_shared_and_named_alike() -> None:
    for options in VARIANTS.values():
        attention = make_attention(**options)
        probe = torch.nn.Parameter(normal(1, PROBES, E))
        pool = AttentionPooling.from_multihead_attention(attention, probe)
        assert pool.probe is probe
        assert all(
            dict(pool.named_parameters())[name] is p for name, p in attention.named_parameters()
        )
        state = pool.state_dict()
        assert set(state) == {"probe", *attention.state_dict()}
        other = make_attention(**options)
        other.load_state_dict({name: value for name, value in state.items() if name != "probe"})
        fresh = AttentionPooling(
            E, HEADS, num_probes=PROBES, bias=options.get("bias", True), kdim=options.get("kdim"),
            dtype=torch.float64,
        )  # fmt: skip
        missing = fresh.load_state_dict(attention.state_dict(), strict=False)
        assert missing.missing_keys == ["probe"] and not missing.unexpected_keys


def test_the_factor_is_kept_in_eval_until_a_parameter_changes() -> None:
    pool = AttentionPooling(E, HEADS, num_probes=PROBES, dtype=torch.float64)
    tokens = normal(2, 5, E)

    def fresh() -> Any:
        other = AttentionPooling(E, HEADS, num_probes=PROBES, dtype=torch.float64)
        other.load_state_dict(pool.state_dict())
        return other(tokens).detach()

    def kept() -> Any:
        with torch.no_grad():
            assert torch.equal(pool(tokens), fresh())
        return pool._folded

    assert kept() is None
    pool.eval()
    first = kept()
    assert first is not None and kept() is first
    with torch.no_grad():
        pool.probe.add_(1.0)
    second = kept()
    assert second is not first
    pool.in_proj_weight.data = normal(3 * E, E, seed=3)
    assert kept() is not second
    pool.load_state_dict(
        AttentionPooling(E, HEADS, num_probes=PROBES, dtype=torch.float64).state_dict()
    )
    third = kept()
    pool.out_proj.weight = torch.nn.Parameter(normal(E, E, seed=4))
    assert kept() is not third
    # Where gradients are recorded the factor has to be made in the graph.
    pool(tokens).sum().backward()
    assert pool.probe.grad.any() and pool._folded is None
    kept()
    pool.float()
    with torch.no_grad():
        assert pool(tokens.float()).dtype is torch.float32


def test_writes_that_torch_does_not_count_are_seen_after_eval() -> None:
    pool, tokens = AttentionPooling(8, 2).eval(), torch.randn(2, 5, 8)
    with torch.no_grad():
        pool(tokens)
        for parameter in pool.parameters():
            parameter.data.mul_(0.5)
        kept = pool.eval()(tokens)
        torch.testing.assert_close(kept, pool.train()(tokens))


def test_the_factor_does_not_depend_on_autocast() -> None:
    pool, tokens = AttentionPooling(E, HEADS).eval(), normal(2, 5, E, dtype=torch.float32)
    with torch.no_grad():
        expected = pool(tokens)
        pool._folded = None
        with torch.autocast("cpu", torch.bfloat16):
            pool(tokens)
        assert pool._folded is not None and torch.equal(pool(tokens), expected)


def test_inference_mode() -> None:
    with torch.inference_mode():
        pool = AttentionPooling(E, HEADS).eval()
        tokens = torch.randn(2, 5, E)
        first = pool(tokens)
        pool.probe.add_(1.0)
        assert not torch.equal(pool(tokens), first)


def test_copies_are_the_same_and_leave_the_factor_behind() -> None:
    pool, tokens = AttentionPooling(E, HEADS).eval(), normal(2, 5, E, dtype=torch.float32)
    with torch.no_grad():
        result = pool(tokens)
        for other in (copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):
            assert other._folded is None
            assert torch.equal(other(tokens), result)


def test_compiles_and_exports() -> None:
    torch._dynamo.reset()
    pool = AttentionPooling(E, HEADS, num_probes=PROBES, dtype=torch.float64).eval()
    tokens = normal(2, 5, E)
    padding = torch.tensor([[0, 0, 0, 1, 1], [0, 1, 0, 0, 0]], dtype=torch.bool)
    expected = pool(tokens, padding)
    compiled = torch.compile(pool, fullgraph=True, dynamic=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens, padding), expected)
    with torch.no_grad():
        torch.testing.assert_close(compiled(tokens, padding), expected)
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=1)
    axes = {0: batch, 1: length}
    program = torch.export.export(
        pool, (tokens, padding), dynamic_shapes={"tokens": axes, "key_padding_mask": axes}
    )
    more, no_padding = normal(4, 7, E), torch.zeros(4, 7, dtype=torch.bool)
    torch.testing.assert_close(program.module()(more, no_padding), pool(more))


def test_gradients_of_each_sample() -> None:
    pool = AttentionPooling(E, HEADS, dtype=torch.float64)
    parameters = dict(pool.named_parameters())
    tokens = normal(3, 5, E)

    def loss(parameters: Any, sample: Any) -> Any:
        return torch.func.functional_call(pool, parameters, (sample[None],)).square().sum()

    got = torch.vmap(torch.func.grad(loss), (None, 0))(parameters, tokens)
    for turn, sample in enumerate(tokens):
        wanted = torch.autograd.grad(loss(parameters, sample), tuple(parameters.values()))
        for name, grad in zip(parameters, wanted, strict=True):
            torch.testing.assert_close(got[name][turn], grad)


def test_it_says_what_it_is() -> None:
    assert repr(AttentionPooling(8, 4)).startswith("AttentionPooling(\n  8, 4, num_probes=1\n")
    pool = AttentionPooling(8, 4, num_probes=2, kdim=6, temperature=0.5)
    assert pool.extra_repr() == "8, 4, num_probes=2, kdim=6, temperature=0.5"


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"embed_dim": 0}, "'embed_dim' must be at least 1; got 0."),
        ({"num_heads": 3}, "'num_heads' must divide 'embed_dim' (8); got 3."),
        ({"num_probes": 0}, "'num_probes' must be at least 1; got 0."),
        ({"kdim": 0}, "'kdim' must be at least 1; got 0."),
        ({"temperature": -1.0}, "'temperature' must be positive and finite; got -1.0."),
    ],
    ids=str,
)
def test_refused(changed: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(f"torch.AttentionPooling: {text}") + "$"):
        AttentionPooling(**{"embed_dim": 8, "num_heads": 4, **changed})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"add_bias_kv": True}, "got add_bias_kv=True, which adds a token that the kernel does "),
        ({"add_zero_attn": True}, "got add_zero_attn=True, which adds a token that the kernel "),
        ({"kdim": 6, "vdim": 7}, "got kdim 6 and vdim 7: keys and values are one array."),
    ],
    ids=str,
)
def test_attention_that_does_not_fold_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        AttentionPooling.from_multihead_attention(make_attention(**options), normal(1, E))


def test_dropout_is_refused_in_training_alone() -> None:
    attention, tokens = make_attention(dropout=0.5), normal(2, 5, E, seed=1)
    pooling = AttentionPooling.from_multihead_attention(attention, normal(1, E))
    with pytest.raises(
        ValueError, match=r"must not have dropout in training mode.*got dropout 0.5"
    ):
        pooling(tokens)
    probe = pooling.probe.expand(2, 1, E)
    expected, _ = attention.eval()(probe, tokens, tokens)
    torch.testing.assert_close(pooling.eval()(tokens), expected)


def test_a_padding_mask_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match=r"'mask' must be a torch\.Tensor; got list"):
        AttentionPooling(E, HEADS)(normal(1, 2, E), [[True, False]])


def test_what_is_no_attention_or_probe_is_refused() -> None:
    make = AttentionPooling.from_multihead_attention
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.MultiheadAttention; got Linear"):
        make(torch.nn.Linear(2, 2), normal(1, E))
    with pytest.raises(TypeError, match=r"'probe' must be a torch\.Tensor; got list"):
        make(make_attention(), [1.0])
    with pytest.raises(ValueError, match=r"'probe' must have shape \(probes, 8\) or"):
        make(make_attention(), normal(1, E + 1))
    with pytest.raises(ValueError, match="'probe' must be the same for all sequences; got shape"):
        make(make_attention(), normal(2, 1, E))
