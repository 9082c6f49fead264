# SPDX-License-Identifier: Apache-2.0
"""Gradients that come through the weights, natively: equal to those through the values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.attention import MASKINGS, make_problem, native_backward, native_forward


@pytest.mark.parametrize("masking", MASKINGS)
@pytest.mark.parametrize("temperature", [0.3, 1e-3])  # the second takes the way of sharp weights
def test_they_equal_those_through_the_values(
    isa: str, dtype_name: str, masking: str, temperature: float
) -> None:
    """What dA is made of does not matter: v . G given with the weights, or by the values."""
    p = make_problem(3, 90, 4, 12, dtype_name, masking=masking, value_columns=7)
    p = replace(p, temperature=temperature)
    saved = native_forward(p)
    rng = np.random.default_rng(0)
    grad_out = rng.standard_normal(p.out_shape).astype(p.real)
    through_values = native_backward(p, saved, grad_out)
    values = p.value.astype(p.real)
    if values.ndim == 2:  # ragged
        rows = np.repeat(np.arange(p.sequences), np.diff(p.cu_seqlens))
        grad_weights = np.einsum("tjd,td->jt", grad_out[rows], values)
    else:
        grad_weights = np.einsum("bjd,btd->bjt", grad_out, values)
    grad_weights = np.ascontiguousarray(grad_weights, p.real)
    got = native_backward(p, saved, np.zeros_like(grad_out), grad_weights=grad_weights)
    assert not got["value"][p.valid()].any()
    digits = 1e-9 if p.real is np.float64 else 3e-4
    if dtype_name in ("float16", "bfloat16"):
        digits = 2e-2
    for name in set(got) - {"value"}:
        largest = np.abs(through_values[name].astype(np.float64)).max()
        off = np.abs(got[name].astype(np.float64) - through_values[name].astype(np.float64)).max()
        assert off <= digits * max(largest, 1e-6), name
