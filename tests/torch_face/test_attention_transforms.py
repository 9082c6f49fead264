# SPDX-License-Identifier: Apache-2.0
"""`torch.low_rank_attention` under Torch's transforms: opcheck, compile, export, vmap, autocast."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import embedcore  # noqa: E402
from embedcore.torch import low_rank_attention, mean_pool  # noqa: E402
from embedcore.torch._ops import attention_op  # noqa: E402
from embedcore.torch._revision import revision_of  # noqa: E402

# Torch's own: parts that it loads when they are first used.
IGNORE_JIT = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

BACKWARD_OP = torch.ops.embedcore.low_rank_attention_backward.default
# Those that say most; every case goes through the operator in the tests of gradients.
TRACED = ("lama", "value", "lengths and mask", "ragged", "bias of both", "mean context")


def normal(*shape: int, seed: int = 0, dtype: Any = torch.float64) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
    """Keeps the arguments of the calls of an operator."""

    def __init__(self, operator: Any) -> None:
        super().__init__()
        self.operator = operator
        self.calls: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is self.operator:
            self.calls.append(args)
        return func(*args, **(kwargs or {}))


def detached(arguments: Any) -> list[Any]:
    return [a.detach() if isinstance(a, torch.Tensor) else a for a in arguments]


def same(got: Any, expected: Any) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("record", [False, True], ids=["inference", "gradients"])
def test_the_operator_is_registered_right(case: Any, record: bool) -> None:
    options = {**case.options, **(case.leaves() if record else {})}
    with Recorder(attention_op) as forward:
        low_rank_attention(**options, return_weights=True)
    (arguments,) = forward.calls
    leaves = detached(arguments)
    for leaf in leaves:
        if record and isinstance(leaf, torch.Tensor) and leaf.dtype.is_floating_point:
            leaf.requires_grad_()
    torch.library.opcheck(attention_op, leaves)


def test_the_operator_of_the_backward_is_registered_right(case: Any) -> None:
    with Recorder(BACKWARD_OP) as backward:
        out, weights = low_rank_attention(**{**case.options, **case.leaves()}, return_weights=True)
        (out.sum() + weights.square().sum()).backward()
    (arguments,) = backward.calls
    torch.library.opcheck(BACKWARD_OP, detached(arguments))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["lama", "mean context", "ragged"])
def test_the_operator_is_registered_right_for_other_dtypes(
    name: str, dtype: Any, make_case: Any
) -> None:
    case = make_case(name, dtype)
    with Recorder(attention_op) as forward, Recorder(BACKWARD_OP) as backward:
        low_rank_attention(**{**case.options, **case.leaves()}).sum().backward()
    torch.library.opcheck(BACKWARD_OP, detached(backward.calls[0]))
    torch.library.opcheck(attention_op, detached(forward.calls[0]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_operator_is_registered_right_for_means(weighted: bool, dtype: Any) -> None:
    tokens = normal(2, 5, 3, dtype=dtype).requires_grad_()
    weights = torch.rand(2, 5).requires_grad_() if weighted else None
    with Recorder(attention_op) as forward, Recorder(BACKWARD_OP) as backward:
        pooled = mean_pool(tokens, weights=weights, lengths=[5, 2])
        pooled.sum().backward()
    torch.library.opcheck(BACKWARD_OP, detached(backward.calls[0]))
    torch.library.opcheck(attention_op, detached(forward.calls[0]))
    leaves = [tokens] if weights is None else [tokens, weights]
    expected = [leaf.grad for leaf in leaves]
    direct = torch.autograd.grad(mean_pool(tokens, weights=weights, lengths=[5, 2]).sum(), leaves)
    same(list(direct), expected)


@pytest.mark.parametrize("dynamic", [True, None])
@pytest.mark.parametrize("name", TRACED)
def test_compiles_without_breaks(name: str, dynamic: bool | None, make_case: Any) -> None:
    case = make_case(name, torch.float64)
    names = case.differentiable()
    torch._dynamo.reset()

    def loss(*tensors: Any) -> Any:
        given = dict(zip(names, tensors, strict=True))
        given["key"] = given["key"] * 2.0
        out, lse, weights = low_rank_attention(
            **{**case.options, **given}, return_lse=True, return_weights=True
        )
        return out.sin().sum() + lse.exp().sum() + weights.square().sum()

    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    leaves = tuple(case.leaves().values())
    same(compiled(*leaves), loss(*leaves))
    expected = torch.autograd.grad(loss(*leaves), leaves)
    same(torch.autograd.grad(compiled(*leaves), leaves), expected)
    with torch.no_grad():
        same(compiled(*leaves), loss(*leaves))


def test_compiled_shapes_may_change() -> None:
    torch._dynamo.reset()
    counted = torch._dynamo.testing.CompileCounter()

    def pooled(key: Any, query: Any, P: Any, lengths: Any) -> Any:
        return low_rank_attention(key, query, P=P, context="mean", lengths=lengths, norm="l2")

    compiled = torch.compile(pooled, fullgraph=True, dynamic=True, backend=counted)
    query, P = normal(4, 3), normal(4, 3, seed=1)
    for sequences, tokens in ((2, 5), (3, 9), (4, 6)):
        key, lengths = normal(sequences, tokens, 4), torch.full((sequences,), 4)
        same(compiled(key, query, P, lengths), pooled(key, query, P, lengths))
    assert counted.frame_count == 1


@IGNORE_JIT
@pytest.mark.slow
def test_compiles_with_the_default_backend() -> None:
    torch._dynamo.reset()
    key, query = normal(3, 5, 4).requires_grad_(), normal(4, 2).requires_grad_()

    def loss(key: Any, query: Any) -> Any:
        out = low_rank_attention(key, query, activation="tanh", norm="l2", temperature=0.2)
        return out.square().sum()

    expected = torch.autograd.grad(loss(key, query), (key, query))
    compiled = torch.compile(loss, fullgraph=True)
    same(torch.autograd.grad(compiled(key, query), (key, query)), expected)


@IGNORE_JIT
@pytest.mark.slow
def test_compiled_code_of_another_revision_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    key, query = normal(3, 5, 4).requires_grad_(), normal(4, 2).requires_grad_()
    hits = torch._dynamo.utils.counters["aot_autograd"]

    def hits_of_one_compilation() -> int:
        torch._dynamo.reset()
        before = hits["autograd_cache_hit"]
        out = torch.compile(low_rank_attention, fullgraph=True)(key, query, temperature=0.7)
        torch.autograd.grad(out, (key, query), torch.ones_like(out))
        return hits["autograd_cache_hit"] - before

    assert [hits_of_one_compilation() for _ in range(2)] == [0, 1]
    monkeypatch.setattr("embedcore.torch._attention.REVISION", "another")
    assert hits_of_one_compilation() == 0


def test_revisions_follow_the_schemas() -> None:
    names = [revision_of("f(int a)"), revision_of("f(int b)"), revision_of("f(int a)", "g(int b)")]
    assert len(set(names)) == 3
    assert all(name.startswith(embedcore.__version__) for name in names)


class Pooled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = torch.nn.Parameter(normal(4, 3))
        self.P = torch.nn.Parameter(normal(4, 3, seed=1))

    def forward(self, key: Any, lengths: Any) -> Any:
        pooled = low_rank_attention(
            key, self.query, P=self.P, context="mean", lengths=lengths, length_scale="log"
        )
        return pooled, mean_pool(key, lengths=lengths)


@pytest.mark.parametrize("strict", [False, True])
def test_exports_with_dynamic_batch_and_length(strict: bool) -> None:
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=1)
    module = Pooled()
    program = torch.export.export(
        module,
        (normal(3, 5, 4), torch.tensor([5, 0, 2])),
        dynamic_shapes={"key": {0: batch, 1: length}, "lengths": {0: batch}},
        strict=strict,
    )
    calls = [node for node in program.graph.nodes if node.target is attention_op]
    # Scores are kept for gradients alone, which an exported forward seldom needs.
    assert len(calls) == 2 and not any(node.args[-2] for node in calls)
    key, lengths = normal(6, 8, 4), torch.tensor([8, 1, 0, 3, 4, 7])
    exported = program.module()
    same(exported(key, lengths), module(key, lengths))
    # The backward of the exported call computes the scores again.
    leaf = key.clone().requires_grad_()
    expected = key.clone().requires_grad_()
    exported(leaf, lengths)[0].square().sum().backward()
    module(expected, lengths)[0].square().sum().backward()
    same(leaf.grad, expected.grad)


MAPPED = {
    "key": {"key": 0},
    "query": {"query": 0},
    "both": {"key": 0, "query": 0},
    "last axes": {"key": 2, "query": 1},
    "what limits": {"key": 0, "lengths": 0, "mask": 0},
    "all": {"key": 0, "query": 0, "bias": 0, "temperature": 0, "mask": 0},
    "value": {"key": 0, "value": 0},
    "value alone": {"value": 0},
    "temperature alone": {"temperature": 0},
}


@pytest.mark.parametrize(
    "base",
    ["plain", "query of each sequence", "ragged", "mean context", "value", "bias of both",
     "temperature of both"],
)  # fmt: skip
@pytest.mark.parametrize("mapped", list(MAPPED))
def test_vmap(base: str, mapped: str, make_case: Any) -> None:
    options = make_case(base, torch.float64).options
    options.setdefault("temperature", 0.5)
    dims = {name: dim for name, dim in MAPPED[mapped].items() if name in options}
    dims = {name: dim for name, dim in dims.items() if isinstance(options[name], torch.Tensor)}
    dims = dims or {"query": 0}
    stacks = {
        name: torch.stack([options[name] * scale for scale in (1, 2)], dim)
        if options[name].dtype.is_floating_point
        else torch.stack([options[name], options[name].flip(0)], dim)
        for name, dim in dims.items()
    }

    def pool(*tensors: Any) -> Any:
        given = dict(zip(stacks, tensors, strict=True))
        return low_rank_attention(
            **{**options, **given}, norm="l2", return_lse=True, return_weights=True
        )

    options.pop("norm", None)
    got = torch.vmap(pool, in_dims=tuple(dims.values()))(*stacks.values())
    turns = [
        pool(*(stack.select(dims[name], turn) for name, stack in stacks.items()))
        for turn in range(2)
    ]
    for stacked, parts in zip(got, zip(*turns, strict=True), strict=True):
        same(stacked, torch.stack(parts))


def test_gradients_of_each_sample() -> None:
    key, query, P = normal(4, 5, 3), normal(3, 2), normal(3, 2, seed=1)

    def loss(query: Any, P: Any, sample: Any) -> Any:
        out = low_rank_attention(sample[None], query, P=P, context="mean", norm="l2")
        return out.square().sum()

    got = torch.vmap(torch.func.grad(loss, (0, 1)), (None, None, 0))(query, P, key)
    for turn in range(4):
        leaves = [query.clone().requires_grad_(), P.clone().requires_grad_()]
        expected = torch.autograd.grad(loss(*leaves, key[turn]), leaves)
        for stacked, grad in zip(got, expected, strict=True):
            same(stacked[turn], grad)


def test_jacobians_and_functional_gradients() -> None:
    key, query = normal(2, 5, 3), normal(3, 2)

    def pool(query: Any) -> Any:
        return low_rank_attention(key, query, activation="tanh", temperature=0.5)

    expected = torch.autograd.functional.jacobian(pool, query)
    same(torch.func.jacrev(pool)(query), expected)
    value, pull = torch.func.vjp(pool, query)
    same(value, pool(query))
    same(pull(torch.ones_like(value))[0], expected.sum((0, 1, 2)))


def test_gradients_may_be_batched() -> None:
    key, query = normal(2, 5, 3), normal(3, 2).requires_grad_()
    out = low_rank_attention(key, query, P=query, context="mean", norm="l2")
    directions = normal(4, *out.shape)
    (got,) = torch.autograd.grad(out, query, directions, is_grads_batched=True, retain_graph=True)
    for grad, direction in zip(got, directions, strict=True):
        same(grad, torch.autograd.grad(out, query, direction, retain_graph=True)[0])


def test_checkpoints_run_the_forward_again() -> None:
    key, query = normal(2, 5, 3).requires_grad_(), normal(3, 2)

    def loss(key: Any) -> Any:
        return low_rank_attention(key, query, norm="l2").square().sum()

    (expected,) = torch.autograd.grad(loss(key), key)
    again = torch.utils.checkpoint.checkpoint(loss, key, use_reentrant=False)
    same(torch.autograd.grad(again, key)[0], expected)


@pytest.mark.parametrize("shape", [(0, 5, 4), (2, 0, 4), (0, 0, 4)], ids=str)
def test_nothing_is_something(shape: tuple[int, ...]) -> None:
    key = torch.ones(shape, requires_grad=True)
    query = torch.ones(4, 3, requires_grad=True)
    out = low_rank_attention(key, query, P=query, context="mean", norm="l2")
    out.sum().backward()
    assert out.shape == (shape[0], 3, 4) and not out.any()
    assert key.grad.shape == shape and not query.grad.any()
    assert mean_pool(key).shape == (shape[0], 4)
    tensors = (key, query, None, query, None, None, None, None, None)
    torch.library.opcheck(attention_op, (*tensors, 0.3, 1, 1, 0, "", True, True))


@IGNORE_JIT
def test_derivatives_in_forward_mode_are_refused() -> None:
    key, query = normal(2, 5, 3), normal(3, 2)
    with pytest.raises(NotImplementedError, match="jvp"):
        torch.func.jvp(lambda key: low_rank_attention(key, query), (key,), (key,))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(key, key)
        with pytest.raises(NotImplementedError, match="jvp"):
            low_rank_attention(dual, query)


def test_second_derivatives_under_transforms_are_refused() -> None:
    key, query = normal(2, 5, 3), normal(3, 2)

    def slope(query: Any) -> Any:
        return torch.func.grad(lambda q: low_rank_attention(key, q).square().sum())(query).sum()

    with pytest.raises(NotImplementedError, match="gradients of gradients"):
        torch.func.grad(slope)(query)


def test_autocast_casts_nothing() -> None:
    key, query = normal(2, 5, 8, dtype=torch.bfloat16), normal(8, 2, dtype=torch.float32)
    expected = low_rank_attention(key, query, norm="l2")
    assert expected.dtype is torch.bfloat16
    leaf = query.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(low_rank_attention(key, query, norm="l2"), expected)
        out = low_rank_attention(key.float(), leaf, norm="l2")
        assert out.dtype is torch.float32
    out.sum().backward()
    assert leaf.grad.dtype is torch.float32
    compiled = torch.compile(
        lambda key, query: low_rank_attention(key, query, norm="l2"), backend="aot_eager"
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compiled(key, query), expected)


@pytest.mark.parametrize("name", ["lama", "context", "rank", "mean context"])
def test_autocast_changes_no_bits(name: str, make_case: Any) -> None:
    case = make_case(name, torch.float32)
    results = []
    for enabled in (False, True):
        leaves = case.leaves()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = low_rank_attention(**{**case.options, **leaves})
        out.sin().sum().backward()
        results.append([out, *(leaf.grad for leaf in leaves.values())])
    same(results[1], results[0])


def test_traced_graphs_hold_the_operator() -> None:
    key, query = normal(2, 5, 3), normal(3, 2)
    graph = torch.fx.experimental.proxy_tensor.make_fx(
        lambda key, query: low_rank_attention(key, query), tracing_mode="symbolic"
    )(key, query)
    same(graph(2 * key, query), low_rank_attention(2 * key, query))


def test_meta_tensors_give_shapes() -> None:
    key, query = torch.empty(2, 5, 3, device="meta"), torch.empty(3, 4, device="meta")
    out, lse = low_rank_attention(key, query, return_lse=True)
    assert out.is_meta and out.shape == (2, 4, 3) and lse.shape == (2, 4)


def test_a_default_device_changes_nothing() -> None:
    key, query = normal(2, 5, 3), normal(3, 2)
    expected = low_rank_attention(key, query, P=query, context="mean")
    with torch.device("meta"):
        same(low_rank_attention(key, query, P=query, context="mean"), expected)


def test_other_subclasses_of_tensor_go_through_the_operator() -> None:
    class Named(torch.Tensor):
        pass

    key, query = normal(2, 5, 3), normal(3, 2)
    out = low_rank_attention(key.as_subclass(Named), query)
    assert type(out) is Named
    same(out.as_subclass(torch.Tensor), low_rank_attention(key, query))


def test_vmap_of_gradients_of_ragged_sequences() -> None:
    rows, query = torch.randn(3, 11, 6), torch.randn(6, 2)
    ends = torch.tensor([0, 4, 11])

    def loss(rows: Any, query: Any) -> Any:
        return low_rank_attention(rows, query, cu_seqlens=ends).square().sum()

    got = torch.vmap(torch.func.grad(loss, (0, 1)), (0, None))(rows, query)
    each = [torch.func.grad(loss, (0, 1))(one, query) for one in rows]
    for found, expected in zip(got, zip(*each, strict=True), strict=True):
        torch.testing.assert_close(found, torch.stack(expected))
