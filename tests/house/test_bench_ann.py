# SPDX-License-Identifier: Apache-2.0
"""The bench of filtered search: its smallest run, its page, and the data that it makes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS, DIM, QUERIES, K = 1500, 48, 80, 10


@pytest.fixture(scope="module", autouse=True)
def bench_path() -> Any:
    """Make the bench importable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield


@pytest.fixture(scope="module")
def made(bench_path: None) -> Any:
    """Return a small data set."""
    from bench.ann import data

    return data.make(ROWS, DIM, QUERIES)


@pytest.mark.slow
def test_the_smallest_run_checks_every_cell_and_has_a_page(tmp_path: Path) -> None:
    from bench.ann import report

    command = [sys.executable, str(ROOT / "bench" / "runner.py"), "--smoke", "--family", "ann"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every answer agrees with the oracle" in done.stdout
    result = json.loads((tmp_path / "ann-smoke.json").read_text())
    assert {case["workload"] for case in result["cases"]} == {"none", "em", "em_neg", "and"}
    for case in result["cases"]:
        names = [line["name"] for line in case["lines"] if "seconds" in line]
        assert any(name.startswith("embedcore") for name in names), case["name"]
        assert any(name.startswith("NumPy") for name in names), case["name"]
        assert not case["underfull"], case["name"]
        assert not case["failing"], case["name"]
    assert [entry["what"] for entry in result["memory"]] == ["shared", "build", "churn"]
    text = "\n".join(report.page_text(result))
    for title in ("### Cells: 600 x 32, 1 thread, prepared", "### Building", "### Churn"):
        assert title in text
    assert {row[3] for row in report.target_rows(result)} <= {"yes", "NO"}


def test_data_depend_on_the_seed_alone(made: Any) -> None:
    from bench.ann import data

    again, other = data.make(ROWS, DIM, QUERIES), data.make(ROWS, DIM, QUERIES, seed=2)
    assert np.array_equal(made.base, again.base)
    assert made.filters == again.filters
    assert not np.array_equal(made.base, other.base)
    assert np.allclose(np.linalg.norm(made.base, axis=1), 1.0, atol=1e-5)


def test_the_right_answers_are_the_nearest_passing_rows(made: Any) -> None:
    for workload, trees in made.filters.items():
        truth = made.truth(workload, K)
        for i in range(0, QUERIES, 7):
            passing = np.flatnonzero(made.columns.mask(trees[i]))
            scores = made.base[passing].astype(np.float64) @ made.queries[i].astype(np.float64)
            nearest = passing[np.lexsort((passing, -scores))[:K]]
            assert truth.passing[i] == len(passing)
            assert np.array_equal(truth.ids[i, : len(nearest)], nearest), (workload, i)
            assert (truth.ids[i, len(nearest) :] == -1).all()


def test_masks_id_lists_and_expressions_pass_the_same_rows(made: Any) -> None:
    from embedcore.ann import Index

    from bench.ann import columns

    index = Index(DIM)
    index.add(made.base, attributes=columns.attributes(made.columns))
    for workload, trees in made.filters.items():
        for tree in trees[::9]:
            mask = made.columns.mask(tree)
            assert np.array_equal(made.columns.ids(tree), np.flatnonzero(mask)), (workload, tree)
            assert index.count(columns.expression(tree)) == mask.sum(), (workload, tree)


def test_a_file_takes_the_place_of_made_data(made: Any, tmp_path: Path) -> None:
    from bench.ann import data

    arrays: dict[str, Any] = {"base": made.base, "queries": made.queries}
    arrays |= {f"attr_em_{name}": codes for name, codes in made.columns.categories.items()}
    arrays |= {f"attr_r_{name}": values for name, values in made.columns.numbers.items()}
    for name, sets in made.columns.sets.items():
        arrays[f"attr_emis_{name}_indptr"] = sets.starts
        arrays[f"attr_emis_{name}_indices"] = sets.codes
    for name in ("none", "em", "and"):
        arrays[f"wl_{name}_filters"] = np.array([json.dumps(tree) for tree in made.filters[name]])
    np.savez(tmp_path / "rows.npz", **arrays)
    found = data.read(tmp_path / "rows.npz")
    assert set(found.filters) == {"none", "em", "and"}
    assert found.filters["and"] == made.filters["and"]
    assert np.array_equal(found.truth("and", K).ids, made.truth("and", K).ids)


def test_quality_counts_what_is_missing_and_what_fails(made: Any) -> None:
    from bench.ann import exact

    rows = np.arange(QUERIES)
    truth, trees = made.truth("em", K), made.filters["em"]
    rest = (made.base, made.queries, made.columns, trees)
    right = exact.quality(truth, rows, truth.ids, *rest)
    assert right == exact.Quality(1.0, 0, 0)
    halved = truth.ids.copy()
    halved[:, 5:] = -1
    found = exact.quality(truth, rows, halved, *rest)
    wanted = np.minimum(K, truth.passing)
    assert found.recall == pytest.approx(np.minimum(5, wanted).sum() / wanted.sum())
    assert found.underfull == (wanted > 5).sum()
    failing = np.array([np.flatnonzero(~made.columns.mask(tree))[:1] for tree in trees])
    found = exact.quality(truth, rows, failing, *rest)
    assert (found.recall, found.failing) == (0.0, QUERIES)
