# SPDX-License-Identifier: Apache-2.0
"""Object files: kernels stay in their instruction set, share no code and do not spill."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest
from support.binaries import Instruction, instructions, symbols

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="knows x86-64 alone")

ISAS = ("baseline", "avx2", "avx512", "avx512dot", "avx512amx")
KERNELS = (
    "product",
    "rows",
    "pairwise",
    "spatial",
    "projection",
    "attention",
    "attention_scores",
    "attention_bfloat",
    "ann",
    "ann_raw",
    "graph",
)
TILED = ("attention_bfloat", "product_tiles")  # all that there is of avx512amx
# What gcc may call for a loop or a square root; none of it is compiled here.
ALLOWED_CALLS = {"memcpy", "memmove", "memset", "sqrt", "sqrtf", "_GLOBAL_OFFSET_TABLE_"}
# Kernel and functions of each hot loop; the compiler may or may not inline one into the other.
# Attention in float64 is for gradient checks, and its loops are not held to this.
HOT = {
    "float": ("product", r"product_float|::FloatStep"),
    "bfloat": ("product", r"product_bfloat|::BFloatStep"),
    "int8": ("product", r"product_int8|::Int8Step"),
    "attention scores": ("attention", r"\bscores?(_\w+)?<.*Floats"),
    "attention panels": ("attention", r"::(scores_of_panels|score_panel)[<(]"),
    "attention pool": ("attention", r"\bpool(_\w+)?<.*Floats"),
    "attention spread": ("attention", r"\bspread(_\w+)?<.*Floats"),
    "attention bfloat scores": ("attention_bfloat", r"::scores?(_\w+)?[<(]"),
    "attention bfloat pool": ("attention_bfloat", r"::pool(_\w+)?[<(]"),
    "scores of codes": ("ann", r"::(score_(group|listed|range|tail)|dot_rows)\("),
    "projection": ("ann_raw", r"::project_(tile|rows)<"),
}
# Sets without the dot-product instruction need more steps, and so more registers than there are.
# Packed bfloat and int8 still move fewer bytes there.
KNOWN_TO_SPILL = {
    *[(isa, loop) for isa in ("avx2", "avx512") for loop in ("bfloat", "int8")],
    ("avx2", "scores of codes"),  # eight sums, and what the ends of their rows need
}
# bf16 tokens are widened by sets without bf16 products, which have no such loop.
ABSENT = {(isa, f"attention bfloat {loop}") for isa in ISAS[:3] for loop in ("scores", "pool")}


def objects_of(build_dir: Path, target: str) -> list[Path]:
    return sorted((build_dir / "CMakeFiles" / f"{target}.dir").rglob("*.o"))


def kernel_of(path: Path) -> str:
    """Name of the kernel that an object holds: "pairwise" of pairwise.isa.cpp.o."""
    return path.name.partition(".")[0]


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def kernels(build_dir: Path, isa: str) -> list[Path]:
    found = objects_of(build_dir, f"embedcore_{isa}")
    wanted = TILED if isa == "avx512amx" else KERNELS
    names = {kernel_of(path) for path in found}
    assert names == set(wanted), f"{build_dir} holds no build of these kernels"
    return found


def test_a_kernel_exports_its_table_alone(kernels: list[Path], isa: str) -> None:
    for path in kernels:
        exported = [s.name for s in symbols(path, "--defined-only") if s.kind.isupper()]
        assert len(exported) == 1, (path.name, exported)
        assert re.fullmatch(rf"ec_\w+_kernels_{isa}", exported[0]), (path.name, exported)


def test_a_kernel_has_no_symbol_that_the_linker_could_merge(kernels: list[Path]) -> None:
    weak = [(path.name, s) for path in kernels for s in symbols(path) if s.kind in "wWvVu"]
    assert weak == []


def test_a_kernel_calls_nothing_from_outside(kernels: list[Path]) -> None:
    foreign = {s.name for path in kernels for s in symbols(path) if s.kind == "U"}
    assert foreign <= ALLOWED_CALLS


def test_a_kernel_holds_nothing_of_the_standard_library(kernels: list[Path]) -> None:
    standard = [(path.name, s) for path in kernels for s in symbols(path) if "std::" in s.name]
    assert standard == []


def above_the_set(isa: str, instruction: Instruction) -> bool:
    """Whether an instruction is of a set above `isa`."""
    _, mnemonic, operands = instruction
    if isa == "baseline":
        return mnemonic.startswith("v") and mnemonic not in ("verr", "verw")
    if isa == "avx2":
        return re.search(r"%zmm|%[xy]mm(1[6-9]|[23]\d)|%k[0-7]", operands) is not None
    if isa == "avx512":
        return re.match(r"vdpbf16|vcvtne|vpdp|tdp|tile", mnemonic) is not None
    if isa == "avx512dot":
        return re.match(r"tdp|tile", mnemonic) is not None
    return False


def test_a_kernel_stays_in_its_instruction_set(kernels: list[Path], isa: str) -> None:
    above = [i for path in kernels for i in instructions(path) if above_the_set(isa, i)]
    assert above[:5] == []


def test_the_instruction_sets_are_really_used(build_dir: Path) -> None:
    marks = {"avx2": "%ymm", "avx512": "%zmm", "avx512dot": "%zmm"}
    for isa, register in marks.items():
        for kernel in ("product", "attention"):
            (path,) = (
                p for p in objects_of(build_dir, f"embedcore_{isa}") if kernel_of(p) == kernel
            )
            assert any(register in i.operands for i in instructions(path)), (isa, kernel)


def test_bfloat_products_are_really_used(build_dir: Path) -> None:
    for kernel in ("product", "attention_bfloat"):
        (path,) = (
            p for p in objects_of(build_dir, "embedcore_avx512dot") if kernel_of(p) == kernel
        )
        assert any(i.mnemonic == "vdpbf16ps" for i in instructions(path)), kernel
    for path in objects_of(build_dir, "embedcore_avx512amx"):
        assert any(i.mnemonic == "tdpbf16ps" for i in instructions(path)), path.name


def test_drivers_run_on_every_processor(build_dir: Path) -> None:
    drivers = objects_of(build_dir, "embedcore")
    assert any(path.name.startswith("dispatch") for path in drivers)
    above = [i for path in drivers for i in instructions(path) if above_the_set("baseline", i)]
    assert above[:5] == []


def spills(code: list[Instruction]) -> list[Instruction]:
    """Loads and stores of whole vector registers on the stack."""
    return [
        i for i in code if re.search(r"\(%r[sb]p", i.operands) and re.search(r"%[yz]mm", i.operands)
    ]


@pytest.mark.parametrize("isa", ["avx2", "avx512", "avx512dot"])
@pytest.mark.parametrize("loop", list(HOT))
def test_a_hot_loop_keeps_its_vectors_in_registers(build_dir: Path, isa: str, loop: str) -> None:
    kernel, functions = HOT[loop]
    (path,) = (p for p in objects_of(build_dir, f"embedcore_{isa}") if kernel_of(p) == kernel)
    code = [i for i in instructions(path) if re.search(functions, i.function)]
    assert (code == []) == ((isa, loop) in ABSENT), f"{kernel} holds no function {functions}"
    found = spills(code)
    if (isa, loop) in KNOWN_TO_SPILL:
        assert found, f"{isa} {loop} spills no more: take it out of KNOWN_TO_SPILL"
    else:
        assert found == []
