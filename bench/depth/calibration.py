# SPDX-License-Identifier: Apache-2.0
"""False positives of ``depth.rank_sum_test`` when both samples come from one pool.

    python bench/depth/calibration.py --draws 1000 --json out.json

Each draw takes n + m rows of a pool at random, calls the first n of them f and the rest g, and
counts the p-values of at most 0.05. One line per pool, n, m, metric and method, with the standard
error. Pools: isotropic and anisotropic rows made here, the glosses in ``examples/data``, and any
``--pool FILE.npy`` of shape (N, d). Ctrl-C stops and reports what has been counted.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from embedcore import datasets, depth
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Draw = Callable[[int, np.random.Generator], Rows]

GLOSSES = Path(__file__).parents[2] / "examples" / "data" / "glosses.npz"
LEVEL, LOWEST, HIGHEST = 0.05, 0.035, 0.065
CELLS = ((50, 50), (500, 500), (50, 500), (2000, 2000))
COLUMNS = 384


@dataclass
class Line:
    """Counts of one line of the table."""

    pool: str
    n: int
    m: int
    metric: str
    method: str
    draws: int = 0
    less: int = 0
    greater: int = 0
    two_sided: int = 0

    def add(self, less: float, greater: float) -> None:
        """Count the p-values of one draw."""
        self.draws += 1
        self.less += less <= LEVEL
        self.greater += greater <= LEVEL
        self.two_sided += min(1.0, 2 * min(less, greater)) <= LEVEL

    def sizes(self) -> dict[str, float]:
        """Rejected shares, by alternative."""
        counts = {"two-sided": self.two_sided, "less": self.less, "greater": self.greater}
        return {name: count / self.draws for name, count in counts.items()}

    def error(self) -> float:
        """Return the standard error of a size when the test is exact."""
        return math.sqrt(LEVEL * (1 - LEVEL) / self.draws)

    def verdict(self) -> str:
        """Tell whether all sizes are within bounds; "unclear": two standard errors outside."""
        gap = max(max(LOWEST - size, size - HIGHEST) for size in self.sizes().values())
        return "yes" if gap <= 0 else "unclear" if gap <= 2 * self.error() else "no"

    def __str__(self) -> str:
        """Return the line of the table."""
        numbers = "  ".join(f"{size:9.3f}" for size in self.sizes().values())
        return (
            f"{self.pool:12}{self.n:6}{self.m:6}  {self.metric:12}{self.method:12}"
            f"{numbers}   {self.error():.3f} {self.draws:7}  {self.verdict()}"
        )


HEADER = (
    f"{'pool':12}{'n':>6}{'m':>6}  {'metric':12}{'method':12}"
    f"{'two-sided':>9}  {'less':>9}  {'greater':>9}   error   draws  inside"
)


def isotropic(count: int, rng: np.random.Generator) -> Rows:
    """Draw rows without a common direction: the hardest case for leave-one-out depths."""
    return rng.standard_normal((count, COLUMNS), dtype=np.float32)


def anisotropic(count: int, rng: np.random.Generator) -> Rows:
    """Draw from eight clusters of unequal size and width, with a common direction."""
    centres = np.random.default_rng(8).standard_normal((8, COLUMNS))
    spectrum = np.arange(1, COLUMNS + 1) ** -0.5
    cluster = np.minimum(rng.geometric(0.3, size=count), 8) - 1
    noise = rng.standard_normal((count, COLUMNS)) * (0.5 + 0.25 * cluster)[:, None]
    rows = (noise + 0.5 * centres[cluster]) * spectrum
    rows[:, 0] += 1.0
    return rows.astype(np.float32)


def from_rows(rows: Rows) -> Draw:
    """Draw rows of a fixed pool without replacement."""
    return lambda count, rng: rows[rng.choice(len(rows), count, replace=False)]


def pools(names: list[str], file: str | None) -> Iterator[tuple[str, Draw, float]]:
    """Yield the name of each pool, how to draw from it and how many rows it has."""
    made = {"isotropic": isotropic, "anisotropic": anisotropic}
    for name in names:
        if name == "glosses":
            vectors = datasets.load_glosses(GLOSSES).vectors
            yield name, from_rows(vectors), len(vectors)
        else:
            yield name, made[name], math.inf
    if file is not None:
        vectors = np.ascontiguousarray(np.load(file), dtype=np.float32)
        yield Path(file).stem, from_rows(vectors), len(vectors)


def count_line(line: Line, draw: Draw, options: argparse.Namespace, steps: Iterable[int]) -> None:
    """Run the draws of one line; equal seeds give equal draws to every metric and method."""
    for step in steps:
        rng = np.random.default_rng([options.seed, line.n, line.m, step])
        rows = draw(line.n + line.m, rng)
        pvalues = [
            depth.rank_sum_test(
                rows[: line.n],
                rows[line.n :],
                metric=line.metric,
                method=line.method,
                alternative=alternative,
                n_resamples=options.resamples,
                seed=step,
                threads=options.threads,
            ).pvalue
            for alternative in ("less", "greater")
        ]
        line.add(*pvalues)


def progress(steps: range, title: str) -> Iterable[int]:
    """Show a bar on a terminal where tqdm is installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return steps
    bar: Iterable[int] = tqdm(steps, desc=title, leave=False, disable=not sys.stderr.isatty())
    return bar


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--draws", type=int, default=1000, help="samples for each line")
    made = ["isotropic", "anisotropic", "glosses"]
    parser.add_argument("--pools", nargs="*", choices=made, default=made)
    parser.add_argument("--pool", metavar="FILE.npy", help="one more pool, shape (N, d)")
    parser.add_argument("--metrics", nargs="+", default=["cosine", "arc"])
    parser.add_argument("--methods", nargs="+", default=["auto", "split"])
    cells = [f"{n}x{m}" for n, m in CELLS]
    parser.add_argument("--cells", nargs="+", metavar="NxM", default=cells)
    parser.add_argument("--resamples", type=int, default=999, help="for permutation and ties")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", metavar="FILE", help="write the table here")
    return parser.parse_args(arguments)


def report(lines: list[Line], options: argparse.Namespace) -> None:
    """Write the JSON file, if one was asked for."""
    if options.json is None:
        return
    records: list[dict[str, Any]] = [
        {**asdict(line), "sizes": line.sizes(), "error": line.error(), "inside": line.verdict()}
        for line in lines
    ]
    document = {"level": LEVEL, "bounds": [LOWEST, HIGHEST], "seed": options.seed, "lines": records}
    Path(options.json).write_text(json.dumps(document, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Count and print every line; 1 when one clearly lies outside the bounds."""
    options = parse(arguments)
    cells = [tuple(map(int, cell.split("x"))) for cell in options.cells]
    lines: list[Line] = []
    print(HEADER, flush=True)
    try:
        for name, draw, available in pools(options.pools, options.pool):
            for n, m in cells:
                if n + m > available:
                    print(f"{name:12}{n:6}{m:6}  skipped: the pool has {available:.0f} rows")
                    continue
                for metric in options.metrics:
                    for method in options.methods:
                        line = Line(name, n, m, metric, method)
                        lines.append(line)
                        steps = progress(range(options.draws), f"{name} {n} {m} {metric} {method}")
                        count_line(line, draw, options, steps)
                        print(line, flush=True)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        if lines and 0 < lines[-1].draws < options.draws:
            print(lines[-1])
        lines = [line for line in lines if line.draws]
    report(lines, options)
    return 1 if any(line.verdict() == "no" for line in lines) else 0


if __name__ == "__main__":
    raise SystemExit(main())
