# SPDX-License-Identifier: Apache-2.0
"""What a build leaves behind: cells that hold every row, links that lead everywhere."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from embedcore._core import AnnVectors
from embedcore.ann._basis import basis_of
from numpy.typing import NDArray

Rows = NDArray[np.float32]

NO_SLOT = 0xFFFFFFFF
DEGREE = 32


@dataclass(frozen=True)
class Built:
    """An index of some rows: their vectors, links and cells, by slot."""

    vectors: AnnVectors
    rows: Rows
    links: NDArray[np.uint32]
    cells: list[NDArray[np.uint32]]

    @classmethod
    def of(cls, vectors: AnnVectors) -> Built:
        parts = vectors.parts()
        start = parts["cell_start"].astype(np.int64)
        members = parts["cell_members"]
        cells = [members[a:b] for a, b in pairwise(start)]
        slots = np.arange(vectors.rows)
        return cls(vectors, vectors.vectors(slots), parts["links"].reshape(-1, DEGREE), cells)

    def neighbours(self, row: int) -> list[int]:
        return [int(slot) for slot in self.links[row] if slot != NO_SLOT]


def build(rows: Rows, *, threads: int = 1, metric: str = "l2", seed: int = 0) -> Built:
    vectors = AnnVectors(rows.shape[1], metric, "float32").append(rows, threads)
    basis = basis_of(rows, unit=metric == "cosine", seed=seed)
    head = basis.head_bytes
    return Built.of(vectors.build(basis.axes, basis.mean, head, threads, seed, None)[0])


def mixture(count: int, dim: int, seed: int) -> Rows:
    """Rows around centres that lie in a few directions more than in others."""
    random = np.random.default_rng(seed)
    spread = (1.0 + np.arange(dim)) ** -0.5
    centres = random.standard_normal((40, dim)) * spread
    own = random.integers(0, 40, count)
    rows = centres[own] + 0.6 * random.standard_normal((count, dim)) * spread
    return rows.astype(np.float32)


def check(built: Built) -> None:
    """Links are rows, no row's own, none twice, at the front; every row is in one cell."""
    count = len(built.rows)
    assert built.links.shape == (count, DEGREE)
    for row in range(count):
        found = built.neighbours(row)
        assert len(set(found)) == len(found)
        assert row not in found
        assert all(slot < count for slot in found)
        assert (built.links[row, len(found) :] == NO_SLOT).all()
    assert sorted(np.concatenate(built.cells).tolist()) == list(range(count))
    assert all(len(cell) and (np.diff(cell.astype(np.int64)) > 0).all() for cell in built.cells)


def reached(built: Built, first: int) -> int:
    """How many rows there are links to, one after the other, from a row; it included."""
    seen, last = {first}, [first]
    while last:
        for slot in built.neighbours(last.pop()):
            if slot not in seen:
                seen.add(slot)
                last.append(slot)
    return len(seen)


def walk(built: Built, query: Rows, start: NDArray[np.uint32], beam: int) -> list[int]:
    """Best-first search of the links by true distances: the ten nearest rows met."""

    def distance(slot: int) -> float:
        return float(np.square(built.rows[slot] - query).sum())

    seen = {int(slot) for slot in start}
    frontier = [(distance(slot), slot) for slot in seen]
    best = sorted(frontier)[:beam]
    heapq.heapify(frontier)
    while frontier:
        far, row = heapq.heappop(frontier)
        if len(best) >= beam and far > best[-1][0]:
            break
        for slot in built.neighbours(row):
            if slot not in seen:
                seen.add(slot)
                heapq.heappush(frontier, (distance(slot), slot))
                best.append((distance(slot), slot))
        best = sorted(best)[:beam]
    return [slot for _, slot in best[:10]]


def walk_recall(built: Built, queries: Rows, beam: int) -> float:
    """Of the ten nearest rows of each query, those a walk finds from the nearest cell's rows."""
    centres = np.stack([built.rows[cell].mean(axis=0) for cell in built.cells])
    hits = 0
    for query in queries:
        right = np.argsort(np.square(built.rows - query).sum(axis=1), kind="stable")[:10]
        start = built.cells[int(np.argmin(np.square(centres - query).sum(axis=1)))]
        hits += len(set(right.tolist()) & set(walk(built, query, start, beam)))
    return hits / (10 * len(queries))


