# SPDX-License-Identifier: Apache-2.0
"""Pictures of depths, of depth tests and of attention, drawn with Matplotlib.

Each function draws into one Axes, yours or a new one of ``matplotlib.pyplot.subplots()``, and
returns it; global settings are left alone. The colours are ones that people with colour blindness
can tell apart (Okabe and Ito). Needs ``embedcore[plot]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._arrays import to_numpy
from ._check import integer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .depth import RankSumMatrixResult

__all__ = ["attention", "depth_depth", "depth_histogram", "rank_sum_heatmap"]

_COLOURS = ("#0072b2", "#d55e00")  # blue and vermilion
_MARKERS = ("o", "^")
_MAP = "PuOr_r"  # diverges from white, purple and orange: safe for every common colour blindness
_SHADES = "Blues"  # from white


def depth_depth(
    f: Any,
    g: Any,
    *,
    depths: Any = None,
    metric: str = "cosine",
    names: Sequence[str] = ("F", "G"),
    ax: Axes | None = None,
    **options: Any,
) -> Axes:
    """Draw each row of two samples at its depth in f and its depth in g.

    Samples of one population lie along the diagonal. Two separate clouds are two separate samples;
    a cloud that bends towards an axis is one that lies further out or is spread wider.

    Parameters
    ----------
    f, g : array, shapes (n_f, d) and (n_g, d)
        The samples, of any array kind and dtype that :func:`embedcore.depth.score` takes.
    depths : array, shape (n_f + n_g, 2), optional
        Depths that you have already: the rows of f, then those of g; their depths in f, then in g.
        f and g then only say how many rows each has. By default they are computed, each row left
        out of its own sample.
    metric : str
        The depth, see :func:`embedcore.depth.score`; a label of the axes where `depths` is given.
    names : two strings
        What the legend and the axes call the samples.
    ax : matplotlib.axes.Axes, optional
        Where to draw. By default a new figure.
    **options
        Passed to :func:`embedcore.depth.score`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    TypeError, ValueError
        Bad rows (see :func:`embedcore.depth.score`); `depths` of another shape or not finite;
        `names` that are not two.

    Notes
    -----
    Cost: four calls of :func:`embedcore.depth.score`, and one marker for each row.

    References
    ----------
    R. Y. Liu, J. M. Parelius and K. Singh, Multivariate analysis by data depth, Annals of
    Statistics 27 (1999).
    """
    where = "plot.depth_depth"
    if isinstance(names, str) or len(names) != 2:
        raise ValueError(f"{where}: 'names' must be two strings; got {names!r}.")
    if depths is None:
        points = _depths_in_both(f, g, metric, options)
    else:
        points = _finite(where, "depths", depths)
        expected = (len(f) + len(g), 2)
        if points.shape != expected:
            raise ValueError(
                f"{where}: 'depths' must have one row for each row of 'f' and 'g' and two columns "
                f"{expected}; got shape {points.shape}."
            )
    axes = _axes(where, ax, figsize=(5.2, 5.2))
    low, high = _limits(points)
    axes.plot([low, high], [low, high], color="0.6", linewidth=1, zorder=1)
    cut = len(f)
    for part, name, colour, marker in zip(
        (points[:cut], points[cut:]), names, _COLOURS, _MARKERS, strict=True
    ):
        label = f"{name} ({len(part):,})"
        axes.scatter(
            part[:, 0], part[:, 1], s=_marker_area(len(points)), c=colour, marker=marker,
            alpha=0.65, linewidths=0, label=label, zorder=2,
        )  # fmt: skip
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.set_xlabel(f"{metric} depth in {names[0]}")
    axes.set_ylabel(f"{metric} depth in {names[1]}")
    axes.set_title("Depth-depth plot")
    axes.legend(loc="best", frameon=False)
    return axes


def depth_histogram(
    depths: Any,
    groups: Any = None,
    *,
    bins: int = 30,
    metric: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw the distribution of depth in each group: one row for each, over common bins.

    Parameters
    ----------
    depths : array, shape (n,)
        What :func:`embedcore.depth.score` returned.
    groups : array of integers or strings, shape (n,), optional
        The group of each row. By default all rows are one group.
    bins : int
        Number of bins over the range of all depths.
    metric : str
        Name of the depth, for the label of the axis.
    ax : matplotlib.axes.Axes, optional
        Where to draw. By default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Groups in sorted order from the top. A bar's height is the share of the group's rows in that
        bin, of equal scale for all groups; the black stroke is the group's median.

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    TypeError, ValueError
        Depths that are not finite numbers in one dimension; no rows; not one label for each row;
        fewer than one bin.
    """
    where = "plot.depth_histogram"
    bins = integer(where, "bins", bins, minimum=1)
    values = _finite(where, "depths", depths)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(
            f"{where}: 'depths' must be one-dimensional, with at least 1 row; got shape "
            f"{values.shape}."
        )
    labels, members = _labelled(where, groups, len(values))
    axes = _axes(where, ax, figsize=(6.4, 1.6 + 0.5 * max(len(labels), 3)))
    edges = np.histogram_bin_edges(values, bins)
    shares = [np.histogram(values[own], edges)[0] / len(own) for own in members]
    scale = 0.85 / max(float(share.max()) for share in shares)
    for row, (own, share) in enumerate(zip(members, shares, strict=True)):
        base = len(labels) - 1 - row
        middle = float(np.median(values[own]))
        axes.stairs(
            share * scale + base, edges, baseline=base, fill=True, color=_COLOURS[0], alpha=0.65
        )
        axes.vlines(middle, base, base + 0.85, color="black", linewidth=1.6)
    axes.set_yticks(range(len(labels) - 1, -1, -1), labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.05, len(labels))
    axes.margins(x=0.02)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.set_xlabel(f"{metric} depth".lstrip())
    axes.set_title("Depth by group" if groups is not None else "Depth")
    return axes


