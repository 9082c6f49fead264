# SPDX-License-Identifier: Apache-2.0
"""`torch.low_rank_attention` and its gradients against plain Torch, and by finite differences."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from embedcore import attention  # noqa: E402
from embedcore.torch import low_rank_attention, mean_pool  # noqa: E402
from embedcore.torch._ops import attention_op  # noqa: E402
from support.attention_torch import reference  # noqa: E402


def mixture(out: Any, lse: Any) -> Any:
    """Return a number that depends on everything; empty sequences have no lse."""
    weights = torch.arange(out.numel(), dtype=out.dtype).reshape(out.shape).cos()
    finite = torch.where(lse > -math.inf, lse, 0.0)
    return (out * weights).sum() + (finite * weights[..., 0]).sum()


def test_values_and_gradients(case: Any) -> None:
    leaves, expected_leaves = case.leaves(), case.leaves()
    out, lse = low_rank_attention(**{**case.options, **leaves}, return_lse=True)
    expected_out, expected_lse = reference(**{**case.options, **expected_leaves})
    torch.testing.assert_close(out, expected_out, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(lse, expected_lse, rtol=1e-12, atol=1e-12)
    mixture(out, lse).backward()
    mixture(expected_out, expected_lse).backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(
            leaf.grad, expected_leaves[name].grad, rtol=1e-10, atol=1e-11, msg=name
        )


def test_finite_differences(case: Any) -> None:
    names = case.differentiable()

    def function(*tensors: Any) -> Any:
        given = dict(zip(names, tensors, strict=True))
        out, lse, weights = low_rank_attention(
            **{**case.options, **given}, return_lse=True, return_weights=True
        )
        return out, lse[lse > -math.inf], weights

    assert torch.autograd.gradcheck(function, tuple(case.leaves().values()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["lama", "value", "mean context", "ragged", "bias of both"])
def test_other_dtypes(name: str, dtype: Any, make_case: Any) -> None:
    case, exact = make_case(name, dtype), make_case(name, torch.float64)
    leaves = case.leaves()
    exact_leaves = {k: leaf.detach().double().requires_grad_() for k, leaf in leaves.items()}
    out, lse = low_rank_attention(**{**case.options, **leaves}, return_lse=True)
    expected_out, _expected_lse = reference(**{**exact.options, **exact_leaves})
    assert out.dtype is dtype and lse.dtype is torch.float32
    # A rounding of a context shifts all scores by as much, divided by the temperature.
    epsilon = torch.finfo(dtype).eps
    bound = 30.0 * epsilon
    torch.testing.assert_close(out.double(), expected_out, rtol=bound, atol=bound)
    out.float().square().sum().backward()
    expected_out.square().sum().backward()
    for k, leaf in leaves.items():
        wanted = exact_leaves[k].grad
        assert leaf.grad.dtype is dtype
        error = (leaf.grad.double() - wanted).abs().max() / wanted.abs().max().clip(1e-3)
        assert error <= 60.0 * epsilon, k


@pytest.mark.parametrize("wanted", ["key", "query", "value", "temperature", "bias", "mask"])
def test_each_gradient_alone(wanted: str, make_case: Any) -> None:
    case = make_case("float mask", torch.float64)
    extra = make_case("bias of both", torch.float64).options["bias"]
    more = make_case("value", torch.float64).options["value"]
    heat = make_case("temperature of both", torch.float64).options["temperature"]
    options = {**case.options, "bias": extra, "value": more, "temperature": heat}
    grads = []
    for function in (low_rank_attention, lambda **given: reference(**given)[0]):
        leaf = options[wanted].clone().requires_grad_()
        (grad,) = torch.autograd.grad(function(**{**options, wanted: leaf}).square().sum(), leaf)
        grads.append(grad)
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("wanted", ["temperature", "bias", "mask", "value"])
def test_a_mean_context_with_one_gradient_alone(wanted: str) -> None:
    torch.manual_seed(0)
    key, query, P = torch.randn(3, 6, 4), torch.randn(4, 2), torch.randn(4, 2)
    given = {
        "temperature": torch.tensor(0.5),
        "bias": torch.randn(3, 6, 2),
        "mask": torch.randn(3, 6),
        "value": torch.randn(3, 6, 5),
    }

    def loss(**changed: Any) -> Any:
        arguments = {**given, **changed}
        value = arguments.pop("value")
        out = low_rank_attention(
            key.to(value.dtype), query, value, context="mean", P=P, activation="tanh", **arguments
        )
        return out.square().sum()

    leaf = given[wanted].clone().requires_grad_()
    (alone,) = torch.autograd.grad(loss(**{wanted: leaf}), leaf)
    both = query.clone().requires_grad_()
    query = both
    (among_others, _) = torch.autograd.grad(loss(**{wanted: leaf}), (leaf, both))
    torch.testing.assert_close(alone, among_others, rtol=0, atol=0)


def test_only_lse_has_a_gradient(make_case: Any) -> None:
    case = make_case("lama", torch.float64)
    leaves, expected = case.leaves(), case.leaves()
    low_rank_attention(**{**case.options, **leaves}, return_lse=True)[1].sum().backward()
    reference(**{**case.options, **expected})[1].sum().backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(leaf.grad, expected[name].grad, rtol=1e-10, atol=1e-12)


def test_weights_are_the_softmax(make_case: Any) -> None:
    case = make_case("lengths", torch.float64)
    out, weights = low_rank_attention(**case.options, return_weights=True)
    torch.testing.assert_close(weights @ case.options["key"], out)
    assert weights.sum(-1).round(decimals=12).tolist() == [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]


@pytest.mark.parametrize("also", ["out", "nothing"])
@pytest.mark.parametrize(
    "name", ["lama", "lengths and mask", "temperature of both", "bias of both"]
)
def test_weights_have_gradients(name: str, also: str, make_case: Any) -> None:
    """With the tokens' unit vectors as values, the plain result is the weights."""
    case = make_case(name, torch.float64)
    tokens = case.options["key"].shape[1]
    unit = torch.eye(tokens, dtype=torch.float64).expand(len(case.options["key"]), -1, -1)

    def penalty(weights: Any) -> Any:  # of structured self-attention (Lin et al., 2017)
        overlap = weights @ weights.mT
        return (overlap - torch.eye(overlap.shape[-1], dtype=overlap.dtype)).square().sum()

    leaves, expected = case.leaves(), case.leaves()
    out, weights = low_rank_attention(**{**case.options, **leaves}, return_weights=True)
    loss = penalty(weights) + (out.sin().sum() if also == "out" else 0.0)
    loss.backward()
    options = {**case.options, **expected}
    wanted = penalty(reference(**{**options, "value": unit})[0])
    (wanted + (reference(**options)[0].sin().sum() if also == "out" else 0.0)).backward()
    for key, leaf in leaves.items():
        torch.testing.assert_close(leaf.grad, expected[key].grad, rtol=1e-10, atol=1e-11, msg=key)


