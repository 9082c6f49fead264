# SPDX-License-Identifier: Apache-2.0
"""Errors of ``depth.estimate`` and coverage of its intervals, against exact depths.

    python bench/depth/coverage.py --repeats 20 --json out.json

One line per pool, metric and sample size. ``plain`` is the root mean square error of the mean over
the same number of sampled rows, ``error`` that of the estimate, ``gain`` their ratio. ``naive`` is
the share of rows that the usual interval covers (1.96 standard errors of the rest), ``covered``
that of the reported one, ``worst`` the least such share of any one row of x, ``width`` the mean of
high - low. Pools: the glosses in ``examples/data``, the same with 5 % near duplicates of rows of x
(scattered, in clusters of 20, all of one row), heavy tails, isotropic rows, and any ``--pool
FILE.npy``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from embedcore import datasets, depth
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Floats = NDArray[np.float64]

GLOSSES = Path(__file__).parents[2] / "examples" / "data" / "glosses.npz"
LEVEL = 0.95
QUERIES = 500


@dataclass
class Line:
    """One line of the table."""

    pool: str
    metric: str
    samples: int
    plain: float
    error: float
    naive: float
    covered: float
    worst: float
    width: float

    def __str__(self) -> str:
        return (
            f"{self.pool:20s} {self.metric:6s} {self.samples:6d} {self.plain:9.1e} "
            f"{self.error:9.1e} {self.plain / self.error:6.0f} {self.naive:6.3f} "
            f"{self.covered:8.4f} {self.worst:6.2f} {self.width:9.1e}"
        )


HEADING = (
    f"{'pool':20s} {'metric':6s} {'n':>6s} {'plain':>9s} {'error':>9s} {'gain':>6s} {'naive':>6s} "
    f"{'covered':>8s} {'worst':>6s} {'width':>9s}"
)


def near(rows: Rows, rng: np.random.Generator) -> Rows:
    """Rows moved by about 2 % of their length."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    noise = rng.standard_normal(rows.shape).astype(np.float32) / np.sqrt(rows.shape[1])
    moved: Rows = rows + 0.02 * lengths * noise
    return moved


def with_duplicates(name: str, rows: Rows) -> Iterator[tuple[str, Rows, Rows]]:
    """The pool as it is, and with near duplicates of its queries in place of 5 % of the rest."""
    rng = np.random.default_rng(1)
    rows = rows[rng.permutation(len(rows))]
    x, corpus = rows[:QUERIES], rows[QUERIES:]
    yield name, x, corpus
    count = len(corpus) // 20
    sources = {
        "scattered": rng.integers(0, len(x), count),
        "clusters": np.arange(count) // 20 % len(x),
        "one": np.zeros(count, np.int64),
    }
    for kind, source in sources.items():
        changed = corpus.copy()
        changed[:count] = near(x[source], rng)
        # The rows that have duplicates are those that suffer.
        chosen = np.concatenate([np.unique(source)[:100], np.arange(100)])
        yield f"{name}, {kind}", x[np.unique(chosen)], changed


def pools(files: list[Path]) -> Iterator[tuple[str, Rows, Rows]]:
    """Pools as (name, x, corpus)."""
    yield from with_duplicates("glosses", datasets.load_glosses(GLOSSES).vectors)
    rng = np.random.default_rng(2)
    shape = (20_000, 384)
    heavy = (rng.standard_t(2.0, shape) + 0.3).astype(np.float32)
    yield "heavy tails", heavy[:QUERIES], heavy[QUERIES:]
    isotropic = rng.standard_normal(shape, dtype=np.float32)
    yield "isotropic", isotropic[:QUERIES], isotropic[QUERIES:]
    for file in files:
        yield from with_duplicates(file.stem, np.load(file).astype(np.float32))


def unit(rows: Rows) -> Floats:
    """Rows of unit length, float64."""
    wide = rows.astype(np.float64)
    result: Floats = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return result


def naive_interval(cosines: Floats, distances: Floats, exact: tuple[Floats, Floats]) -> Floats:
    """Mean distances (n,) by least squares and the usual standard error, for comparison."""
    mean, mean_squares = exact
    z = cosines - mean[:, None]
    bent = z * z - (mean_squares - mean * mean)[:, None]
    basis = np.stack([np.ones_like(z), z, bent], axis=1)
    gram = basis @ basis.transpose(0, 2, 1)
    fitted = np.linalg.solve(gram, basis @ distances[:, :, None])
    rest = distances - (fitted.transpose(0, 2, 1) @ basis)[:, 0, :]
    count = cosines.shape[1]
    error = np.sqrt((rest * rest).sum(axis=1) / (count - 3) / count)
    return np.stack([fitted[:, 0, 0], error])


def measure(name: str, x: Rows, corpus: Rows, metric: str, samples: int, repeats: int) -> Line:
    """Compare `repeats` estimates with the exact depths."""
    distance: Callable[[Floats], Floats] = {
        "arc": lambda c: np.arccos(np.clip(c, -1, 1)),
        "chord": lambda c: np.sqrt(np.maximum(2 - 2 * c, 0)),
    }[metric]
    top = np.pi if metric == "arc" else 2.0
    x_unit, corpus_unit = unit(x), unit(corpus)
    cosines = x_unit @ corpus_unit.T
    exact = top - distance(cosines).mean(axis=1)
    moments = cosines.mean(axis=1), (cosines * cosines).mean(axis=1)
    plain, errors, naive, covered, widths = [], [], [], [], []
    for seed in range(repeats):
        got = depth.estimate(
            x.astype(np.float64), corpus, metric=metric, n_samples=samples, seed=seed
        )
        sample = np.random.default_rng(seed).choice(len(corpus), samples, replace=False)
        distances = distance(cosines[:, sample])
        plain.append(top - distances.mean(axis=1) - exact)
        errors.append(got.depth - exact)
        mean, error = naive_interval(cosines[:, sample], distances, moments)
        naive.append(np.abs(top - mean - exact) <= 1.96 * error)
        covered.append((got.low <= exact) & (exact <= got.high))
        widths.append(got.high - got.low)
    return Line(
        name, metric, samples,
        float(np.sqrt(np.mean(np.square(plain)))), float(np.sqrt(np.mean(np.square(errors)))),
        float(np.mean(naive)), float(np.mean(covered)), float(np.mean(covered, axis=0).min()),
        float(np.mean(widths)),
    )  # fmt: skip


def main() -> int:
    """Print the table; 1 if an interval covers less than it says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--samples", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--pool", type=Path, action="append", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    lines: list[Line] = []
    print(HEADING)
    for name, x, corpus in pools(options.pool):
        for metric in ("arc", "chord"):
            for samples in options.samples:
                lines.append(measure(name, x, corpus, metric, samples, options.repeats))
                print(lines[-1], flush=True)
    least = min(line.covered for line in lines)
    print(f"least coverage {least:.4f}, nominal {LEVEL}")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")
    return 0 if least >= LEVEL else 1


if __name__ == "__main__":
    sys.exit(main())
