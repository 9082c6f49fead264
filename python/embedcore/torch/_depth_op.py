# SPDX-License-Identifier: Apache-2.0
"""The operators ``embedcore::depth_score`` and its backward: schemas, shapes, derivatives, vmap."""

from __future__ import annotations

from typing import Any

import torch

from .. import _core
from ..depth import score
from ..depth._metrics import NATIVE_METRIC
from ..depth._subset import errors_of
from ._depth_cosine import cosine_depths, cosine_gradients
from ._depth_device import device_gradients, has_gradient_kernel
from ._depth_distance import distance_depths, distance_gradients
from ._depth_mahalanobis import mahalanobis_gradients
from ._depth_pairs import is_wide
from ._depth_spatial import spatial_depths, spatial_gradients
from ._depth_weights import WHERE
from ._revision import revision_of

# Autocast has no rule for these operators, so that their tensors stay as they are.
_library = torch.library.Library("embedcore", "FRAGMENT")
_TAGS = (torch.Tag.pt2_compliant_tag,)
_SCHEMAS = (
    "depth_score(Tensor x, Tensor? corpus, Tensor? weights, str metric, float? shrinkage, "
    "int threads, str revision) -> Tensor",
    "depth_score_backward(Tensor grad, Tensor depths, Tensor x, Tensor? corpus, Tensor? weights, "
    "str metric, float? shrinkage, int threads, str revision, bool of_x, bool of_corpus, "
    "bool of_weights) -> (Tensor, Tensor, Tensor)",
)
for _schema in _SCHEMAS:
    _library.define(_schema, tags=_TAGS)
_REVISION = revision_of(*_SCHEMAS)
depth_score_op = torch.ops.embedcore.depth_score.default
depth_score_backward_op = torch.ops.embedcore.depth_score_backward.default


