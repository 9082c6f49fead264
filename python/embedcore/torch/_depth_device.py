# SPDX-License-Identifier: Apache-2.0
"""Gradients of depths by the kernels of the GPU; nothing here waits for it."""

from __future__ import annotations

import math

import torch

from .._device import call_of
from ..depth._gradient_on_device import gradients_on_device
from ._depth_pairs import is_wide
from ._depth_weights import WHERE, Weights


def has_gradient_kernel(x: torch.Tensor, corpus: torch.Tensor | None) -> bool:
    """Whether `device_gradients` has those of these arguments, but for mahalanobis."""
    return x.is_cuda and len(x) > 0 and not is_wide(x, corpus)


def device_gradients(
    grad: torch.Tensor,
    depths: torch.Tensor,
    x: torch.Tensor,
    corpus: torch.Tensor | None,
    weights: torch.Tensor | None,
    metric: str,
    wanted: tuple[bool, bool, bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Return the gradients of x, corpus and weights that are wanted."""
    w, d, g = Weights.of(weights, x, corpus), depths.double(), grad.double()
    if metric == "cosine":
        slope, means = torch.ones_like(d), d - 1.0
    elif metric == "l2":
        slope, means = -d * d, torch.where(d > 0.0, 1.0 / d - 1.0, 0.0)
    elif metric == "spatial":
        slope, means = -torch.ones_like(d), 1.0 - d
    else:
        slope, means = -torch.ones_like(d), (math.pi if metric == "arc" else 2.0) - d
    pull = g * slope / w.remaining
    call = call_of(WHERE, "x", x, differentiable=True)
    assert call is not None, "only tensors on a GPU come here"
    # What spatial depth pulls with is that of the depth, not of the mean.
    given = -pull if metric == "spatial" else pull
    with call.on_device():
        of_x, of_corpus, sums = gradients_on_device(
            call, x, corpus, metric, given.float(), w.each.float(), wanted
        )
    return of_x, of_corpus, None if sums is None else w.gradient(sums, pull, means)
