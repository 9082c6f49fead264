# SPDX-License-Identifier: Apache-2.0
"""`depth.score` on bad input: each message by its words, the first offending row by its number."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from embedcore import depth
from embedcore.depth._metrics import DIRECTIONAL, METRICS
from support.kinds import to_torch

Array = np.ndarray[Any, Any]

ANGULAR = ("cosine", "chord", "arc")
PAIRS = (*ANGULAR, "l2", "spatial")
NOT_ARRAY = (
    "must be an array (NumPy, Torch, or another with __dlpack__ or the buffer protocol); got "
)


def normal(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape)


X = normal(12, 5)


def refused(
    kind: type[Exception], text: str, x: Any = X, corpus: Any = None, **options: Any
) -> None:
    """The message is `text` after the name of the function, to the last letter."""
    with pytest.raises(kind, match="^" + re.escape(f"depth.score: {text}") + "$"):
        depth.score(x, corpus, **options)


def refused_in_part(kind: type[Exception], text: str, *arguments: Any, **options: Any) -> None:
    with pytest.raises(kind, match="^" + re.escape("depth.score: ") + ".*" + re.escape(text)):
        depth.score(*arguments, **options)


@pytest.mark.parametrize("argument", ["x", "corpus"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("metric", METRICS)
def test_rows_that_are_not_finite(metric: str, dtype: str, value: float, argument: str) -> None:
    bad = normal(40, 5).astype(dtype)
    bad[9, 4] = bad[33, 0] = bad[11, 2] = value
    text = f"'{argument}' must be finite; row 9 holds a NaN or an infinite value."
    good = normal(30, 5).astype(dtype)
    if argument == "corpus":
        refused(ValueError, text, good, bad, metric=metric)
        refused(ValueError, text, good, bad, metric=metric, groups=np.arange(40) % 2)
    else:
        refused(ValueError, text, bad, good, metric=metric)
        refused(ValueError, text, bad, metric=metric)


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("metric", PAIRS)
def test_the_first_of_many_bad_rows_is_named(metric: str, count: int) -> None:
    bad = normal(6000, 8).astype(np.float32)
    bad[4001:] = np.nan
    bad[[5993, 1237, 1240]] = np.inf
    text = "must be finite; row 1237 holds"
    refused_in_part(ValueError, f"'x' {text}", bad, metric=metric, threads=count)
    refused_in_part(ValueError, f"'corpus' {text}", X[:, :1].repeat(8, 1), bad, metric=metric)


@pytest.mark.parametrize("argument", ["x", "corpus"])
@pytest.mark.parametrize("metric", ANGULAR)
def test_zero_rows_have_no_direction(metric: str, argument: str) -> None:
    bad = normal(40, 5).astype(np.float32)
    bad[30] = 0
    bad[7] = -0.0
    text = f"'{argument}' must not hold zero rows (they have no direction); row 7 is zero."
    for precision in ("float32",) if metric == "cosine" else ("float32", "bfloat16", "int8"):
        if argument == "x":
            refused(ValueError, text, bad, X, metric=metric, precision=precision)
            refused(ValueError, text, bad, metric=metric, precision=precision)
        else:
            refused(ValueError, text, X, bad, metric=metric, precision=precision)


@pytest.mark.parametrize("metric", [m for m in METRICS if m not in ANGULAR])
def test_zero_rows_are_rows_elsewhere(metric: str) -> None:
    rows = normal(40, 5)
    rows[3] = 0
    assert np.isfinite(depth.score(rows, metric=metric)).all()


@pytest.mark.parametrize("metric", METRICS)
def test_shapes(metric: str) -> None:
    empty, flat = "must have at least one row and one column; got shape", "must be a 2-D array"
    refused(ValueError, f"'x' {empty} (0, 5).", X[:0], X, metric=metric)
    refused(ValueError, f"'corpus' {empty} (0, 5).", X, X[:0], metric=metric)
    refused(ValueError, f"'x' {empty} (12, 0).", X[:, :0], metric=metric)
    refused(
        ValueError, f"'x' {flat} of shape (rows, columns); got shape (5,).", X[0], metric=metric
    )
    refused_in_part(ValueError, f"'corpus' {flat}", X, X[None], metric=metric)
    refused(
        ValueError,
        "'corpus' must have the same number of columns as 'x' (5); got shape (12, 4).",
        X,
        X[:, :4],
        metric=metric,
    )


@pytest.mark.parametrize("argument", ["x", "corpus"])
@pytest.mark.parametrize("metric", METRICS)
def test_kinds_and_dtypes(metric: str, argument: str) -> None:
    def refuse(text: str, bad: Any) -> None:
        arrays = (bad, X) if argument == "x" else (X, bad)
        refused_in_part(TypeError, f"'{argument}' {text}", *arrays, metric=metric)

    floats = "must be float16, bfloat16, float32 or float64; got"
    for name in ("int64", "int8", "uint16", "bool", "complex64", "complex128"):
        refuse(f"{floats} {name}", np.ones((4, 5)).astype(name))
    refuse("must have a numeric dtype; got object", np.ones((4, 5), object))
    for bad, name in ((X.tolist(), "list"), (3.5, "float"), ("text", "str"), ((1, 2), "tuple")):
        refuse(NOT_ARRAY + name, bad)
    if argument == "x":
        refused_in_part(TypeError, "'x' " + NOT_ARRAY + "NoneType", None, metric=metric)
        refused_in_part(TypeError, "'x' " + NOT_ARRAY, None, metric=metric, groups=[0, 1])


@pytest.mark.parametrize("metric", METRICS)
def test_tensors_that_require_grad(metric: str) -> None:
    tensor = to_torch(X).requires_grad_()
    refused_in_part(TypeError, "'x' must not require grad", tensor, metric=metric)
    refused_in_part(TypeError, "'corpus' must not require grad", X, tensor, metric=metric)
    assert len(depth.score(tensor.detach(), metric=metric)) == len(X)


def test_names_suggest_the_nearest() -> None:
    refused_in_part(ValueError, "got 'cosin'; did you mean 'cosine'?", X, metric="cosin")
    refused_in_part(ValueError, "got 'L2'; did you mean 'l2'?", X, metric="L2")
    refused_in_part(
        ValueError, "got 'mahalanobi'; did you mean 'mahalanobis'?", X, metric="mahalanobi"
    )
    refused_in_part(ValueError, "'metric' must be one of 'cosine', 'chord', 'arc'", X, metric="xyz")
    refused_in_part(TypeError, "'metric' must be a string, one of 'cosine'", X, metric=3)
    refused_in_part(TypeError, "'metric' must be a string", X, metric=None)
    refused_in_part(TypeError, "'metric' must be a string", X, metric=["arc"])
    refused_in_part(
        ValueError, "got 'bfloat'; did you mean 'bfloat16'?", X, metric="arc", precision="bfloat"
    )
    refused_in_part(TypeError, "'precision' must be a string", X, metric="arc", precision=16)


@pytest.mark.parametrize("metric", [m for m in METRICS if m not in ANGULAR])
def test_precision_of_metrics_that_have_one(metric: str) -> None:
    for precision in ("bfloat16", "int8"):
        refused_in_part(
            ValueError,
            f"'precision' must be 'float32' for metric '{metric}'",
            X,
            metric=metric,
            precision=precision,
        )


def test_numbers() -> None:
    bounds = "'threads' must be from 1 to 1024; got"
    refused(ValueError, f"{bounds} 0.", threads=0)
    refused(ValueError, f"{bounds} -1.", threads=-1)
    refused(ValueError, f"{bounds} 5000.", threads=5000)
    refused(TypeError, "'threads' must be an integer; got float.", threads=1.0)
    refused(TypeError, "'threads' must be an integer; got bool.", threads=True)
    for metric in sorted(DIRECTIONAL):
        along = {"metric": metric}
        refused_in_part(ValueError, "'n_directions' must be from 1 to", X, n_directions=0, **along)
        refused_in_part(ValueError, "'n_directions' must be from 1 to", X, n_directions=-5, **along)
        refused_in_part(
            TypeError, "'n_directions' must be an integer", X, n_directions=9.5, **along
        )
        refused_in_part(ValueError, "'seed' must be at least 0; got -1.", X, seed=-1, **along)
        refused_in_part(TypeError, "'seed' must be an integer", X, seed="a", **along)


@pytest.mark.parametrize("metric", ["mahalanobis", "ai_irw"])
def test_shrinkage(metric: str) -> None:
    for value in (-0.1, 1.5, float("nan"), float("inf")):
        refused(
            ValueError,
            f"'shrinkage' must lie in [0, 1]; got {value!r}.",
            metric=metric,
            shrinkage=value,
        )
    for value in ("Auto", True, None, [0.5]):
        refused(
            TypeError,
            f"'shrinkage' must be 'auto' or a number in [0, 1]; got {value!r}.",
            metric=metric,
            shrinkage=value,
        )
    refused_in_part(
        ValueError,
        "'corpus' must have a covariance of full rank",
        X,
        X[:4],
        metric=metric,
        shrinkage=0,
    )
    refused_in_part(
        ValueError, "'x' must have a covariance of full rank", np.ones((9, 3)), metric=metric
    )
    refused_in_part(
        ValueError, "Use shrinkage='auto' or a number in (0, 1]", np.ones((9, 3)), metric=metric
    )
    refused_in_part(ValueError, "'corpus' must have at least 2 rows", X, X[:1], metric=metric)
    refused_in_part(ValueError, "'x' must have at least 3 rows", X[:2], metric=metric)


def test_groups() -> None:
    refused(
        ValueError,
        "'groups' must have one label for each corpus row (12); got shape (3,).",
        groups=[0, 1, 2],
    )
    refused_in_part(ValueError, "'groups' must have one label", X, groups=np.zeros((12, 1), int))
    refused_in_part(ValueError, "for each corpus row (5)", X, X[:5], groups=np.zeros(12, int))
    refused(TypeError, "'groups' must hold integers or strings; got dtype float64.", groups=X[:, 0])
    refused_in_part(TypeError, "integers or strings; got dtype object", X, groups=[None] * 12)
    refused_in_part(TypeError, "integers or strings; got dtype bool", X, groups=X[:, 0] > 0)
    refused(
        ValueError,
        "'groups' must not be given together with 'offsets'.",
        groups=np.zeros(12, int),
        offsets=[0, 12],
    )


def test_offsets() -> None:
    ends = "'offsets' must be a vector that starts at 0 and ends at the number of corpus rows (12)"
    for bad in ([0, 5], [1, 12], [0, 13], [12], [[0, 12]], [0, 5, 11]):
        refused_in_part(ValueError, ends, X, offsets=np.array(bad))
    rises = "'offsets' must rise at every step, so that no group is empty; offsets[2] does not."
    refused(ValueError, rises, offsets=[0, 5, 5, 12])
    refused(ValueError, rises, offsets=[0, 8, 3, 12])
    refused(TypeError, "'offsets' must hold integers; got dtype float64.", offsets=[0.0, 12.0])


@pytest.mark.parametrize("metric", [m for m in METRICS if m != "projection"])
def test_weights(metric: str) -> None:
    def refuse(kind: type[Exception], text: str, weights: Any) -> None:
        refused_in_part(kind, text, X, metric=metric, weights=weights)

    ones = np.ones(12)
    for value, name in ((-1.5, "-1.5"), (np.nan, "nan"), (np.inf, "inf")):
        bad = ones.copy()
        bad[[4, 8]] = value
        refuse(ValueError, f"'weights' must be finite and not negative; weight 4 is {name}.", bad)
    refuse(
        ValueError, "'weights' must have one number for each row (12); got shape (3,).", ones[:3]
    )
    refuse(ValueError, "'weights' must be a 1-D array; got shape (12, 1).", ones[:, None])
    refuse(
        TypeError,
        "'weights' must be float16, bfloat16, float32 or float64; got int64",
        ones.astype(int),
    )
    refuse(TypeError, "'weights' must be float32 or float64; got float16", ones.astype(np.float16))
    refuse(TypeError, "'weights' " + NOT_ARRAY + "list", ones.tolist())
    refuse(ValueError, "of positive weight", 0 * ones)


@pytest.mark.parametrize("metric", PAIRS)
def test_weights_that_leave_a_group_without(metric: str) -> None:
    labels = np.repeat([0, 1], 6)
    weights = np.repeat([1.0, 0.0], 6)
    text = "must have a row of positive weight in every group; group 1 has none."
    refused(ValueError, f"'x' {text}", metric=metric, weights=weights, groups=labels)
    refused(ValueError, f"'corpus' {text}", X, X, metric=metric, weights=weights, groups=labels)
    weights[9] = 2
    left = "which is left out of its own depth; row 9 is alone in group 1."
    refused_in_part(ValueError, left, X, metric=metric, weights=weights, groups=labels)
    assert depth.score(X, X, metric=metric, weights=weights, groups=labels).shape == (12, 2)


@pytest.mark.parametrize("metric", METRICS)
def test_weights_of_projection(metric: str) -> None:
    if metric != "projection":
        assert depth.score(X, metric=metric, weights=np.ones(12)).shape == (12,)
        return
    refused(
        ValueError,
        "'weights' are not supported by metric 'projection'.",
        metric=metric,
        weights=np.ones(12),
    )


@pytest.mark.parametrize("metric", [*PAIRS, "halfspace", "irw", "projection"])
def test_rows_alone_where_they_are_left_out(metric: str) -> None:
    alone = "must have another row of positive weight in the group of each row"
    refused_in_part(ValueError, f"'x' {alone}", X[:1], metric=metric)
    labels = [0] * 5 + [1] + [2] * 6
    refused_in_part(ValueError, "row 5 is alone in group 1.", X, metric=metric, groups=labels)
    assert depth.score(X, X, metric=metric, groups=labels).shape == (12, 3)


@pytest.mark.parametrize("metric", METRICS)
def test_out(metric: str) -> None:
    refused(
        TypeError,
        "'out' must be float64; got float32.",
        metric=metric,
        out=np.empty(12, np.float32),
    )
    narrow = X.astype(np.float32)
    refused(
        TypeError, "'out' must be float32; got float64.", narrow, metric=metric, out=np.empty(12)
    )
    shape = "'out' must have the shape (12,); got shape"
    for wrong in ((11,), (12, 1), (1, 12)):
        text = str(wrong) + "."
        refused(ValueError, f"{shape} {text}", metric=metric, out=np.empty(wrong))
    refused(
        ValueError,
        "'out' must have the shape (12, 2); got shape (12,).",
        metric=metric,
        groups=np.repeat([0, 1], 6),
        out=np.empty(12),
    )
    strided = np.empty(24)[::2]
    refused_in_part(
        ValueError, "'out' must be C-contiguous and aligned", X, metric=metric, out=strided
    )
    frozen = np.empty(12)
    frozen.flags.writeable = False
    refused(ValueError, "'out' must be writable; got a read-only array.", metric=metric, out=frozen)
    refused_in_part(TypeError, "'out' must be an array", X, metric=metric, out=[0.0] * 12)
