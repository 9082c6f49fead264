# SPDX-License-Identifier: Apache-2.0
"""Depth in a corpus that is spread over a Dask cluster: parts are fitted apart, and merged.

Each part becomes a `depth.Corpus`: a sum for cosine depth, moments for Mahalanobis depth. They
merge two by two, which is exact, and the whole goes back to the parts: each scores its own rows.
(Metrics of pairs keep references to the rows, and merging them would move the rows.)

Runs on a cluster of two processes on this machine; for another one, give `Client` its address.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import embedcore
import numpy as np
from dask.distributed import Client, Future, LocalCluster
from embedcore import datasets, depth

PATH = Path(__file__).resolve().parent / "data" / "glosses.npz"
PARTITIONS = 4
METRICS = ("cosine", "mahalanobis")
SHOWN = 3


def load(path: str, partition: int, partitions: int) -> np.ndarray:
    """Return a part of the rows; in earnest a partition is a file of its own."""
    return np.array_split(datasets.load_glosses(path).vectors, partitions)[partition]


def fitted(rows: np.ndarray, metric: str) -> depth.Corpus:
    return depth.Corpus(metric).fit(rows)


def merged(left: depth.Corpus, right: depth.Corpus) -> depth.Corpus:
    """Return both as a third: what a task was given must stay as it is."""
    return depth.Corpus(left.metric).merge(left).merge(right)


def scored(corpus: depth.Corpus, rows: np.ndarray) -> np.ndarray:
    return corpus.score(rows, left_out=True)


def depths_of(client: Client, parts: list[Future], metric: str) -> np.ndarray:
    """Return the depth of each row in all others."""
    level = [client.submit(fitted, rows, metric) for rows in parts]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        rest = level[len(level) - len(level) % 2 :]
        level = [client.submit(merged, left, right) for left, right in pairs] + rest
    return np.concatenate(client.gather([client.submit(scored, level[0], rows) for rows in parts]))


def compare(client: Client, path: Path, partitions: int) -> dict[str, float]:
    """Print the deepest and outermost rows; return the largest difference to one process."""
    client.run(embedcore.set_num_threads, 1)  # Dask gives a worker one task a core
    parts = [client.submit(load, str(path), part, partitions) for part in range(partitions)]
    glosses = datasets.load_glosses(path)
    differences = {}
    for metric in METRICS:
        depths = depths_of(client, parts, metric)
        whole = depth.score(glosses.vectors, metric=metric)
        differences[metric] = float(np.abs(depths - whole).max())
        order = np.argsort(-depths, kind="stable")
        print(f"{metric}: {len(depths):,} rows in {partitions} partitions")
        for title, chosen in (("deepest", order[:SHOWN]), ("outermost", order[: -SHOWN - 1 : -1])):
            print(f"  {title}")
            for row in chosen:
                text = textwrap.shorten(glosses.texts[row], 70, placeholder=" ...")
                print(f"    {depths[row]:.4f}  {glosses.lemmas[row][0]}: {text}")
        print(f"  largest difference to one depth.score: {differences[metric]:.0e}\n")
    return differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    workers = parser.parse_args().workers
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        compare(client, PATH, PARTITIONS)


if __name__ == "__main__":  # workers are spawned, and import this file
    main()
