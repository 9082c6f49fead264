# SPDX-License-Identifier: Apache-2.0
"""``python -m embedcore``: what it prints, its exit statuses, and how it stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import embedcore
import pytest
from embedcore.cli import bench, output, tour
from embedcore.cli.main import main

WIDTH = 88
RUNNER = "def main(argv):\n    print('ran', argv)\n    return len(argv)\n"


def start(*arguments: str, cwd: Path, code: str = "") -> subprocess.Popen[str]:
    """Start the command as a user does; with `code`, run that in place of ``-m embedcore``."""
    package = str(Path(embedcore.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, *(["-c", code] if code else ["-m", "embedcore"]), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": package, "MPLBACKEND": "Agg"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_tour_shows_every_family(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["tour", "--no-plot", "--out", str(tmp_path), "--threads", "2"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.isascii()
    for words in (
        "2 threads",
        "Deepest:\n  1.367  dish: a particular item of prepared food",
        "Outermost:",
        "verb.emotion differs from noun.feeling, and lies further out.",
        "nothing here\ntells the second half from the first half.",
        "differences are significant at 0.05",
        "depth.score(x), n = 180, m = 179, d = 384]",
        "low_rank_attention(hidden, heads, temperature=0.25), 8 heads, d = 384]",
        "T = 1     7.5 of 11 tokens   food 0.41, from 0.08, a 0.07\n"
        "       T = 0.25  1.1 of 11 tokens   food 0.99",
        "-  sheep: woolly usually horned ruminant mammal related to the goat (head noun.animal)",
        "all            0.383  honey: a sweet yellow liquid produced by bees\n"
        "    noun.animal    0.421  honeybee: social bee often domesticated for the honey it\n",
        "  -  field('class') == 'noun.food'\n     180 rows pass: bitters 0.604, candy 0.746, blow",
        "plan 'exact', 180 of 1440 rows pass, 180 distances computed.",
        "index.search(questions, k=1, where=filters), 41 queries]\nOf 41 questions, 61% find",
        "the word that matters drowns: from 41% to 7% of the weight. At 0.25 it\nkeeps 91%.",
        "None, as asked.",
    ):
        assert words in text
    assert list(tmp_path.iterdir()) == []


def test_tour_leaves_the_number_of_threads_alone(capsys: pytest.CaptureFixture[str]) -> None:
    embedcore.set_num_threads(3)
    assert main(["tour", "--no-plot", "--threads", "1"]) == 0
    assert ", 1 thread. " in capsys.readouterr().out
    assert embedcore.get_num_threads() == 3


def test_tour_draws(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert main(["tour", "--out", str(tmp_path / "new" / "folder")]) == 0
    text = capsys.readouterr().out
    for name in ("depth-depth.png", "rank-sum-matrix.png", "attention.png"):
        picture = tmp_path / "new" / "folder" / name
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert f"drew {picture}]" in text


def test_tour_without_matplotlib(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["tour", "--out", str(tmp_path)]) == 0
    assert "pip install 'embedcore[plot]'" in capsys.readouterr().out


def test_tour_into_a_folder_that_cannot_be(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "file").touch()
    assert main(["tour", "--out", str(tmp_path / "file" / "folder")]) == 1
    assert "embedcore: " in (error := capsys.readouterr().err)
    assert "Not a directory" in error


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    assert capsys.readouterr().out.startswith(f"version:  {embedcore.__version__}")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"embedcore {embedcore.__version__}\n"


@pytest.mark.parametrize("command", ["", "tour", "bench", "info"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"] if command else ["--help"])
    assert f"usage: python -m embedcore {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["tuor"], "invalid choice: 'tuor'"),
        (["tour", "--fast"], "unrecognized arguments: --fast"),
        (["tour", "--threads", "0"], "must be an integer from 1 to 1024; got '0'"),
        (["tour", "--threads", "many"], "must be an integer from 1 to 1024; got 'many'"),
    ],
)
def test_arguments_that_make_no_sense(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert words in capsys.readouterr().err


def test_interrupted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def part(sample: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tour, "PARTS", (part,))
    assert main(["tour"]) == 130
    assert capsys.readouterr().err == "\nStopped.\n"


def test_stops_on_ctrl_c_without_a_traceback(tmp_path: Path) -> None:
    # One long native call, which looks for signals by itself.
    code = """if True:
        import signal, sys, numpy as np
        from embedcore import depth
        from embedcore.cli import tour
        from embedcore.cli.main import main
        def part(sample):
            x = np.ones((60_000, 384), np.float32)
            x[:, 0] += np.arange(60_000)
            print("started", flush=True)
            depth.score(x, metric="arc", threads=1)
        tour.PARTS = (part,)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
        sys.exit(main(["tour"]))
    """
    with start(cwd=tmp_path, code=code) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "started\n":
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "\nStopped.\n"


def test_reader_that_goes_away(tmp_path: Path) -> None:
    with start("tour", "--no-plot", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def source_tree(folder: Path, project: str = "embedcore", runner: str = RUNNER) -> Path:
    (folder / "bench").mkdir(parents=True)
    (folder / "bench" / "__init__.py").touch()
    (folder / "bench" / "runner.py").write_text(runner)
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{project}"\n')
    return folder


def test_bench_runs_that_of_the_tree(tmp_path: Path) -> None:
    inside = source_tree(tmp_path / "tree") / "docs"
    inside.mkdir()
    passed = ["--full", "--threads", "1", "2", "--output", "a b", "--only=arc"]
    with start("bench", *passed, cwd=inside) as process:
        text, errors = process.communicate(timeout=60)
    assert (text, errors) == (f"ran {passed}\n", "")
    assert process.returncode == len(passed)


def test_bench_takes_a_folder(tmp_path: Path) -> None:
    tree = source_tree(tmp_path / "tree")
    with start("bench", "--bench-dir", str(tree / "bench"), cwd=tmp_path) as process:
        assert process.communicate(timeout=60) == ("ran []\n", "")
    assert process.returncode == 0


def test_bench_says_what_is_missing(tmp_path: Path) -> None:
    tree = source_tree(tmp_path / "tree", runner="import no_such_peer\n")
    with start("bench", cwd=tree) as process:
        _, errors = process.communicate(timeout=60)
    assert errors == "embedcore: No module named 'no_such_peer'\n"
    assert process.returncode == 1


def test_bench_of_another_project_is_left_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tree = source_tree(tmp_path, project="another")
    assert bench.find_bench(None, tree) is None
    assert bench.find_bench(tree / "bench", tree) is None
    monkeypatch.chdir(tree)
    assert main(["bench"]) == 1
    assert "the benchmarks are not part of the installed package" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.456e-6, "3.46 us"), (0.0123, "12.3 ms"), (2.5, "2.5 s"), (123.4, "123 s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text
