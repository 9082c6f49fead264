# SPDX-License-Identifier: Apache-2.0
"""The controls, their environment variables, and the checks of options."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import embedcore
import numpy as np
import pytest
from embedcore._check import choose, integer


def run_python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter in which none of our variables is set but those given."""
    ours = ("EMBEDCORE_ISA", "EMBEDCORE_NUM_THREADS", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    package = os.path.dirname(os.path.dirname(embedcore.__file__))
    environment["PYTHONPATH"] = os.pathsep.join([package, environment.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def output_of(code: str, **variables: str) -> str:
    done = run_python(code, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


THREADS = "import embedcore; print(embedcore.get_num_threads())"
PROCESSORS = len(os.sched_getaffinity(0))


def test_threads_by_default() -> None:
    assert output_of(THREADS) == str(PROCESSORS)


@pytest.mark.parametrize(
    ("variables", "count"),
    [
        ({"EMBEDCORE_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "1,4"}, 1),
        ({"OMP_NUM_THREADS": "1000"}, PROCESSORS),
        ({"OMP_NUM_THREADS": "all"}, PROCESSORS),
        ({"OMP_NUM_THREADS": "1", "EMBEDCORE_NUM_THREADS": "3"}, 3),
        ({"EMBEDCORE_NUM_THREADS": ""}, PROCESSORS),
    ],
    ids=str,
)
def test_threads_from_the_environment(variables: dict[str, str], count: int) -> None:
    assert output_of(THREADS, **variables) == str(count)


def test_threads_follow_the_affinity() -> None:
    code = f"import os; os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}}); {THREADS}"
    assert output_of(code) == "1"


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "1025"])
def test_a_bad_number_of_threads_is_refused_at_import(value: str) -> None:
    done = run_python("import embedcore", EMBEDCORE_NUM_THREADS=value)
    assert done.stderr.strip().endswith(
        "ValueError: import embedcore: 'EMBEDCORE_NUM_THREADS' must be an integer from 1 to 1024; "
        f"got '{value}'."
    )


def test_threads_are_set_and_restored() -> None:
    before = embedcore.get_num_threads()
    embedcore.set_num_threads(7)
    assert embedcore.get_num_threads() == 7
    embedcore.set_num_threads(np.int32(3))  # type: ignore[arg-type]
    assert embedcore.get_num_threads() == 3
    embedcore.set_num_threads(None)
    assert embedcore.get_num_threads() == before


def test_threads_as_a_context() -> None:
    before = embedcore.show_config("dict")["threads"]
    limit = embedcore.threads(3)
    with limit:
        assert embedcore.get_num_threads() == 3
        with embedcore.threads(5), limit:
            assert embedcore.get_num_threads() == 3
        assert embedcore.get_num_threads() == 3
    assert embedcore.show_config("dict")["threads"] == before
    with pytest.raises(ZeroDivisionError), embedcore.threads(2):
        raise ZeroDivisionError
    assert embedcore.show_config("dict")["threads"] == before


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0, ValueError, "must be from 1 to 1024; got 0."),
        (1025, ValueError, "must be from 1 to 1024; got 1025."),
        (2.0, TypeError, "must be an integer; got float."),
        (True, TypeError, "must be an integer; got bool."),
        ("2", TypeError, "must be an integer; got str."),
    ],
)
def test_bad_numbers_of_threads(value: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=re.escape(f"set_num_threads: 'n' {text}")):
        embedcore.set_num_threads(value)
    with pytest.raises(kind, match=re.escape(f"threads: 'n' {text}")):
        embedcore.threads(value)


def test_each_instruction_set_can_be_forced(isa: str) -> None:
    assert embedcore.get_isa() == isa
    assert output_of("import embedcore; print(embedcore.get_isa())", EMBEDCORE_ISA=isa) == isa
    embedcore.set_isa(None)
    assert embedcore.get_isa() == embedcore.list_isas()[-1]


@pytest.mark.parametrize("name", ["sse9", "AVX2 ", "a" * 300])
def test_an_unknown_instruction_set_is_refused_at_import(name: str) -> None:
    done = run_python("import embedcore", EMBEDCORE_ISA=name)
    listed = ", ".join(repr(isa) for isa in embedcore.list_isas())
    assert f"ValueError: import embedcore: 'EMBEDCORE_ISA' must be one of {listed}" in done.stderr
    assert done.returncode == 1


def test_an_empty_instruction_set_is_the_default() -> None:
    code = "import embedcore; print(embedcore.get_isa())"
    assert output_of(code, EMBEDCORE_ISA="") == embedcore.list_isas()[-1]


def test_unknown_instruction_sets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^set_isa: 'name' must be one of .*; got 'mmx'"):
        embedcore.set_isa("mmx")
    with pytest.raises(TypeError, match=r"^set_isa: 'name' must be a string, one of .*; got int"):
        embedcore.set_isa(2)  # type: ignore[arg-type]


def test_show_config(capsys: pytest.CaptureFixture[str]) -> None:
    facts = embedcore.show_config("dict")
    assert facts["version"] == embedcore.__version__
    assert facts["isa"]["current"] in facts["isa"]["available"].split()
    assert facts["threads"]["current"] == embedcore.get_num_threads()
    # Whatever the build and the machine, what they have is said.
    assert re.fullmatch(
        r"not built: .*|CUDA [\d.]+, targets [\w -]+(, devices \d+|; there is no CUDA device: .+)",
        facts["cuda"],
    )
    assert facts["numpy"] == np.__version__
    assert set(facts["optional"]) >= {"torch", "cupy"}
    embedcore.show_config()
    printed = capsys.readouterr().out
    for name in facts:
        assert re.search(f"^{name}: ", printed, re.MULTILINE)
    assert embedcore.get_isa() in printed
    with pytest.raises(ValueError, match=r"^show_config: 'mode' must be one .*did you mean 'dict'"):
        embedcore.show_config("dicts")  # type: ignore[call-overload]


def test_import_loads_numpy_and_nothing_else() -> None:
    code = (
        "import numpy, sys; before = set(sys.modules); import embedcore; "
        "roots = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(*sorted(roots - sys.stdlib_module_names))"
    )
    assert output_of(code) == "embedcore"
    optional = "import sys, embedcore; print({'torch', 'scipy', 'matplotlib'} & set(sys.modules))"
    assert output_of(optional) == "set()"


def test_families_are_loaded_when_used() -> None:
    code = (
        "import sys, embedcore; assert 'embedcore.datasets' not in sys.modules; "
        "embedcore.datasets; assert 'embedcore.datasets' in sys.modules; "
        "print('depth' in dir(embedcore))"
    )
    assert output_of(code) == "True"
    with pytest.raises(AttributeError, match=r"^module 'embedcore' has no attribute 'dept'$"):
        embedcore.dept  # noqa: B018


METRICS = ("cosine", "chord", "arc")


def test_choose() -> None:
    assert choose("depth.score", "metric", "arc", METRICS) == "arc"
    listed = "'cosine', 'chord', 'arc'"
    cases: list[tuple[Any, type[Exception], str]] = [
        ("cosin", ValueError, f"one of {listed}; got 'cosin'; did you mean 'cosine'?"),
        ("Cosine", ValueError, f"one of {listed}; got 'Cosine'; did you mean 'cosine'?"),
        ("xyz", ValueError, f"one of {listed}; got 'xyz'."),
        ("", ValueError, f"one of {listed}; got ''."),
        (None, TypeError, f"a string, one of {listed}; got NoneType."),
        (np.ones(2), TypeError, f"a string, one of {listed}; got ndarray."),
    ]
    for value, kind, text in cases:
        with pytest.raises(kind, match=r"^" + re.escape(f"depth.score: 'metric' must be {text}")):
            choose("depth.score", "metric", value, METRICS)


def test_integer() -> None:
    assert integer("f", "k", 3) == 3
    assert type(integer("f", "k", np.uint8(3))) is int
    assert integer("f", "k", 10**30, minimum=0) == 10**30
    cases: list[tuple[Any, dict[str, int], type[Exception], str]] = [
        (0, {"minimum": 1}, ValueError, "at least 1; got 0."),
        (9, {"maximum": 8}, ValueError, "at most 8; got 9."),
        (9, {"minimum": 1, "maximum": 8}, ValueError, "from 1 to 8; got 9."),
        (1.0, {}, TypeError, "an integer; got float."),
        (np.float32(1), {}, TypeError, "an integer; got float32."),
        (True, {}, TypeError, "an integer; got bool."),
        (np.True_, {}, TypeError, "an integer; got bool."),
        (None, {}, TypeError, "an integer; got NoneType."),
        (np.ones(2, int), {}, TypeError, "an integer; got ndarray."),
    ]
    for value, bounds, kind, text in cases:
        with pytest.raises(kind, match=r"^" + re.escape(f"f: 'k' must be {text}")):
            integer("f", "k", value, **bounds)
