# SPDX-License-Identifier: Apache-2.0
"""One index per partition on a Dask cluster: each searches its rows, and the results are merged.

Vectors stay with the worker that has read them. Queries and the filter go to every partition, k
rows come back from each, and `ann.merge_topk` makes them the k nearest of all. Ids must mean the
same rows everywhere: here they are row numbers of the whole file. What is found is held against one
index of all rows that is searched exactly.

Runs on a cluster of two processes on this machine; for another one, give `Client` its address.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import embedcore
import numpy as np
from dask.distributed import Client, Future, LocalCluster
from embedcore import ann, datasets
from embedcore.ann import field

PATH = Path(__file__).resolve().parent / "data" / "glosses.npz"
PARTITIONS = 2
K = 10
WHERE = (field("pos") == "noun") & (field("words") <= 12)
ASKED = ("What opens a bottle of wine?", "Who writes the stories in a newspaper?")
SHOWN = 3


def build(path: str, partition: int, partitions: int) -> ann.Index:
    """Index each `partitions`-th row of the file; in earnest a partition is a file of its own."""
    glosses = datasets.load_glosses(path)
    rows = np.arange(partition, len(glosses.texts), partitions)
    attributes = {
        "pos": [glosses.pos[row] for row in rows],
        "words": [len(glosses.texts[row].split()) for row in rows],
    }
    index = ann.Index(glosses.vectors.shape[1])
    index.add(glosses.vectors[rows], ids=rows, attributes=attributes)
    return index


def find(index: ann.Index, queries: np.ndarray, **options: Any) -> ann.SearchResult:
    return index.search(queries, K, where=WHERE, **options)


def summary(index: ann.Index) -> str:
    size = index.memory_usage()["total"] / 1e6
    return f"{len(index):,} rows, of which {index.count(WHERE):,} pass; {size:.1f} MB"


class Shards:
    """Partitions of an index, each kept by one worker."""

    def __init__(self, client: Client, path: Path, partitions: int) -> None:
        self._client = client
        # On each worker, to which Dask gives one task a core.
        workers = sorted(client.run(embedcore.set_num_threads, 1))
        # Each partition is bound to one: Dask would move an index to wherever there is time.
        self._homes = [workers[part % len(workers)] for part in range(partitions)]
        self._shards = [
            client.submit(build, str(path), part, partitions, workers=[home], pure=False)
            for part, home in enumerate(self._homes)
        ]

    def each(self, function: Any, *arguments: Any, **options: Any) -> list[Any]:
        """Return what the function gives for each partition, called where that is."""
        pairs = zip(self._shards, self._homes, strict=True)
        asked: list[Future] = [
            self._client.submit(function, shard, *arguments, workers=[home], pure=False, **options)
            for shard, home in pairs
        ]
        return self._client.gather(asked)

    def search(self, queries: np.ndarray, **options: Any) -> ann.SearchResult:
        return ann.merge_topk(self.each(find, queries, **options), K)


def compare(client: Client, path: Path, partitions: int) -> float:
    """Print what is found; return the recall at the default."""
    shards = Shards(client, path, partitions)
    for part, text in enumerate(shards.each(summary)):
        print(f"Partition {part}: {text}")
    glosses = datasets.load_glosses(path)
    queries = glosses.query_vectors
    merged, exact = shards.search(queries), shards.search(queries, exact=True)

    print(f"\nThe nearest where {WHERE}:")
    for question in ASKED:
        print(question)
        ids, distances = merged[glosses.query_texts.index(question)]
        for row, distance in zip(ids[:SHOWN], distances, strict=False):
            print(f"  {distance:.3f}  {glosses.lemmas[row][0]}: {glosses.texts[row]}")

    one = find(build(str(path), 0, 1), queries, exact=True)
    if not (np.array_equal(exact.ids, one.ids) and np.array_equal(exact.distances, one.distances)):
        raise AssertionError("exact searches of the parts differ from that of the whole")
    found = [np.isin(ids, true).sum() for (ids, _), (true, _) in zip(merged, one, strict=True)]
    recall = float(np.sum(found) / one.counts.sum())
    print(f"\n{len(queries)} queries, {K} nearest of each:")
    print("exact=True finds in the parts what it finds in one index, bit for bit")
    print(f"the default, recall=0.95, finds {recall:.1%} of it")
    return recall


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