def rank_sum_heatmap(
    result: RankSumMatrixResult,
    *,
    level: float = 0.05,
    annotate: bool | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the matrix of Q between groups: rows are the reference groups.

    Parameters
    ----------
    result : embedcore.depth.RankSumMatrixResult
        What :func:`embedcore.depth.rank_sum_matrix` returned.
    level : float
        Cells whose adjusted p-value is above it are marked with "n.s." (not significant).
    annotate : bool, optional
        Write Q into each cell. By default for up to 16 groups.
    ax : matplotlib.axes.Axes, optional
        Where to draw. By default a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    TypeError
        If `result` is something else.
    """
    from .depth import RankSumMatrixResult

    where = "plot.rank_sum_heatmap"
    if not isinstance(result, RankSumMatrixResult):
        raise TypeError(
            f"{where}: 'result' must be what depth.rank_sum_matrix returns; "
            f"got {type(result).__name__}."
        )
    count = len(result.labels)
    side = 3.4 + 0.55 * min(count, 16)
    axes = _axes(where, ax, figsize=(side + 1.0, side))
    image = axes.imshow(result.q, cmap=_MAP, vmin=0, vmax=1)
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label("Q = P[a row of the reference is less deep]")
    axes.set_xticks(range(count), [str(label) for label in result.labels], rotation=45, ha="right")
    axes.set_yticks(range(count), [str(label) for label in result.labels])
    axes.tick_params(length=0)
    axes.set_xlabel("compared group")
    axes.set_ylabel("reference group, in which depth is taken")
    axes.set_title("Below 1/2: the compared group lies further out")
    if count <= 16 if annotate is None else annotate:
        _annotate(axes, result, level)
    return axes


def attention(
    weights: Any,
    tokens: Sequence[str],
    *,
    heads: Sequence[str] | None = None,
    largest: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw which tokens of a sequence each head attends to: a row of shades for each head.

    Parameters
    ----------
    weights : array, shape (m, L)
        Weights of one sequence, as ``low_rank_attention(return_weights=True)`` returns them for
        each; of any array kind and floating dtype.
    tokens : strings, at most L
        The tokens; columns beyond them are padding and left out.
    heads : m strings, optional
        What the heads are called; by default they are numbered from 0.
    largest : float, optional
        The weight that has the darkest shade; by default the largest one of the picture.
    ax : matplotlib.axes.Axes, optional
        Where to draw. By default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        White is 0.

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    TypeError, ValueError
        Weights that are not finite numbers of shape (m, L), more tokens than L or none, not one
        name for each head.
    """
    where = "plot.attention"
    values = _finite(where, "weights", weights)
    if values.ndim != 2 or len(values) == 0:
        raise ValueError(
            f"{where}: 'weights' must have shape (heads, tokens), with at least 1 head; got shape "
            f"{values.shape}."
        )
    if isinstance(tokens, str) or not 1 <= len(tokens) <= values.shape[1]:
        raise ValueError(
            f"{where}: 'tokens' must be 1 to {values.shape[1]} strings, as many as 'weights' has "
            f"columns at most; got {repr(tokens) if isinstance(tokens, str) else len(tokens)}."
        )
    names = [str(j) for j in range(len(values))] if heads is None else heads
    if isinstance(names, str) or len(names) != len(values):
        raise ValueError(
            f"{where}: 'heads' must have one name for each row of 'weights' ({len(values)}); got "
            f"{names!r}."
        )
    shown = values[:, : len(tokens)]
    axes = _axes(where, ax, figsize=(2.6 + 0.34 * len(tokens), 1.6 + 0.3 * len(values)))
    darkest = (shown.max() or 1.0) if largest is None else largest
    image = axes.imshow(shown, cmap=_SHADES, vmin=0, vmax=darkest, aspect="auto")
    axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02).set_label("weight")
    axes.set_xticks(
        range(len(tokens)), list(tokens), rotation=60, ha="right", rotation_mode="anchor",
        parse_math=False,
    )  # fmt: skip
    axes.set_yticks(range(len(values)), list(names))
    axes.tick_params(length=0)
    axes.set_xlabel("token")
    axes.set_ylabel("head")
    axes.set_title("Attention")
    return axes