def test_the_operator_computes_the_same_bits(case: Any) -> None:
    direct = case.leaves()
    out, lse = low_rank_attention(**{**case.options, **direct}, return_lse=True)
    mixture(out, lse).backward()
    watched = case.leaves()

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        called = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            self.called += func is attention_op
            return func(*args, **(kwargs or {}))

    with Watch() as watch:
        other_out, other_lse = low_rank_attention(**{**case.options, **watched}, return_lse=True)
        mixture(other_out, other_lse).backward()
    assert watch.called == 1
    assert torch.equal(out, other_out) and torch.equal(lse, other_lse)
    for name, leaf in direct.items():
        assert torch.equal(leaf.grad, watched[name].grad), name


@pytest.mark.parametrize("activation", [None, "tanh"])
@pytest.mark.parametrize("norm", [None, "l2"])
def test_tokens_of_zeros_have_finite_gradients(activation: Any, norm: Any) -> None:
    key = torch.zeros(2, 4, 3)
    key[0, 0] = 1.0
    key.requires_grad_()
    query = torch.ones(3, 2, requires_grad=True)
    out = low_rank_attention(key, query, activation=activation, norm=norm, temperature=0.1)
    out.square().sum().backward()
    assert out.isfinite().all() and key.grad.isfinite().all() and query.grad.isfinite().all()


def test_empty_sequences_have_zero_gradients() -> None:
    leaves = [torch.randn(3, 4, 5, requires_grad=True), torch.randn(5, 2, requires_grad=True)]
    P = torch.randn(5, 2, requires_grad=True)
    out, lse = low_rank_attention(
        *leaves, P=P, context="mean", lengths=[0, 0, 0], norm="l2", return_lse=True
    )
    out.sum().backward()
    assert not out.any() and (lse == -math.inf).all()
    assert not any(leaf.grad.any() for leaf in (*leaves, P))


def test_padding_is_not_read_and_gets_no_gradient() -> None:
    key = torch.randn(2, 4, 3)
    key[0, 2:] = torch.nan
    key.requires_grad_()
    out = low_rank_attention(
        key, torch.randn(3, 2), P=torch.randn(3, 2), context="mean", lengths=[2, 4]
    )
    out.sum().backward()
    assert out.isfinite().all() and key.grad.isfinite().all() and not key.grad[0, 2:].any()


