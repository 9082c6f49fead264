# SPDX-License-Identifier: Apache-2.0
"""The oracle of attention: hand-computed cases, finite differences, Torch, published poolings."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from oracle import attention as oracle
from oracle import attention_references as published

Array = np.ndarray[Any, Any]
EXACT = {"rtol": 1e-12, "atol": 1e-13}


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


TOKENS = np.array([[[1.0, 0.0], [0.0, 1.0]]])


def test_two_tokens_by_hand() -> None:
    # Scores log 3 and 0: weights 3/4 and 1/4, and the sum of exp is 4.
    got = oracle.forward(TOKENS, [[math.log(3)], [0.0]], [[[8.0], [4.0]]])
    assert got.out.shape == (1, 1, 1)
    assert got.out[0, 0, 0] == pytest.approx(7)
    assert got.lse[0, 0] == pytest.approx(math.log(4))
    np.testing.assert_allclose(got.weights, [[[0.75, 0.25]]], **EXACT)
    np.testing.assert_allclose(got.scores, [[[math.log(3), 0]]], **EXACT)


def test_temperature_divides_score_and_mask() -> None:
    factor = [[math.log(2)], [0.0]]
    halved = oracle.forward(TOKENS, factor, temperature=0.5, mask=[[0.0, math.log(3)]])
    np.testing.assert_allclose(halved.weights[0, 0], np.array([4, 9]) / 13, **EXACT)
    assert halved.lse[0, 0] == pytest.approx(math.log(13))


def test_bias_is_inside_the_activation_and_the_mask_outside() -> None:
    bias = [[[1.0], [2.0]]]
    inside = oracle.forward(TOKENS, [[0.0], [0.0]], bias=bias, activation="tanh")
    e = np.exp(np.tanh([1.0, 2.0]))
    np.testing.assert_allclose(inside.weights[0, 0], e / e.sum(), **EXACT)
    outside = oracle.forward(TOKENS, [[0.0], [0.0]], mask=[[1.0, 2.0]], activation="tanh")
    np.testing.assert_allclose(outside.weights[0, 0, 1], 1 / (1 + math.exp(-1)), **EXACT)


def test_norm_is_over_heads() -> None:
    factor = [[3.0, 4.0], [0.0, 0.0]]  # token 0: scores (3, 4), length 5; token 1: (0, 0)
    got = oracle.forward(TOKENS, factor, norm="l2")
    expected = np.exp([0.6, 0.8])
    np.testing.assert_allclose(got.weights[0, :, 0], expected / (1 + expected), **EXACT)


def test_backward_of_two_tokens_by_hand() -> None:
    # Weights p, 1 - p with p = 3/4: d out / d score_0 = p (1 - p) (v_0 - v_1) = 3/16 * 4.
    factor, value = [[math.log(3)], [0.0]], [[[8.0], [4.0]]]
    g = oracle.backward(TOKENS, factor, value, grad_out=[[[1.0]]])
    step = 3 / 16 * 4
    np.testing.assert_allclose(g.value, [[[0.75], [0.25]]], **EXACT)
    np.testing.assert_allclose(g.bias, [[[step, -step]]], **EXACT)
    np.testing.assert_allclose(g.mask, [[step, -step]], **EXACT)
    np.testing.assert_allclose(g.query, [[[step, -step]]], **EXACT)
    np.testing.assert_allclose(g.key[0, :, 0], np.array([step, -step]) * math.log(3), **EXACT)
    np.testing.assert_allclose(g.temperature, [[-step * math.log(3)]], **EXACT)
    of_lse = oracle.backward(TOKENS, factor, value, grad_out=[[[0.0]]], grad_lse=[[1.0]])
    np.testing.assert_allclose(of_lse.bias, [[[0.75, 0.25]]], **EXACT)


def test_empty_sequences_and_heads_that_see_nothing() -> None:
    key = np.full((3, 2, 2), np.nan)
    key[2] = TOKENS[0]
    bias = np.zeros((3, 2, 2))
    bias[2, :, 0] = -np.inf
    options: dict[str, Any] = {"lengths": [0, 0, 2], "bias": bias}
    got = oracle.forward(key, np.ones((2, 2)), **options)
    assert (got.out[:2] == 0).all()
    assert (got.lse[:2] == -np.inf).all()
    assert (got.out[2, 0] == 0).all()
    assert got.lse[2].tolist() == [-np.inf, pytest.approx(1 + math.log(2))]
    g = oracle.backward(key, np.ones((2, 2)), grad_out=np.ones((3, 2, 2)), **options)
    assert all(np.isfinite(x).all() for x in g if x is not None)
    assert (g.key[:2] == 0).all()


def test_zero_tokens_have_no_gradient_through_the_norm() -> None:
    key = np.zeros((1, 3, 2))
    key[0, 0] = (1.0, 2.0)
    g = oracle.backward(
        key, normal(2, 3), activation="tanh", norm="l2", grad_out=np.ones((1, 3, 2))
    )
    assert (g.bias[0, :, 1:] == 0).all()
    assert np.isfinite(g.key).all()


def test_length_laws() -> None:
    np.testing.assert_allclose(oracle.length_law("log", [0, 1, 2, 100])[:3], 1)
    assert oracle.length_law("log", 100) == pytest.approx(math.log(100))
    assert oracle.length_law("sqrt_log", 100) == pytest.approx(math.sqrt(math.log(100)))
    assert oracle.length_law("log_squared", 100) == pytest.approx(math.log(100) ** 2)
    key, q = normal(2, 9, 3), normal(3, 2)
    mask = np.arange(9) < np.array([[9], [5]])
    scaled = oracle.low_rank_attention(key, q, mask=mask, length_scale="log", temperature=0.5)
    plain = oracle.low_rank_attention(key, q, mask=mask, temperature=0.5 / np.log([[9.0], [5.0]]))
    np.testing.assert_allclose(scaled.out, plain.out, **EXACT)


def test_a_vector_that_fits_both_is_per_head() -> None:
    t, _ = oracle.temperature_of([1.0, 2.0], None, np.array([4, 4]), 2)
    np.testing.assert_array_equal(t, [[1, 2], [1, 2]])
    t, _ = oracle.temperature_of([1.0, 2.0], None, np.array([4, 4]), 3)
    np.testing.assert_array_equal(t, [[1, 1, 1], [2, 2, 2]])


B, L, DK, DV, M, R = 3, 6, 4, 3, 2, 2
MASK = np.random.default_rng(9).random((B, L)) < 0.6
ADDED = np.where(MASK, normal(B, L, seed=8), -np.inf)
PACKED = {"cu_seqlens": np.array([0, 4, 4, 11])}

FACTORS: dict[str, dict[str, Any]] = {
    "plain": {"query": normal(DK, M, seed=1)},
    "per sequence": {"query": normal(B, DK, M, seed=1)},
    "vector": {"query": normal(DK, M, seed=1), "P": normal(DK, M), "context": normal(DK, seed=2)},
    "contexts": {
        "query": normal(DK, R, M, seed=1),
        "P": normal(DK, R, M),
        "context": normal(B, DK, seed=2),
    },
    "mean": {"query": normal(DK, R, M, seed=1), "P": normal(DK, R, M), "context": "mean"},
}
MASKS: dict[str, dict[str, Any]] = {
    "dense": {},
    "lengths": {"lengths": np.array([4, 0, 6])},
    "bool": {"mask": MASK, "lengths": np.array([5, 6, 6])},
    "float": {"mask": ADDED, "bias": normal(B, L, M)},
    "ragged": {**PACKED, "bias": normal(11, seed=4), "mask": normal(11, seed=5)},
}
TEMPERATURES: dict[str, Any] = {
    "number": 0.7,
    "heads": np.array([0.5, 1.5]),
    "sequences": np.array([[0.5], [1.5], [0.3]]),
    "both": np.abs(normal(B, M)) + 0.3,
}
DIFFERENTIABLE = ("key", "value", "query", "P", "context", "bias", "mask", "temperature")


def case(factor: str, masking: str, temperature: str, **more: Any) -> dict[str, Any]:
    leading = (11,) if masking == "ragged" else (B, L)
    options = {
        "key": normal(*leading, DK, seed=3),
        "value": normal(*leading, DV, seed=4),
        **FACTORS[factor],
        **MASKS[masking],
        "temperature": TEMPERATURES[temperature],
        **more,
    }
    return options


def loss(options: dict[str, Any], grad_out: Array, grad_lse: Array) -> float:
    got = oracle.low_rank_attention(**options)
    lse = np.where(np.isfinite(got.lse), got.lse, 0)
    return float((got.out * grad_out).sum() + (lse * grad_lse).sum())


def differences(options: dict[str, Any], name: str, *gradients: Array) -> Array:
    """Central differences of the loss in one argument; places at -inf stay there."""
    x = np.asarray(options[name], np.float64)
    found = np.zeros(x.shape)
    for at in np.ndindex(x.shape):
        if x[at] == -np.inf:
            continue
        ends = []
        for step in (1e-5, -1e-5):
            moved = x.copy()
            moved[at] += step
            ends.append(loss({**options, name: moved}, *gradients))
        found[at] = (ends[0] - ends[1]) / 2e-5
    return found


@pytest.mark.parametrize("masking", MASKS)
@pytest.mark.parametrize("factor", FACTORS)
def test_gradients_agree_with_differences(factor: str, masking: str) -> None:
    kinds = itertools.product((None, "tanh"), (None, "l2"), (False, True))
    for i, (activation, norm, own) in enumerate(kinds):
        options = case(
            factor,
            masking,
            list(TEMPERATURES)[i % 4],
            activation=activation,
            norm=norm,
            length_scale=(None, "log_squared", np.array([1.0, 2.0, 0.5]))[i % 3],
        )
        if own:
            options["value"] = None
        grad_out = normal(B, M, DK if own else DV, seed=6)
        grad_lse = normal(B, M, seed=7)
        got = oracle.low_rank_attention_backward(**options, grad_out=grad_out, grad_lse=grad_lse)
        floats = [
            name
            for name in DIFFERENTIABLE
            if options.get(name) is not None
            and not isinstance(options[name], str)
            and np.asarray(options[name]).dtype != bool
        ]
        assert sorted(got) == sorted(floats)
        for name in floats:
            expected = differences(options, name, grad_out, grad_lse)
            assert got[name].shape == np.shape(options[name])
            np.testing.assert_allclose(got[name], expected, rtol=2e-6, atol=2e-8, err_msg=name)


@pytest.mark.parametrize("norm", [None, "l2"])
@pytest.mark.parametrize("activation", [None, "tanh"])
def test_torch_agrees(activation: str | None, norm: str | None) -> None:
    torch = pytest.importorskip("torch")
    key, q, value = normal(B, L, DK), normal(DK, M, seed=1), normal(B, L, DV, seed=2)
    t, bias = np.abs(normal(B, M, seed=3)) + 0.2, normal(B, L, M, seed=4)
    added = normal(B, L, seed=5)  # finite: Torch's gradient of t is NaN where a mask is -inf
    leaves = [torch.tensor(x, requires_grad=True) for x in (key, q, value, t, bias, added)]
    k_t, q_t, v_t, t_t, b_t, m_t = leaves
    z = k_t @ q_t + b_t
    a = torch.tanh(z) if activation else z
    f = torch.nn.functional.normalize(a, dim=2) if norm else a
    s = (f + m_t[..., None]) / t_t[:, None]
    out = torch.softmax(s, 1).mT @ v_t
    lse = torch.logsumexp(s, 1)
    options: dict[str, Any] = {"mask": added, "bias": bias, "temperature": t}
    options.update(activation=activation, norm=norm)
    got = oracle.forward(key, q, value, **options)
    np.testing.assert_allclose(got.out, out.detach(), **EXACT)
    np.testing.assert_allclose(got.lse, lse.detach(), **EXACT)
    grad_out, grad_lse = normal(B, M, DV, seed=6), normal(B, M, seed=7)
    ((out * torch.tensor(grad_out)).sum() + (lse * torch.tensor(grad_lse)).sum()).backward()
    g = oracle.backward(key, q, value, grad_out=grad_out, grad_lse=grad_lse, **options)
    assert g.query is not None
    pairs = (g.key, g.query[0].T, g.value, g.temperature, np.moveaxis(g.bias, 1, 2), g.mask)
    for found, leaf in zip(pairs, leaves, strict=True):
        np.testing.assert_allclose(found, leaf.grad, rtol=1e-11, atol=1e-12)


def test_lama_is_a_special_case() -> None:
    h, u, q, p = normal(B, L, DK), normal(B, L, DK, seed=5), normal(DK, M), normal(DK, M, seed=2)
    mask = MASK.copy()
    mask[:, 0] = True
    for context in (normal(DK, seed=3), normal(B, DK, seed=4)):
        pooled, weights = published.lama(h, q, p, context, mask, keys=u)
        got = oracle.low_rank_attention(
            u, q, h, P=p, context=context, mask=mask, activation="tanh", norm="l2"
        )
        np.testing.assert_allclose(got.out, pooled, **EXACT)
        np.testing.assert_allclose(np.moveaxis(got.weights, 1, 2), weights, **EXACT)
    mean = published.mean_pooling(h, mask)
    options: dict[str, Any] = {"mask": mask, "activation": "tanh", "norm": "l2"}
    got = oracle.low_rank_attention(h, q, P=p, context="mean", **options)
    np.testing.assert_allclose(got.out, published.lama(h, q, p, mean, mask)[0], **EXACT)


def test_structured_self_attention_is_a_special_case() -> None:
    h, w1, w2 = normal(B, L, DV), normal(5, DV, seed=1), normal(M, 5, seed=2)
    pooled, weights = published.structured_self_attention(h, w1, w2, np.ones((B, L), bool))
    got = oracle.forward(np.tanh(h @ w1.T), w2.T, h)
    np.testing.assert_allclose(got.out, pooled, **EXACT)
    np.testing.assert_allclose(np.moveaxis(got.weights, 1, 2), weights, **EXACT)


def test_means_are_special_cases() -> None:
    h, mask, w = normal(B, L, DV), MASK.copy(), np.abs(normal(B, L, seed=1))
    mask[:, 1] = True
    got = oracle.forward(h, None, mask=mask)
    np.testing.assert_allclose(got.out[:, 0], published.mean_pooling(h, mask), **EXACT)
    got = oracle.forward(h, None, mask=mask, bias=np.log(w)[..., None])
    np.testing.assert_allclose(got.out[:, 0], published.mean_pooling(h, mask, w), **EXACT)


def test_merged_halves_are_the_whole() -> None:
    key, q = normal(B, L, DK), normal(DK, M)
    whole = oracle.forward(key, q)
    halves = [oracle.forward(part, q) for part in (key[:, :2], key[:, 2:], key[:, :0])]
    merged = published.merge_states([p.out for p in halves], [p.lse for p in halves])
    np.testing.assert_allclose(merged[0], whole.out, **EXACT)
    np.testing.assert_allclose(merged[1], whole.lse, **EXACT)


@pytest.mark.parametrize("bias", [False, True])
def test_multihead_attention_pooling_agrees_with_torch(bias: bool) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.MultiheadAttention(8, 2, bias=bias, batch_first=True, dtype=torch.float64)
    if bias:
        torch.nn.init.normal_(module.in_proj_bias)
        torch.nn.init.normal_(module.out_proj.bias)
    h, queries, mask = normal(B, L, 8), normal(3, 8, seed=1), MASK.copy()
    mask[:, 0] = True
    tokens, expanded = torch.tensor(h), torch.tensor(queries).expand(B, -1, -1)
    expected, _ = module(expanded, tokens, tokens, key_padding_mask=torch.tensor(~mask))
    state = {name: x.detach().numpy() for name, x in module.named_parameters()}
    got = published.multihead_attention_pooling(
        h,
        queries,
        state["in_proj_weight"],
        state.get("in_proj_bias"),
        state["out_proj.weight"],
        state.get("out_proj.bias"),
        2,
        mask,
    )
    np.testing.assert_allclose(got, expected.detach(), **EXACT)
