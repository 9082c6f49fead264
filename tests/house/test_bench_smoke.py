# SPDX-License-Identifier: Apache-2.0
"""The bench works: its smallest run, as a user starts it, and its page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Run it once; return what it printed and the JSON."""
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, str(ROOT / "bench" / "runner.py"), "--smoke", "--output", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((folder / "depth-smoke.json").read_text())


@pytest.mark.slow
def test_every_metric_is_checked_and_timed(smoke: tuple[str, dict[str, Any]]) -> None:
    _, result = smoke
    assert not result["interrupted"]
    metrics = {case["metric"] for case in result["cases"]}
    assert metrics == {
        "cosine", "chord", "arc", "l2", "spatial", "halfspace", "projection", "irw",
    }  # fmt: skip
    for case in result["cases"]:
        own = [line for line in case["lines"] if line["role"] == "ours"]
        assert own
        for line in own:
            assert line["seconds"] > 0
            assert line["ratio_to_floor"] > 0
            assert line["error"] <= line["error_limit"]


@pytest.mark.slow
def test_peers_agree_with_the_oracle(smoke: tuple[str, dict[str, Any]]) -> None:
    _, result = smoke
    for case in result["cases"]:
        peers = [line for line in case["lines"] if line["role"] == "peer"]
        assert peers, case["name"]
        for line in peers:
            assert "failed" not in line, line
            if line["error"] is not None and "bfloat16" not in line["name"]:
                assert line["error"] < (0.05 if case["metric"] == "halfspace" else 1e-3)


@pytest.mark.slow
def test_the_page_has_every_case(
    smoke: tuple[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, result = smoke
    monkeypatch.syspath_prepend(str(ROOT))
    from bench import report

    folder = tmp_path / "results" / "here"
    files = report.write(result, folder)
    assert files[0] == folder / "depth-smoke.json"
    text = report.write_page(tmp_path).read_text()
    assert all(f"### {case['name']}, " in text for case in result["cases"])
    assert ("![" in text) == (len(files) == 2)


@pytest.mark.slow
def test_the_table_and_the_machine_are_stated(smoke: tuple[str, dict[str, Any]]) -> None:
    text, result = smoke
    assert "x best peer" in text
    assert "every answer agrees with the oracle" in text
    assert result["machine"]["isa"]
    assert result["floors"]["1"]["read_gb_per_s"] > 0
    assert result["memory"][0]["extra_bytes"] >= 0
    assert {entry["kind"] for entry in result["overhead"]} >= {"NumPy"}
