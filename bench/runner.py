# SPDX-License-Identifier: Apache-2.0
"""embedcore's bench: time, error, ratio to the floor and ratio to the best peer found installed.

    python -m bench                     # short: about three minutes on two cores
    python -m bench --family attention  # one family of kernels alone: depth, attention or ann
    python -m bench --full              # the shapes of the targets
    python -m bench --full --record     # also renews bench/results/<machine>/ and bench/RESULTS.md

Writes JSON and a chart for each family into build/bench, or where --output says. Filtered search
takes a data set of the user's, too: the file that EMBEDCORE_BENCH_ANN_DATA names, laid out as
bench/ann/data.py says. Ctrl-C stops and keeps what has been measured. The status is 1 when an
answer of embedcore was wrong.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.families import Family

ROOT = Path(__file__).resolve().parents[1]
INTERRUPTED = 130
# Each holds a baseline below its best, and is only read when its library is loaded. A forced core
# type halves the SGEMM of OpenBLAS on machines with AVX-512.
HANDICAPS = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "MKL_ENABLE_INSTRUCTIONS",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "NPY_DISABLE_CPU_FEATURES",
)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    from bench.families import NAMES

    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    mode = parser.add_mutually_exclusive_group()
    for name, text in (
        ("quick", "small shapes (default)"),
        ("full", "all shapes; half an hour a family on two cores, two hours for ann"),
        ("smoke", "tiny shapes: does the bench itself work"),
    ):
        mode.add_argument(f"--{name}", dest="mode", action="store_const", const=name, help=text)
    parser.add_argument("--family", choices=NAMES, help="default: all")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name has this text")
    parser.add_argument("--threads", type=int, nargs="+", help="default: 1 and all, at most 2")
    parser.add_argument("--output", type=Path, metavar="FOLDER", default=ROOT / "build" / "bench")
    parser.add_argument("--record", action="store_true", help="renew bench/results and RESULTS.md")
    parser.add_argument("--machine", metavar="NAME", help="folder name under bench/results")
    parser.add_argument(
        "--keep-environment",
        action="store_true",
        help=f"do not start anew without {', '.join(HANDICAPS)}",
    )
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.set_defaults(mode="quick")
    options = parser.parse_args(arguments)
    if options.threads and min(options.threads) < 1:
        parser.error("argument --threads: must be at least 1")
    if options.record and options.mode == "smoke":
        parser.error("argument --record: a smoke run measures nothing worth keeping")
    return options


def _start_without(names: list[str], argv: list[str]) -> int:
    """Run in a process whose baselines choose for themselves."""
    said = ", ".join(f"{name}={os.environ[name]}" for name in names)
    print(f"started without {said}, so that the baselines are at their best", file=sys.stderr)
    environment = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, str(Path(__file__).resolve()), *map(str, argv)]
    with subprocess.Popen(command, env=environment) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:
            pass  # from a terminal the child got it too, and ends when it has written what it has
        try:
            return child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGINT)
            return child.wait()


def main(argv: list[str] | None = None) -> int:
    """Run the bench; the status is 0, 1 for a wrong answer, 130 after Ctrl-C."""
    # For "python bench/runner.py", which puts bench/ there: its "depth" would hide data-depth's.
    sys.path[:] = [folder for folder in sys.path if folder != str(ROOT / "bench")]
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    options = _parse(argv)
    handicaps = [name for name in HANDICAPS if os.environ.get(name)]
    if handicaps and not options.keep_environment:
        return _start_without(handicaps, sys.argv[1:] if argv is None else argv)
    from bench import families

    names = [options.family] if options.family else families.NAMES
    found = {name: families.family(name) for name in names}
    if options.list:
        for family in found.values():
            for case in family.cases_of(options.mode, options.only):
                print(case.name)
        return 0
    # A family without a case of that name would only measure its overhead and memory.
    chosen = {
        name: family
        for name, family in found.items()
        if family.cases_of(options.mode, options.only)
    }
    status = 0
    for name, family in chosen.items():
        status = max(status, _measure(name, family, options))
        if status == INTERRUPTED:
            break
    return status


def _measure(name: str, family: Family, options: argparse.Namespace) -> int:
    """Measure a family, print and write its figures; return its status."""
    from bench import machine, report, session

    threads = options.threads or sorted({1, min(2, machine.cores())})
    result = session.run(name, family, options.mode, options.only, threads, report.case_text)
    print(report.closing_text(result))
    folder = options.output
    if options.record:
        folder = ROOT / "bench" / "results" / (options.machine or result["machine"]["name"])
    for file in report.write(result, folder):
        print(f"wrote {file}")
    if options.record:
        print(f"wrote {report.write_page(ROOT / 'bench')}")
    if result["interrupted"]:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    return 1 if report.wrong_answers(result) else 0


if __name__ == "__main__":
    raise SystemExit(main())
