# SPDX-License-Identifier: Apache-2.0
"""Bad input to merging, folding, length laws and diagnostics: each message by its words."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from embedcore import attention
from support.kinds import to_torch

Array = np.ndarray[Any, Any]
FLOATS = "must be float16, bfloat16, float32 or float64; got"


def normal(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape)


OUT, LSE = normal(3, 2, 4), normal(3, 2)
PARTS = [
    (ValueError, "'outs' and 'lses' must have the same number of parts, at least 1; got 0", [], []),
    (
        ValueError,
        "'outs' and 'lses' must have the same number of parts, at least 1; got 2 and 1.",
        [OUT, OUT],
        [LSE],
    ),
    (
        ValueError,
        "'outs' must have parts of one shape (B, m, dv); got shapes (3, 2, 4) and (2, 2, 4).",
        [OUT, OUT[:2]],
        [LSE, LSE[:2]],
    ),
    (
        ValueError,
        "'lses[1]' must have the shape of 'outs[1]' without its last axis (3, 2); "
        "got shape (3, 1).",
        [OUT, OUT],
        [LSE, LSE[:, :1]],
    ),
    (TypeError, f"'outs[0]' {FLOATS}", [OUT.astype(int)], [LSE]),
    (TypeError, f"'lses[0]' {FLOATS}", [OUT], [LSE.astype(int)]),
]


@pytest.mark.parametrize("place", [np.asarray, to_torch], ids=["numpy", "torch"])
@pytest.mark.parametrize(("error", "text", "outs", "lses"), PARTS)
def test_merge_states(error: type[Exception], text: str, outs: Any, lses: Any, place: Any) -> None:
    with pytest.raises(error, match="^" + re.escape(f"attention.merge_states: {text}")):
        attention.merge_states([place(x) for x in outs], [place(x) for x in lses])


WEIGHT = normal(24, 8)
FOLDS = [
    (ValueError, "'num_heads' must divide the width of the projections (8); got 3.", (3, WEIGHT)),
    (ValueError, "'num_heads' must be at least 1; got 0.", (0, WEIGHT)),
    (TypeError, "'num_heads' must be an integer; got float.", (2.0, WEIGHT)),
    (
        ValueError,
        "'in_proj_weight' must have shape (3 * E, E), or be three arrays; got shape (23, 8).",
        (2, WEIGHT[:23]),
    ),
    (
        ValueError,
        "'in_proj_bias' must have shape (3 * E,), or be three arrays; got shape (3, 8).",
        (2, WEIGHT, normal(3, 8)),
    ),
    (
        ValueError,
        "'out_proj_weight' must have shape (columns of the result, 8); got shape (8, 7).",
        (2, WEIGHT, None, normal(8, 7)),
    ),
    (
        ValueError,
        "'out_proj_bias' must have shape (8,); got shape (7,).",
        (2, WEIGHT, None, normal(8, 8), normal(7)),
    ),
    (TypeError, f"'in_proj_weight' {FLOATS}", (2, WEIGHT.astype(int))),
]


@pytest.mark.parametrize("place", [np.asarray, to_torch], ids=["numpy", "torch"])
@pytest.mark.parametrize(("error", "text", "arguments"), FOLDS)
def test_folding(error: type[Exception], text: str, arguments: Any, place: Any) -> None:
    given = [place(x) if isinstance(x, np.ndarray) else x for x in arguments]
    with pytest.raises(error, match="^" + re.escape(f"attention.fold_multihead_attention: {text}")):
        attention.fold_multihead_attention(place(normal(1, 8)), *given)
    text = "'probe' must have as many columns as the query weight has (8); got shape (1, 7)."
    with pytest.raises(ValueError, match=re.escape(text)):
        attention.fold_multihead_attention(place(normal(1, 7)), 2, place(WEIGHT))


@pytest.mark.parametrize("place", [np.asarray, to_torch], ids=["numpy", "torch"])
def test_laws_and_diagnostics(place: Any) -> None:
    with pytest.raises(ValueError, match=r"^attention.length_law: 'law' must be one of 'log'"):
        attention.length_law(place(np.array([5])), "x")
    with pytest.raises(TypeError, match=r"^attention.length_law: 'law' must be a string"):
        attention.length_law(place(np.array([5])), None)
    with pytest.raises(TypeError, match=r"^attention.length_law: 'lengths' must have an integer"):
        attention.length_law(place(np.array([1.5])))
    for name in ("effective_tokens", "high_frequency_gain"):
        with pytest.raises(TypeError, match=f"^attention.{name}: 'weights' {FLOATS}"):
            getattr(attention, name)(place(np.ones((2, 2), int)))
    with pytest.raises(ValueError, match="'cu_seqlens' must rise from 0 to the number of tokens"):
        attention.effective_tokens(place(normal(2, 5)), place(np.array([0, 4])))
    with pytest.raises(ValueError, match="'weights' must have shape"):
        attention.high_frequency_gain(place(normal(5)))
    with pytest.raises(ValueError, match="'weights' must be finite"):
        attention.high_frequency_gain(place(np.full((2, 2), np.nan)))