@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17, 33, 63, 64, 65, 500])
@pytest.mark.parametrize("dim", [3, 200])
def test_few_rows(count: int, dim: int) -> None:
    built = build(np.random.default_rng(count).standard_normal((count, dim)).astype(np.float32))
    check(built)
    assert reached(built, 0) == count
    if count <= 16:
        assert all(len(built.neighbours(row)) == count - 1 for row in range(count))


def test_links_lead_to_the_nearest() -> None:
    rows, queries = mixture(4000, 96, 1), mixture(60, 96, 1)
    built = build(rows)
    check(built)
    assert reached(built, 0) == len(rows)
    pairs = np.square(built.rows[:300, None] - built.rows[None]).sum(axis=2)
    pairs[np.arange(300), np.arange(300)] = np.inf
    nearest = pairs.argmin(axis=1)
    found = [int(nearest[row]) in built.neighbours(row) for row in range(300)]
    assert np.mean(found) > 0.97  # the codes are rounded
    assert walk_recall(built, queries, 40) > 0.97


def test_cells_are_even() -> None:
    built = build(mixture(6000, 48, 2))
    sizes = np.array([len(cell) for cell in built.cells])
    assert 100 <= len(sizes) <= 220  # 2 sqrt(6000) = 155, and parts of the large
    assert sizes.max() <= 3 * 6000 / 154 + 1


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_same_links_at_any_number_of_threads(metric: str, thread_count: int) -> None:
    rows = mixture(3000, 64, 3)
    parts = [build(rows, threads=t, metric=metric).vectors.parts() for t in (1, thread_count)]
    for name in ("links", "cell_members", "cell_start", "centroids", "heads"):
        np.testing.assert_array_equal(parts[0][name], parts[1][name])


class GivenSteps:
    """Steps of a build that give codes of another one, cells much like its, and any links."""

    def __init__(self, parts: dict[str, Any], order: Any, links: Any) -> None:
        places = np.argsort(order)
        self._heads = parts["heads"].reshape(len(order), -1)[places]
        self._tails = parts["tails"].reshape(len(order), -1)[places]
        sizes = np.diff(parts["cell_start"])
        self._cell_of = np.repeat(np.arange(len(sizes), dtype=np.uint32), sizes)[places]
        self._links = links

    def encode(self, *_: Any) -> Any:
        factors = self._heads[:, -16:].copy().view(np.float32)
        return -2.0 * factors[:, 1]

    def group(self, slots: Any, sample: Any, drawn: Any, moves: int) -> Any:
        return self._cell_of[slots] % np.uint32(len(drawn))

    def means(self, cell_of: Any, cells: int) -> Any:
        factors = self._heads[:, -16:].copy().view(np.float32)
        numbers = factors[:, :1] * (self._heads[:, :-16].astype(np.float32) - 128)
        heads = np.empty((cells, self._heads.shape[1]), np.uint8)
        for cell in range(cells):
            mean = numbers[cell_of == cell].mean(axis=0)
            step = np.abs(mean).max() / 127
            heads[cell, :-16] = np.rint(mean / step) + 128
            square = np.square(step * np.rint(mean / step)).sum()
            heads[cell, -16:] = np.array([step, -0.5 * square, 0, 0], np.float32).view(np.uint8)
        return heads

    def reorder(self, order: Any, heads: Any, tails: Any) -> None:
        heads[:], tails[:] = self._heads[order].reshape(-1), self._tails[order].reshape(-1)

    def begin_links(self, *_: Any) -> None:
        pass

    def links(self, links: Any) -> None:
        links[:] = self._links.reshape(-1)


def led_by(links: Rows, threads: int) -> Built:
    """The index of 3000 rows whose links something else has chosen."""
    rows = mixture(3000, 64, 3)
    basis, start = basis_of(rows, unit=False, seed=0), AnnVectors(64, "l2", "float32")
    options = (basis.axes, basis.mean, basis.head_bytes, threads, 0, None)
    vectors = start.append(rows, threads)
    one, order = vectors.build(*options)
    return Built.of(vectors.build(*options, GivenSteps(one.parts(), order, links))[0])


