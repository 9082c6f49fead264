# SPDX-License-Identifier: Apache-2.0
"""The tour of `embedcore.depth`: rank a class, place all rows, test two classes and all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import depth
from .output import heading, item, paragraph, table, timed
from .pictures import Pictures
from .sample import Sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANKED = "noun.food"
F, G = "noun.feeling", "verb.emotion"
SHOWN = 4
LEVEL = 0.05


def show(sample: Sample) -> Pictures:
    """Print all steps; return what there is to draw."""
    depth.score(sample.glosses.vectors[:2])  # starts the threads, so that no step pays for it
    _rank(sample)
    _place(sample)
    _test_two_classes(sample)
    _test_two_halves(sample)
    matrix = _test_all_classes(sample)
    return {
        "depth-depth.png": lambda: _depth_depth(sample),
        "rank-sum-matrix.png": lambda: _matrix(matrix),
    }


def _rank(sample: Sample) -> None:
    heading("Depth: which definitions are typical of their class?")
    rows = sample.glosses.rows_of(RANKED)
    x = sample.glosses.vectors[rows]
    paragraph(
        f"Cosine depth of each of the {len(rows)} definitions of {RANKED} in the others: 2 less "
        "the mean cosine distance."
    )
    with timed(f"depth.score(x), n = {len(x)}, m = {len(x) - 1}, d = {x.shape[1]}"):
        depths = depth.score(x)
    order = np.argsort(-depths, kind="stable")
    for title, chosen in (("Deepest", order[:SHOWN]), ("Outermost", order[: -SHOWN - 1 : -1])):
        print(f"{title}:")
        for i in chosen:
            item(f"{depths[i]:.3f}", sample.entry(rows[i]))


def _place(sample: Sample) -> None:
    heading("Depth in several corpora at once: in which class is a definition deepest?")
    x, own = sample.glosses.vectors, sample.glosses.labels
    shape = f"n = {len(x)}, {len(sample.class_names)} groups, d = {x.shape[1]}"
    with timed(f'depth.score(x, groups=classes, metric="arc"), {shape}'):
        depths = depth.score(x, groups=own, metric="arc")
    deepest = depths.argmax(axis=1)
    paragraph(
        f"{np.mean(deepest == own):.0%} are deepest in their own class, each left out of it. Some "
        "that are not:"
    )
    gap = depths.max(axis=1) - depths[np.arange(len(x)), own]
    for row in np.argsort(-gap, kind="stable")[:SHOWN]:
        its_own, other = sample.class_names[own[row]], sample.class_names[deepest[row]]
        item("-", f"{sample.entry(row)} ({its_own}; deepest in {other})")


def _test_two_classes(sample: Sample) -> None:
    heading("Depth rank-sum test: do two corpora differ?")
    f, g = sample.vectors_of(F), sample.vectors_of(G)
    with timed(f"depth.rank_sum_test(f, g), n = {len(f)}, m = {len(g)}, d = {f.shape[1]}"):
        result = depth.rank_sum_test(f, g)
    _print_result(result)
    paragraph(
        f"In {1 - result.q:.0%} of the pairs the definition from {F} is the deeper one in {F}: "
        f"{_verdict(result, F, G)}"
    )


def _test_two_halves(sample: Sample) -> None:
    print("\nThe same for two random halves of one class:")
    rows = sample.vectors_of(F)
    shuffled = np.random.default_rng(0).permutation(len(rows))
    f, g = rows[shuffled[: len(rows) // 2]], rows[shuffled[len(rows) // 2 :]]
    with timed(f"depth.rank_sum_test(f, g), n = {len(f)}, m = {len(g)}, d = {f.shape[1]}"):
        result = depth.rank_sum_test(f, g)
    _print_result(result)
    paragraph(
        f"In {1 - result.q:.0%} of the pairs the definition from the first half is the deeper one: "
        f"{_verdict(result, 'the first half', 'the second half')}"
    )


def _print_result(result: depth.RankSumResult) -> None:
    print(f"  Q = {result.q:.3f}, z = {result.zscore:.2f}, p = {result.pvalue:.2g}")


def _verdict(result: depth.RankSumResult, f: str, g: str) -> str:
    if result.pvalue >= LEVEL:
        return f"nothing here tells {g} from {f}."
    return f"{g} differs from {f}, and lies further {'out' if result.q < 0.5 else 'in'}."


def _test_all_classes(sample: Sample) -> depth.RankSumMatrixResult:
    heading("All pairs of classes")
    shape = f"n = {sample.size}, {len(sample.class_names)} groups, d = {sample.columns}"
    with timed(f"depth.rank_sum_matrix(x, groups), {shape}"):
        result = depth.rank_sum_matrix(sample.glosses.vectors, sample.class_of_row)
    print("Q; each row is the class in which depth is taken:")
    short = [str(label).partition(".")[2] for label in result.labels]
    cells = [["-" if a == b else f"{q:.3f}" for b, q in enumerate(row)]
             for a, row in enumerate(result.q)]  # fmt: skip
    table(
        ["", *short],
        [[str(name), *row] for name, row in zip(result.labels, cells, strict=True)],
    )
    off = ~np.eye(len(short), dtype=bool)
    found = int((result.pvalue_adjusted[off] < LEVEL).sum())
    above = [
        f"{result.labels[b]} is deeper in {result.labels[a]} than {result.labels[a]} itself"
        for a, b in np.argwhere(off & (result.q > 0.5) & (result.pvalue_adjusted < LEVEL))
    ]
    paragraph(
        f"{found} of {int(off.sum())} differences are significant at {LEVEL} after Holm's "
        f"correction. {'; '.join([*above, ''])}".rstrip("; ")
        + "."
    )
    return result


def _depth_depth(sample: Sample) -> Figure:
    from matplotlib.figure import Figure

    from .. import plot

    figure = Figure(figsize=(5.2, 5.2), layout="constrained")
    f, g = sample.vectors_of(F), sample.vectors_of(G)
    plot.depth_depth(f, g, names=(F, G), ax=figure.subplots())
    return figure


def _matrix(matrix: depth.RankSumMatrixResult) -> Figure:
    from matplotlib.figure import Figure

    from .. import plot

    figure = Figure(figsize=(8.8, 7.8), layout="constrained")
    plot.rank_sum_heatmap(matrix, ax=figure.subplots())
    return figure
