# SPDX-License-Identifier: Apache-2.0
"""The pages show what their Python prints: a ``text`` block is the output of the code above."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/ann.md", "docs/attention.md", "docs/migrating-from-tte-depth.md")


@pytest.mark.parametrize("name", PAGES)
def test_output_is_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(python|text)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert any(kind == "text" for kind, _ in blocks)
    if "import plot" in page:
        pyplot = pytest.importorskip("matplotlib.pyplot")
        pyplot.switch_backend("agg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    printed = ""
    for kind, text in blocks:
        if kind == "text":
            assert text == printed
            printed = ""
            continue
        assert printed == "", "output that the page does not show"
        if "import torch" in text and importlib.util.find_spec("torch") is None:
            break  # the rest of the page is about it
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            exec(compile(text, name, "exec"), names)
        printed = stream.getvalue()
    if "import plot" in page:
        pyplot.close("all")