def _annotate(axes: Axes, result: RankSumMatrixResult, level: float) -> None:
    for a, row in enumerate(result.q):
        for b, q in enumerate(row):
            if a == b:
                continue
            dark = abs(q - 0.5) > 0.27
            text = f"{q:.2f}" if result.pvalue_adjusted[a, b] <= level else f"{q:.2f}\nn.s."
            axes.text(
                b, a, text, ha="center", va="center", fontsize=8, color="white" if dark else "black"
            )


def _axes(where: str, ax: Axes | None, figsize: tuple[float, float]) -> Axes:
    """Return the caller's Axes, or those of a new figure."""
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(f"{where}: drawing needs Matplotlib; install embedcore[plot].") from error
    axes: Axes = pyplot.subplots(figsize=figsize, layout="constrained")[1]
    return axes


def _depths_in_both(f: Any, g: Any, metric: str, options: dict[str, Any]) -> NDArray[np.float64]:
    """Depths (n_f + n_g, 2) of the rows of both samples in f and in g."""
    from .depth import score

    def scored(x: Any, corpus: Any = None) -> NDArray[np.float64]:
        return to_numpy(score(x, corpus, metric=metric, **options)).astype(np.float64)

    in_f = np.concatenate([scored(f), scored(g, f)])
    in_g = np.concatenate([scored(f, g), scored(g)])
    return np.stack([in_f, in_g], axis=1)


def _finite(where: str, argument: str, given: Any) -> NDArray[np.float64]:
    values = to_numpy(given, where, argument)
    if values.dtype.kind not in "fiu" and values.dtype.name != "bfloat16":
        raise TypeError(f"{where}: '{argument}' must hold real numbers; got dtype {values.dtype}.")
    values = values.astype(np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise ValueError(f"{where}: '{argument}' must be finite; row {bad[0][0]} is not.")
    return values


def _labelled(where: str, groups: Any, rows: int) -> tuple[list[str], list[NDArray[np.int64]]]:
    """Names of the groups in sorted order, each with its size, and the rows of each."""
    if groups is None:
        return [f"all ({rows:,})"], [np.arange(rows)]
    from .depth._labels import members_of

    given = to_numpy(groups, where, "groups")
    if given.shape != (rows,):
        raise ValueError(
            f"{where}: 'groups' must have one label for each depth ({rows}); got shape "
            f"{given.shape}."
        )
    names, members = members_of(where, "groups", given, rows, 1)
    sizes = (len(own) for own in members)
    return [f"{name} ({size:,})" for name, size in zip(names, sizes, strict=True)], members


def _limits(points: NDArray[np.float64]) -> tuple[float, float]:
    """Return common limits of both axes, with a margin."""
    if points.size == 0:
        return 0.0, 1.0
    low, high = float(points.min()), float(points.max())
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _marker_area(count: int) -> float:
    return float(np.clip(9000 / max(count, 1), 4, 30))
