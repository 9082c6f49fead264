# SPDX-License-Identifier: Apache-2.0
"""`depth_score`: the smooth depths of `embedcore.depth.score`, differentiable."""

from __future__ import annotations

from typing import Any

import torch

from .._check import choose, integer
from ..depth._subset import errors_of
from ..depth._whitened import checked_shrinkage
from ._depth_op import score_with_gradients
from ._depth_weights import WHERE

SMOOTH_METRICS = ("cosine", "chord", "arc", "l2", "spatial", "mahalanobis")


def depth_score(
    x: torch.Tensor,
    corpus: torch.Tensor | None = None,
    *,
    metric: str = "cosine",
    weights: torch.Tensor | None = None,
    shrinkage: float | str = "auto",
    threads: int | None = None,
) -> torch.Tensor:
    r"""Return the depth of each row of `x` in a corpus, differentiable in all tensors.

    The depths are those of :func:`embedcore.depth.score`, where their formulas stand. No distance
    matrix is held in either direction.

    Parameters
    ----------
    x : Tensor (n, d)
        Embeddings: float16, bfloat16, float32 or float64, any strides, on the CPU or a CUDA device,
        where all tensors must be. On a CUDA device values are not checked (see
        :func:`embedcore.depth.score`), float64 is computed by Torch, block by block, and the
        gradients of ``mahalanobis`` are taken on the CPU.
    corpus : Tensor (m, d), optional
        The corpus. Without it, the corpus is `x` and each row is left out of its own depth.
    metric : {"cosine", "chord", "arc", "l2", "spatial", "mahalanobis"}
        The depth. Those of :func:`embedcore.depth.score` that count ranks have no useful gradient.
    weights : Tensor (m,), optional
        Non-negative weights of the corpus rows, float32 or float64, in any unit.
    shrinkage : float in [0, 1] or "auto", default "auto"
        Of the covariance, for ``mahalanobis``. Where ``"auto"`` estimates the intensity, the
        gradient goes through the estimate, too.
    threads : int, optional
        Of the native kernels; default :func:`embedcore.get_num_threads`. Products in the backward
        use the threads of Torch, ``mahalanobis`` those of NumPy.

    Returns
    -------
    Tensor (n,)
        float64 for float64 `x`, else float32.

    Raises
    ------
    TypeError
        Arguments that are no tensors, tensors of other dtypes, or on several devices.
    ValueError
        As :func:`embedcore.depth.score`: shapes that do not fit, rows that are not finite, zero
        rows under the angular metrics, corpora without weight, unknown names.
    NotImplementedError
        When the gradients are differentiated again, or in forward mode.

    Notes
    -----
    *Values.* Without a float64 tensor they are the bits of :func:`embedcore.depth.score`. Where `x`
    or `corpus` is float64 so is all arithmetic (there, pair products are of float32): the two
    differ by the error that :func:`embedcore.depth.score` states. ``mahalanobis`` is the same in
    all dtypes.

    *Gradients* are of the dtype of their tensor. Products are of float32, for float64 tensors of
    float64; pairs too close for products are taken from their difference in float64. What the
    gradient is where a depth has a kink:

    - A pair of equal rows (for the angular metrics: of one direction) adds no gradient, which is
      the middle of the slopes around it. Nor do opposite directions under ``arc``.
    - Near a corpus row ``spatial`` is as steep as 1 / distance. At its maximum 1, and where
      rounding takes the mean of the unit vectors to 0, its gradient is 0.
    - A row under ``mahalanobis`` that no covariance of the other rows reaches has depth 0 and
      gradient 0. ``"auto"`` is constant where it chooses no shrinkage or the largest.
    - Angular depths do not change along a row, so that gradients are orthogonal to their rows.

    *Flops*, and memory beyond tensors, gradients and one copy of the tensors, with b = 1024:

    ===================  =========================  ==========================  ===================
    metric               forward                    backward                    memory
    ===================  =========================  ==========================  ===================
    cosine               4 (n + m) d                12 (n + m) d                O(b d)
    chord, arc, l2       2 n m d, self half of it   6 n m d, self half of it    O(b^2)
    spatial              4 n m d                    14 n m d                    O(b^2 + n d)
    mahalanobis          2 (n + m) d^2 + 9 d^3      (6 n + 4 m) d^2 + 13 d^3    O(b d + d^2)
    ===================  =========================  ==========================  ===================

    On a CUDA device the backward of pairs holds some 2 (n + m) d floats. A side that needs no
    gradient saves a third of the backward. Pairs that are taken one by one cost more, which shows
    where a large share of a corpus is duplicates. ``torch.compile``,
    ``torch.export``, ``torch.func.vmap`` and ``torch.func.grad`` take the function; autocast leaves
    its tensors as they are. For a given number of Torch's threads results repeat bit by bit.

    References
    ----------
    As :func:`embedcore.depth.score`.

    Examples
    --------
    >>> import torch
    >>> from embedcore.torch import depth_score
    >>> x = torch.randn(100, 8, requires_grad=True)
    >>> corpus = torch.randn(300, 8) + 1
    >>> loss = -depth_score(x, corpus, metric="arc").mean()
    >>> loss.backward()
    >>> x.grad.shape
    torch.Size([100, 8])
    """
    for name, tensor in (("x", x), ("corpus", corpus), ("weights", weights)):
        if tensor is not None or name == "x":
            _check_tensor(name, tensor, x)
    choose(WHERE, "metric", metric, SMOOTH_METRICS)
    wanted = 0 if threads is None else integer(WHERE, "threads", threads, minimum=1, maximum=1024)
    intensity = None
    if metric == "mahalanobis":
        with errors_of(WHERE):
            given = checked_shrinkage(shrinkage)
        intensity = None if given == "auto" else float(given)
    return score_with_gradients(x, corpus, weights, metric, intensity, wanted)


def _check_tensor(name: str, tensor: Any, x: torch.Tensor) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(
            f"{WHERE}: '{name}' must be a Torch tensor; got {type(tensor).__name__}. For other "
            "arrays use embedcore.depth.score."
        )
    if tensor.device.type not in ("cpu", "cuda", "meta"):
        raise TypeError(
            f"{WHERE}: '{name}' must be on the CPU or a CUDA device; got device {tensor.device}."
        )
    if tensor.device != x.device:
        raise TypeError(
            f"{WHERE}: '{name}' must be on the device of 'x' ({x.device}); got device "
            f"{tensor.device}."
        )
