# SPDX-License-Identifier: Apache-2.0
"""The pictures: what they show, what they leave alone, what they refuse."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from embedcore import depth, plot

matplotlib = pytest.importorskip("matplotlib")

from matplotlib import pyplot  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402


@pytest.fixture(autouse=True)
def _agg() -> Iterator[None]:
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")


@pytest.fixture
def samples() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    f = rng.standard_normal((30, 6)) + 1
    return f, rng.standard_normal((20, 6)) * 2 + 1


def drawable(axes: Any) -> bool:
    axes.figure.canvas.draw()
    return bool(axes.get_xlabel() and axes.get_title())


def points(axes: Any) -> np.ndarray:
    return np.concatenate([part.get_offsets() for part in axes.collections])


def test_depth_depth_shows_each_row_at_its_depth_in_both(samples: Any) -> None:
    f, g = samples
    axes = plot.depth_depth(f, g, metric="l2", names=("old", "new"))
    shown = points(axes)
    groups = np.repeat([0, 1], [30, 20])
    both = depth.score(np.concatenate(samples), groups=groups, metric="l2")
    np.testing.assert_allclose(shown, both, rtol=1e-6)
    assert drawable(axes)
    assert axes.get_xlabel() == "l2 depth in old"
    assert axes.get_ylabel() == "l2 depth in new"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["old (30)", "new (20)"]
    assert axes.get_xlim() == axes.get_ylim()


def test_depth_depth_takes_depths_and_options(samples: Any) -> None:
    f, g = samples
    both = np.random.default_rng(1).random((50, 2), dtype=np.float32)
    np.testing.assert_allclose(points(plot.depth_depth(f, g, depths=both)), both, rtol=1e-6)
    assert drawable(plot.depth_depth(f[:2], g[:1], depths=np.ones((3, 2))))
    assert len(points(plot.depth_depth(f, g, metric="mahalanobis", shrinkage=0.5))) == 50


def test_depth_depth_takes_torch(samples: Any) -> None:
    torch = pytest.importorskip("torch")
    f, g = (torch.from_numpy(x) for x in samples)
    np.testing.assert_allclose(points(plot.depth_depth(f, g)), points(plot.depth_depth(*samples)))


def test_depth_histogram_has_one_row_for_each_group() -> None:
    depths = np.array([0.0, 0.1, 0.2, 1.0], dtype=np.float32)
    axes = plot.depth_histogram(depths, ["b", "b", "b", "a"], bins=2, metric="arc")
    assert drawable(axes)
    assert axes.get_xlabel() == "arc depth"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a (1)", "b (3)"]
    assert list(axes.get_yticks()) == [1, 0]
    a, b = axes.patches
    np.testing.assert_allclose(a.get_data().values, [1, 1.85])
    np.testing.assert_allclose(b.get_data().values, [0.85, 0])
    medians = [line.get_segments()[0][0, 0] for line in axes.collections]
    np.testing.assert_allclose(medians, [1.0, 0.1], rtol=1e-6)


def test_depth_histogram_of_one_group() -> None:
    axes = plot.depth_histogram(np.ones(5))
    assert drawable(axes)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["all (5)"]


@pytest.fixture
def matrix(samples: Any) -> depth.RankSumMatrixResult:
    x = np.concatenate([*samples, samples[0][:15] + 0.01])
    return depth.rank_sum_matrix(x, np.repeat(["f", "g", "h"], [30, 20, 15]))


def test_rank_sum_heatmap_shows_q(matrix: depth.RankSumMatrixResult) -> None:
    axes = plot.rank_sum_heatmap(matrix)
    assert drawable(axes)
    np.testing.assert_array_equal(axes.images[0].get_array(), matrix.q)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["f", "g", "h"]
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert len(texts) == 6
    for (b, a), text in texts.items():
        assert text.startswith(f"{matrix.q[a, b]:.2f}")
        assert text.endswith("n.s.") == (matrix.pvalue_adjusted[a, b] > 0.05)


def test_rank_sum_heatmap_options(matrix: depth.RankSumMatrixResult) -> None:
    assert not plot.rank_sum_heatmap(matrix, annotate=False).texts
    assert not any("n.s." in t.get_text() for t in plot.rank_sum_heatmap(matrix, level=1).texts)


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(2).dirichlet(np.ones(5), size=3).astype(np.float32)


def test_attention_shows_the_weights_of_each_head(weights: np.ndarray) -> None:
    words = ["a", "$warm$", "##est", "drink"]
    axes = plot.attention(weights, words, heads=["x", "y", "z"])
    assert drawable(axes)
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), weights[:, :4])
    assert image.get_clim() == (0, weights[:, :4].max())
    assert [label.get_text() for label in axes.get_xticklabels()] == words
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "y", "z"]


def test_attention_options(weights: np.ndarray) -> None:
    axes = plot.attention(weights, ["a", "b", "c", "d", "e"], largest=0.5)
    assert axes.images[0].get_clim() == (0, 0.5)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1", "2"]
    assert drawable(plot.attention(np.zeros((1, 1)), ["a"]))


def test_draws_where_asked_and_leaves_settings_alone(
    samples: Any, matrix: depth.RankSumMatrixResult
) -> None:
    settings = copy.deepcopy(dict(matplotlib.rcParams))
    for draw in (
        lambda ax: plot.depth_depth(*samples, ax=ax),
        lambda ax: plot.depth_histogram(np.arange(5.0), ax=ax),
        lambda ax: plot.rank_sum_heatmap(matrix, ax=ax),
        lambda ax: plot.attention(np.eye(2), ["a", "b"], ax=ax),
    ):
        axes = Figure().subplots()
        assert draw(axes) is axes
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == settings


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = re.escape("plot.depth_histogram: drawing needs Matplotlib; install embedcore[plot].")
    with pytest.raises(ImportError, match=message):
        plot.depth_histogram(np.ones(3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda f, g: plot.depth_depth(f, g, names="ab"),
            ValueError,
            "plot.depth_depth: 'names' must be two strings; got 'ab'.",
        ),
        (
            lambda f, g: plot.depth_depth(f, g, depths=np.ones((50, 3))),
            ValueError,
            "plot.depth_depth: 'depths' must have one row for each row of 'f' and 'g' and two "
            "columns (50, 2); got shape (50, 3).",
        ),
        (
            lambda f, g: plot.depth_depth(f, g, depths=np.full((50, 2), np.nan)),
            ValueError,
            "plot.depth_depth: 'depths' must be finite; row 0 is not.",
        ),
        (
            lambda f, g: plot.depth_depth(f, g[:, :2]),
            ValueError,
            "depth.score: 'corpus' must have the same number of columns",
        ),
        (
            lambda f, g: plot.depth_histogram(f),
            ValueError,
            "plot.depth_histogram: 'depths' must be one-dimensional, with at least 1 row; got "
            "shape (30, 6).",
        ),
        (
            lambda f, g: plot.depth_histogram(np.array(["a"])),
            TypeError,
            "plot.depth_histogram: 'depths' must hold real numbers; got dtype <U1.",
        ),
        (
            lambda f, g: plot.depth_histogram(f[:, 0], [1, 2]),
            ValueError,
            "plot.depth_histogram: 'groups' must have one label for each depth (30); got shape "
            "(2,).",
        ),
        (
            lambda f, g: plot.depth_histogram(f[:, 0], bins=0),
            ValueError,
            "plot.depth_histogram: 'bins' must be at least 1; got 0.",
        ),
        (
            lambda f, g: plot.rank_sum_heatmap(f),
            TypeError,
            "plot.rank_sum_heatmap: 'result' must be what depth.rank_sum_matrix returns; got "
            "ndarray.",
        ),
        (
            lambda f, g: plot.attention(f[0], ["a"]),
            ValueError,
            "plot.attention: 'weights' must have shape (heads, tokens), with at least 1 head; got "
            "shape (6,).",
        ),
        (
            lambda f, g: plot.attention(np.full((2, 3), np.inf), ["a"]),
            ValueError,
            "plot.attention: 'weights' must be finite; row 0 is not.",
        ),
        (
            lambda f, g: plot.attention(f, list("abcdefg")),
            ValueError,
            "plot.attention: 'tokens' must be 1 to 6 strings, as many as 'weights' has columns at "
            "most; got 7.",
        ),
        (
            lambda f, g: plot.attention(f, "abc"),
            ValueError,
            "plot.attention: 'tokens' must be 1 to 6 strings, as many as 'weights' has columns at "
            "most; got 'abc'.",
        ),
        (
            lambda f, g: plot.attention(f[:2], ["a"], heads=["x"]),
            ValueError,
            "plot.attention: 'heads' must have one name for each row of 'weights' (2); got ['x'].",
        ),
    ],
)  # fmt: skip
def test_refuses(samples: Any, call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call(*samples)
    assert pyplot.get_fignums() == []
