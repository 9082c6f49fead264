# SPDX-License-Identifier: Apache-2.0
"""Read object files and shared libraries with binutils."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest


class Symbol(NamedTuple):
    """One line of nm: `kind` is nm's letter, upper case where global."""

    kind: str
    name: str


class Instruction(NamedTuple):
    """One line of objdump, with the demangled function it is in."""

    function: str
    mnemonic: str
    operands: str


def tool(*command: str) -> str:
    """Run a binutils command; skip the test where it is not installed."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]} (binutils)")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def symbols(path: Path, *options: str) -> list[Symbol]:
    """List the symbols of a file; names are demangled."""
    lines = tool("nm", "--demangle", "--format=posix", *options, str(path)).splitlines()
    found = (re.match(r"(.+?) ([A-Za-z])(?: |$)", line) for line in lines)
    return [Symbol(match[2], match[1]) for match in found if match]


def instructions(path: Path) -> Iterator[Instruction]:
    """Disassemble the code of a file."""
    function = ""
    text = tool("objdump", "-d", "--no-show-raw-insn", "--demangle", "--wide", str(path))
    for line in text.splitlines():
        if header := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            function = header[1]
        elif body := re.match(r"\s+[0-9a-f]+:\s+(\S+)\s*(.*)", line):
            yield Instruction(function, body[1], body[2])


def needed_libraries(path: Path) -> list[str]:
    """Names of the shared libraries that a library loads."""
    return re.findall(r"\(NEEDED\).*\[(.+)\]", tool("readelf", "--dynamic", "--wide", str(path)))