@pytest.mark.parametrize("shape", ["none", "hubs", "islands", "ring", "random"])
def test_any_links_are_joined(shape: str, thread_count: int) -> None:
    """To every row and back, whether links are mutual or not, at any number of threads."""
    slots, links = np.arange(3000), np.full((3000, DEGREE), NO_SLOT, np.uint32)
    if shape == "hubs":  # with room for half of those that lead to them
        links[:, 0] = slots // 60 * 60 + (slots + 1) % 60
        links[:, 1] = slots // 60 * 60
        links[::60, 1:2] = links[59::60, 1:2] = NO_SLOT
    elif shape == "islands":
        links[:, :3] = slots[:, None] // 50 * 50 + (slots[:, None] % 50 + [1, 2, 7]) % 50
    elif shape == "ring":
        links[:, 0] = (slots + 1) % 3000
    elif shape == "random":
        some = np.random.default_rng(5).integers(0, 300, (3000, 6))
        links[:, :6] = np.where(some == slots[:, None], 301, some)
        links[:, 1:6][links[:, 1:6] == links[:, :5]] = 302
    built = led_by(links, thread_count)
    np.testing.assert_array_equal(built.links, led_by(links, 1).links)
    assert reached(built, 0) == 3000
    back: list[list[int]] = [[] for _ in slots]
    for row in range(3000):
        for slot in built.neighbours(row):
            back[slot].append(row)
    seen, last = {0}, [0]
    while last:
        new = set(back[last.pop()]) - seen
        seen |= new
        last += new
    assert len(seen) == 3000


def test_another_seed_gives_other_cells() -> None:
    rows = mixture(2000, 32, 4)
    one, other = build(rows, seed=0), build(rows, seed=1)
    assert [len(cell) for cell in one.cells] != [len(cell) for cell in other.cells]


def test_every_instruction_set(isa: str) -> None:
    rows, queries = mixture(1500, 80, 5), mixture(30, 80, 5)
    built = build(rows)
    check(built)
    assert reached(built, 0) == len(rows)
    assert walk_recall(built, queries, 40) > 0.97


def test_equal_rows_alone() -> None:
    built = build(np.full((3000, 24), 0.5, np.float32))
    check(built)
    assert all(reached(built, row) == 3000 for row in (0, 1, 1500, 2999))
    assert max(len(cell) for cell in built.cells) <= 3 * 3000 / 100


def test_equal_rows_among_others() -> None:
    rows = mixture(4000, 40, 6)
    rows[:1500] = rows[0]
    rows[1500:1600] = rows[1500]
    built = build(rows)
    check(built)
    far = np.square(built.rows - rows[2000]).sum(axis=1)
    assert all(reached(built, int(row)) == 4000 for row in (far.argmin(), far.argmax()))
    assert walk_recall(built, mixture(30, 40, 6), 40) > 0.9


def test_rows_on_a_line() -> None:
    rows = np.zeros((2500, 16), np.float32)
    rows[:, 3] = np.arange(2500) % 1250
    built = build(rows)
    check(built)
    assert reached(built, 7) == 2500


@pytest.mark.parametrize("width", [0.01, 10.0, 50.0])  # of an island; a code's step is about 25
def test_islands_are_joined(width: float) -> None:
    random = np.random.default_rng(7)
    centres = 1000.0 * random.standard_normal((12, 32))
    rows = np.repeat(centres, 200, axis=0) + width * random.standard_normal((2400, 32))
    built = build(rows.astype(np.float32))
    check(built)
    assert reached(built, 0) == 2400
    assert reached(built, 2399) == 2400


def test_inserted_rows_are_found_as_well() -> None:
    rows, queries = mixture(5000, 64, 8), mixture(100, 64, 8)
    fresh = build(rows)
    vectors = build(rows[:3500]).vectors
    for first in range(3500, 5000, 150):
        vectors = vectors.append(rows[first : first + 150], 1).merge(1)
    grown = Built.of(vectors)
    check(grown)
    assert grown.vectors.graph_rows == 5000
    assert reached(grown, 0) == 5000
    for beam in (20, 60):
        assert walk_recall(grown, queries, beam) > walk_recall(fresh, queries, beam) - 0.01


def test_inserted_equals() -> None:
    rows = mixture(2000, 24, 9)
    vectors = build(rows).vectors
    for _ in range(4):
        vectors = vectors.append(np.repeat(rows[:1], 200, axis=0), 1).merge(1)
    grown = Built.of(vectors)
    check(grown)
    assert reached(grown, 0) == 2800
    assert reached(grown, 2799) == 2800
