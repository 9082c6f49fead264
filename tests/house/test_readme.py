# SPDX-License-Identifier: Apache-2.0
"""The README has its two commands, links lead somewhere, and every example runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import embedcore
import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
# It needs a model and WordNet's own files, and takes minutes.
HELP_ONLY = ("build_sample_data.py",)
NEED_TORCH = ("lama_head.py", "tempscale_transformers.py")
# They start a cluster of processes.
SLOW = ("depth_on_dask.py", "search_on_dask.py")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def bash_blocks(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(r"^```bash\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def run_python(folder: Path, *arguments: str | Path) -> str:
    environment = {
        **os.environ,
        "MPLBACKEND": "Agg",
        "PYTHONPATH": str(Path(embedcore.__file__).parents[1]),
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_readme_has_two_commands() -> None:
    main_job, tests = bash_blocks(README)
    assert "python -m embedcore tour" in main_job
    assert "python -m pytest" in tests


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (path.parent / link).exists()] == []


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in EXAMPLES]
)
def test_example_runs(name: str, tmp_path: Path) -> None:
    if name in NEED_TORCH:
        pytest.importorskip("torch")
    arguments = ("--help",) if name in HELP_ONLY else ()
    assert run_python(tmp_path, ROOT / "examples" / name, *arguments).strip()