def _result_dtype(x: torch.Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _forward(
    x: torch.Tensor,
    corpus: torch.Tensor | None,
    weights: torch.Tensor | None,
    metric: str,
    shrinkage: float | None,
    threads: int,
    revision: str,
) -> torch.Tensor:
    x, corpus, weights = _detached(x), _detached(corpus), _detached(weights)
    with errors_of(WHERE):
        if metric == "mahalanobis" or not is_wide(x, corpus):
            depths: torch.Tensor = score(
                x,
                corpus,
                metric=metric,
                weights=weights,
                shrinkage="auto" if shrinkage is None else shrinkage,
                threads=threads or None,
            )
            return depths
    if x.is_cpu:
        _check_values(x, corpus, weights, metric, threads)
    with torch.autocast(x.device.type, enabled=False):
        if metric == "cosine":
            depths = cosine_depths(x, corpus, weights)
        elif metric == "spatial":
            depths = spatial_depths(x, corpus, weights)
        else:
            depths = distance_depths(x, corpus, weights, metric)
    return depths.to(_result_dtype(x))


def _check_values(
    x: torch.Tensor,
    corpus: torch.Tensor | None,
    weights: torch.Tensor | None,
    metric: str,
    threads: int,
) -> None:
    """Let the native side refuse what it would refuse; O((n + m) d)."""
    if metric not in ("cosine", "chord", "arc"):
        _core.depth_check(WHERE, x, corpus, weights)
        # That leaves the sums of the weights, which rows of ones have too.
        x = x.new_ones((len(x), 1))
        corpus = None if corpus is None else corpus.new_ones((len(corpus), 1))
    cosine = NATIVE_METRIC["cosine"]
    _core.depth_score(
        WHERE, x, corpus, cosine, 0, weights, None, 1, None, threads, False, None, None
    )


def _backward(
    grad: torch.Tensor,
    depths: torch.Tensor,
    x: torch.Tensor,
    corpus: torch.Tensor | None,
    weights: torch.Tensor | None,
    metric: str,
    shrinkage: float | None,
    threads: int,
    revision: str,
    of_x: bool,
    of_corpus: bool,
    of_weights: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    grad, depths = _detached(grad), _detached(depths)
    x, corpus, weights = _detached(x), _detached(corpus), _detached(weights)
    wanted = (of_x, of_corpus, of_weights)
    with torch.autocast(x.device.type, enabled=False):
        if metric == "mahalanobis":
            found = mahalanobis_gradients(
                grad.cpu(), x.cpu(), _on_host(corpus), _on_host(weights), shrinkage, wanted
            )
        elif has_gradient_kernel(x, corpus):
            found = device_gradients(grad, depths, x, corpus, weights, metric, wanted)
        elif metric == "cosine":
            found = cosine_gradients(grad, depths, x, corpus, weights, wanted)
        elif metric == "spatial":
            found = spatial_gradients(grad, depths, x, corpus, weights, threads, wanted)
        else:
            found = distance_gradients(grad, depths, x, corpus, weights, metric, wanted)
    first, second, third = (
        x.new_empty(0) if given is None or gradient is None else gradient.to(given)
        for gradient, given in zip(found, (x, corpus, weights), strict=True)
    )
    return first, second, third


def _on_host(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.cpu()


def _detached(tensor: Any) -> Any:
    return None if tensor is None else tensor.detach()


def _forward_shape(
    x: torch.Tensor,
    corpus: torch.Tensor | None,
    weights: torch.Tensor | None,
    metric: str,
    shrinkage: float | None,
    threads: int,
    revision: str,
) -> torch.Tensor:
    return x.new_empty((x.shape[0],), dtype=_result_dtype(x))


def _backward_shape(
    grad: torch.Tensor,
    depths: torch.Tensor,
    x: torch.Tensor,
    corpus: torch.Tensor | None,
    weights: torch.Tensor | None,
    metric: str,
    shrinkage: float | None,
    threads: int,
    revision: str,
    of_x: bool,
    of_corpus: bool,
    of_weights: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    first, second, third = (
        given.new_empty(given.shape) if wanted and given is not None else x.new_empty(0)
        for wanted, given in ((of_x, x), (of_corpus, corpus), (of_weights, weights))
    )
    return first, second, third


class _Score(torch.autograd.Function):  # type: ignore[misc]
    """The operator with its derivatives as `torch.func.grad` needs them.

    That takes no operators whose derivatives were registered; compilation and export take them.
    """

    @staticmethod
    def forward(*arguments: Any) -> torch.Tensor:
        depths: torch.Tensor = depth_score_op(*arguments)
        return depths

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, corpus, weights, *ctx.options = inputs
        ctx.save_for_backward(output, x, corpus, weights)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        wanted = ctx.needs_input_grad[:3]
        found = _ScoreBackward.apply(grad, *ctx.saved_tensors, *ctx.options, *wanted)
        gradients = (g if needed else None for g, needed in zip(found, wanted, strict=True))
        return (*gradients, None, None, None, None)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
        x, corpus, *others = arguments
        if corpus is not None and all(axis is None for axis in in_dims[1:]):
            # One corpus: the rows of all batches are scored in one pass over it.
            rows = x.movedim(in_dims[0], 0)
            depths = depth_score_op(rows.flatten(0, 1), corpus, *others)
            return depths.unflatten(0, rows.shape[:2]), 0
        each = [depth_score_op(*one) for one in _unbatched(info, in_dims, arguments)]
        return torch.stack(each), 0


class _ScoreBackward(torch.autograd.Function):  # type: ignore[misc]
    """The backward, which has no derivatives of its own."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[torch.Tensor, ...]:
        gradients: tuple[torch.Tensor, ...] = depth_score_backward_op(*arguments)
        return gradients

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        del ctx, inputs, output

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        raise NotImplementedError(
            f"{WHERE}: has first derivatives only; got a request for second derivatives. Use "
            "create_graph=False, or finite differences of its gradients."
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
        each = [depth_score_backward_op(*one) for one in _unbatched(info, in_dims, arguments)]
        return tuple(torch.stack(part) for part in zip(*each, strict=True)), (0, 0, 0)


def _unbatched(info: Any, in_dims: tuple[Any, ...], arguments: tuple[Any, ...]) -> Any:
    """Yield the arguments of one call for each part of the batch."""
    for number in range(info.batch_size):
        yield [
            value if axis is None else value.select(axis, number)
            for value, axis in zip(arguments, in_dims, strict=True)
        ]


def score_with_gradients(*arguments: Any) -> torch.Tensor:
    """Call the operator so that all of Torch's transforms can take the call."""
    if torch.compiler.is_compiling():
        compiled: torch.Tensor = depth_score_op(*arguments, _REVISION)
        return compiled
    depths: torch.Tensor = _Score.apply(*arguments, _REVISION)
    return depths


for _device in ("CPU", "CUDA"):
    _library.impl("depth_score", _forward, _device)
    _library.impl("depth_score_backward", _backward, _device)
for _name, _shape, _function in (
    ("embedcore::depth_score", _forward_shape, _Score),
    ("embedcore::depth_score_backward", _backward_shape, _ScoreBackward),
):
    torch.library.register_fake(_name, _shape, lib=_library)
    torch.library.register_vmap(_name, _function.vmap, lib=_library)
    torch.library.register_autograd(
        _name, _function.backward, setup_context=_function.setup_context, lib=_library
    )
