# SPDX-License-Identifier: Apache-2.0
"""Gradients of the smooth depths for arrays on a GPU: one native call on their stream."""

from __future__ import annotations

from typing import Any

from .._device import Call
from ._metrics import NATIVE_METRIC


def gradients_on_device(
    call: Call,
    x: Any,
    corpus: Any,
    metric: str,
    pull: Any,
    weights: Any,
    wanted: tuple[bool, bool, bool],
) -> tuple[Any, Any, Any]:
    """Return the sums over pairs that gradients are made of (``ec_cuda_depth_gradient``).

    Parameters
    ----------
    call : Call
        Where the arrays lie.
    x, corpus : array (n, d), (m, d)
        Rows that are not float64; `corpus` None: of x, each without itself.
    metric : str
        A metric with a gradient.
    pull, weights : array (n,), (m,)
        float32, contiguous: what the depths pull their means with, and weights of the corpus.
    wanted : (bool, bool, bool)
        Of `x`, the corpus and the weights; None is returned for what is not.
    """
    rows = call.matrix("x", x)
    among = None if corpus is None else call.matrix("corpus", corpus)
    m = (rows if among is None else among)[1]
    of_x = call.made((rows[1], rows[2]), "float32") if wanted[0] else None
    of_corpus = None
    if wanted[1] and among is not None:
        of_corpus = call.made((m, rows[2]), "float32")
    of_weights = call.made((m,), "float64") if wanted[2] else None
    gradients = (
        call.target("x.grad", of_x, (rows[1], rows[2]), "float32"),
        call.target("corpus.grad", of_corpus, (m, rows[2]), "float32"),
        call.target("weights.grad", of_weights, (m,), "float64"),
    )
    call.kernels.depth_gradient(
        call.where, call.place(), rows, among, NATIVE_METRIC[metric],
        call.target("pull", pull, (rows[1],), "float32"),
        call.target("weights", weights, (m,), "float32"), gradients, call.allocate,
    )  # fmt: skip
    return of_x, of_corpus, of_weights
