# SPDX-License-Identifier: Apache-2.0
"""The README's commands and Python, its links, and every example."""

from __future__ import annotations

import importlib.util
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
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def blocks(language: str, path: Path = README) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


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
    main_job, tests = blocks("bash")
    assert "python -m embedcore tour" in main_job
    assert "python -m pytest" in tests


def test_python_of_the_readme_runs_in_order(tmp_path: Path) -> None:
    code = "\n".join(blocks("python"))
    assert code
    optional = ("torch", "matplotlib", "tqdm", "scipy")
    needed = [name for name in optional if re.search(rf"\bimport {name}\b", code)]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    script = tmp_path / "readme.py"
    script.write_text(code, encoding="utf-8")
    run_python(tmp_path, script)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name: str, tmp_path: Path) -> None:
    arguments = ("--help",) if name in HELP_ONLY else ()
    assert run_python(tmp_path, ROOT / "examples" / name, *arguments).strip()