def test_masked_tokens_have_no_gradient() -> None:
    mask = torch.zeros(2, 3)
    mask[0], mask[1, 1] = -math.inf, -math.inf
    key = torch.randn(2, 3, 4, requires_grad=True)
    out = low_rank_attention(key, torch.randn(4, 2), mask=mask.requires_grad_(), temperature=0.5)
    out.square().sum().backward()
    assert not out[0].any() and mask.grad.isfinite().all() and key.grad.isfinite().all()
    removed = mask == -math.inf
    assert not mask.grad[removed].any() and not key.grad[removed].any() and key.grad.any()


def test_inputs_may_be_strided() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(4, 6, 10, generator=generator, dtype=torch.float64)
    query = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    for view in (wide[:, ::2, 2:7], wide[..., :5].transpose(0, 1), wide[:, :5].mT[..., :4].mT):
        d = view.shape[-1]
        leaf, packed = (x.detach().requires_grad_() for x in (view, view.contiguous()))
        factor = query.T if d == 5 else query.new_ones(d, 2)
        low_rank_attention(leaf, factor, norm="l2").square().sum().backward()
        low_rank_attention(packed, factor.contiguous(), norm="l2").square().sum().backward()
        torch.testing.assert_close(leaf.grad, packed.grad, rtol=1e-13, atol=1e-14)


def test_arrays_of_the_numpy_function_are_handed_over(case: Any) -> None:
    with torch.no_grad():
        assert torch.equal(
            attention.low_rank_attention(**case.options), low_rank_attention(**case.options)
        )


def test_out_is_written(make_case: Any) -> None:
    case = make_case("lama", torch.float32)
    expected = low_rank_attention(**case.options)
    out = torch.empty_like(expected)
    assert low_rank_attention(**case.options, out=out) is out
    assert torch.equal(out, expected)
    with torch.no_grad():
        leaves = {name: leaf.requires_grad_() for name, leaf in case.leaves().items()}
        assert low_rank_attention(**{**case.options, **leaves}, out=out.zero_()) is out
    assert torch.equal(out, expected)
    means = torch.empty(3, 4)
    assert mean_pool(case.options["key"], out=means) is means
    torch.testing.assert_close(means, case.options["key"].mean(1))


def test_saved_tensors_that_change_are_noticed() -> None:
    query = torch.randn(3, 2, requires_grad=True)
    key = torch.randn(2, 4, 3)
    out = low_rank_attention(key, query)
    key.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_gradients_of_gradients_are_refused() -> None:
    query = torch.randn(3, 2, requires_grad=True)
    out = low_rank_attention(torch.randn(2, 4, 3), query, norm="l2")
    (grad,) = torch.autograd.grad(out.square().sum(), query, create_graph=True)
    with pytest.raises(NotImplementedError, match="gradients of gradients must not be asked for"):
        grad.sum().backward()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("limits", ["none", "mask", "lengths", "ragged"])
def test_mean_pool(weighted: bool, limits: str, make_case: Any) -> None:
    name = {"mask": "boolean mask", "lengths": "lengths", "ragged": "ragged"}.get(limits, "plain")
    options = make_case(name, torch.float64).options
    tokens = options["key"].clone().requires_grad_()
    given = {k: options[k] for k in ("mask", "lengths", "cu_seqlens") if k in options}
    weights = None
    if weighted:
        weights = torch.rand(tokens.shape[:-1], dtype=torch.float64).requires_grad_()

    def expected(tokens: Any, weights: Any) -> Any:
        mask = weights.log() if weights is not None else None
        if weights is not None and "mask" in given:
            mask = torch.where(given["mask"], mask, -math.inf)
        elif weights is None:
            mask = given.get("mask")
        zeros = torch.zeros(4, 1, dtype=torch.float64)
        return reference(tokens, zeros, **{**given, "mask": mask})[0][:, 0]

    torch.testing.assert_close(
        mean_pool(tokens, weights=weights, **given), expected(tokens, weights)
    )
    leaves = (tokens,) if weights is None else (tokens, weights)
    grads = torch.autograd.grad(mean_pool(tokens, weights=weights, **given).sin().sum(), leaves)
    wanted = torch.autograd.grad(expected(tokens, weights).sin().sum(), leaves)
    torch.testing.assert_close(grads, wanted)


def test_weights_of_padding_are_not_looked_at() -> None:
    tokens, weights = torch.ones(1, 2, 2), torch.tensor([[1.0, math.nan]])
    found = mean_pool(tokens, lengths=torch.tensor([1]), weights=weights)
    assert (found == 1).all()


def test_weights_of_zero_leave_finite_gradients() -> None:
    weights = torch.tensor([[1.0, 0.0, 2.0]], requires_grad=True)
    mean_pool(torch.randn(1, 3, 2), weights=weights).sum().backward()
    assert weights.grad.isfinite().all() and weights.grad[0, 1] == 0.0
