# SPDX-License-Identifier: Apache-2.0
"""The bench works: its smallest run, as a user starts it, and its page."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Attention's peers are Torch's; without Torch the bench has no case of it.
FAMILIES = ["depth", *(["attention"] if find_spec("torch") is not None else [])]

Run = tuple[str, dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run it once; return what it printed and the JSON of each family."""
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, str(ROOT / "bench" / "runner.py"), "--smoke", "--output", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = {
        family: json.loads((folder / f"{family}-smoke.json").read_text()) for family in FAMILIES
    }
    return done.stdout, results


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_case_is_checked_and_timed(smoke: Run, family: str) -> None:
    result = smoke[1][family]
    assert result["family"] == family
    assert not result["interrupted"]
    if family == "depth":
        assert {case["metric"] for case in result["cases"]} == {
            "cosine", "chord", "arc", "l2", "spatial", "halfspace", "projection", "irw",
        }  # fmt: skip
    else:
        kinds = {(case["what"], case["dtype"], case["backward"]) for case in result["cases"]}
        assert len(kinds) == 12  # attention and pooling both ways, mean and ragged; two dtypes
    for case in result["cases"]:
        own = [line for line in case["lines"] if line["role"] == "ours"]
        assert own
        for line in own:
            assert line["seconds"] > 0
            assert line["ratio_to_floor"] > 0
            assert line["error"] <= line["error_limit"]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_peers_agree_with_the_oracle(smoke: Run, family: str) -> None:
    for case in smoke[1][family]["cases"]:
        peers = [line for line in case["lines"] if line["role"] == "peer"]
        assert peers, case["name"]
        reduced = case.get("dtype") == "bfloat16"
        for line in peers:
            assert "failed" not in line, line
            if line["error"] is not None and "bfloat16" not in line["name"]:
                coarse = reduced or case.get("metric") == "halfspace"
                assert line["error"] < (0.05 if coarse else 1e-3)


@pytest.mark.slow
def test_the_page_has_every_case(
    smoke: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench import report

    folder = tmp_path / "results" / "here"
    charts = 0
    for family, result in smoke[1].items():
        files = report.write(result, folder)
        assert files[0] == folder / f"{family}-smoke.json"
        charts += len(files) - 1
    text = report.write_page(tmp_path).read_text()
    for result in smoke[1].values():
        assert all(f"### {case['name']}, " in text for case in result["cases"])
    assert text.count("![") == charts


@pytest.mark.slow
def test_targets_stand_beside_their_measurements(smoke: Run) -> None:
    if "attention" not in smoke[1]:
        pytest.skip("needs torch")
    text = smoke[0]
    assert "behind no peer at any point of the grid" in text
    assert "a call: Torch, with autograd" in text
    assert "memory of forward+backward, embedcore" in text


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_and_the_machine_are_stated(smoke: Run, family: str) -> None:
    text, results = smoke
    result = results[family]
    assert "x best peer" in text
    # Filtered search, which tests of its own look at, is the third family.
    assert text.count("every answer agrees with the oracle") == len(FAMILIES) + 1
    assert result["machine"]["isa"]
    assert result["floors"]["1"]["read_gb_per_s"] > 0
    assert result["memory"][0]["extra_bytes"] >= 0
    assert {entry["kind"] for entry in result["overhead"]} >= {"NumPy"}


@pytest.mark.slow
def test_a_family_and_a_text_choose_the_cases() -> None:
    command = [sys.executable, str(ROOT / "bench" / "runner.py"), "--list", "--full"]
    every = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "arc 10,000 x 10,000 x 384" in every.splitlines()
    only = [*command, "--family", "depth", "--only", "cosine"]
    chosen = subprocess.run(only, capture_output=True, text=True, check=True).stdout.splitlines()
    assert chosen
    assert all(name.startswith("cosine") for name in chosen)
