# SPDX-License-Identifier: Apache-2.0
"""Search and depth over partitions, on a cluster of two processes: what one process finds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import embedcore
import numpy as np
import pytest
from dask.distributed import Client, LocalCluster
from embedcore import ann, datasets, depth
from embedcore.ann import field
from support.examples import load_example

pytestmark = pytest.mark.slow  # together


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_search(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    example: Any = load_example("search_on_dask")
    assert example.compare(client, example.PATH, example.PARTITIONS) >= 0.95
    text = capsys.readouterr().out
    for words in (
        "Partition 1: 2,032 rows, of which ",
        "The nearest where (field('pos') == 'noun') & (field('words') <= 12):",
        "  0.356  corkscrew: a bottle opener that pulls corks",
        "exact=True finds in the parts what it finds in one index",
    ):
        assert words in text


@pytest.mark.parametrize("partitions", [1, 3, 5])  # more of them than workers
def test_search_in_any_number_of_partitions(client: Client, partitions: int) -> None:
    example: Any = load_example("search_on_dask")
    glosses = datasets.load_glosses(example.PATH)
    shards = example.Shards(client, example.PATH, partitions)
    merged = shards.search(glosses.query_vectors, exact=True)
    passing = np.array([p == "noun" for p in glosses.pos])
    passing &= np.array([len(text.split()) <= 12 for text in glosses.texts])
    distances = 1 - glosses.query_vectors.astype(np.float64) @ glosses.vectors[passing].T
    np.testing.assert_allclose(
        merged.distances, np.sort(distances, axis=1)[:, : example.K], rtol=0, atol=1e-6
    )
    assert passing[merged.ids].all()


def test_each_partition_stays_where_it_is(client: Client) -> None:
    example: Any = load_example("search_on_dask")
    shards = example.Shards(client, example.PATH, 2)

    def threads_and_process(index: ann.Index) -> tuple[int, int]:  # local, so that it is sent whole
        assert len(index) == 2032
        return embedcore.get_num_threads(), os.getpid()

    before = shards.each(threads_and_process)
    assert [threads for threads, _ in before] == [1, 1]
    assert len({process for _, process in before}) == 2
    assert [shards.each(threads_and_process) for _ in range(3)] == [before] * 3


@pytest.mark.parametrize("metric", ["cosine", "mahalanobis"])
@pytest.mark.parametrize("partitions", [1, 2, 5])
def test_depth_in_any_number_of_partitions(client: Client, metric: str, partitions: int) -> None:
    example: Any = load_example("depth_on_dask")
    parts = [
        client.submit(example.load, str(example.PATH), part, partitions)
        for part in range(partitions)
    ]
    expected = depth.score(datasets.load_glosses(example.PATH).vectors, metric=metric)
    found = example.depths_of(client, parts, metric)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_depth(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    example: Any = load_example("depth_on_dask")
    differences = example.compare(client, example.PATH, example.PARTITIONS)
    assert set(differences) == {"cosine", "mahalanobis"}
    assert max(differences.values()) < 1e-6
    text = capsys.readouterr().out
    assert "cosine: 4,064 rows in 4 partitions\n  deepest\n" in text


def test_filters_travel(client: Client) -> None:
    for where in (field("draft"), field("a").isin([1, 2]) | ~field("b").is_null()):
        for pure in (True, False):
            assert where.equals(client.submit(lambda sent: sent, where, pure=pure).result())
