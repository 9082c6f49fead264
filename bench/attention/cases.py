# SPDX-License-Identifier: Apache-2.0
"""What is measured: shapes, heads and dtypes, and what is asked of embedcore there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from bench.timing import optional

SHARE = 0.6  # of valid tokens, where not all are
LARGE = 16_384  # tokens; targets against Torch are for batches of at least so many
HEADS = (8, 16, 32)
POOLING_HEADS = 8
SHAPES = {"quick": ((1, 512), (32, 512)), "full": ((1, 512), (1, 8192), (32, 512), (256, 512))}
LONG = (32, 2048)
DTYPES = ("float32", "bfloat16")

# Least times of Torch eager, in ours, by heads.
EAGER_FORWARD = {8: 5.0, 16: 2.8, 32: 2.0}
EAGER_TRAINING = {8: 6.0, 16: 3.5, 32: 2.0}


@dataclass(frozen=True)
class Case:
    """One problem: "attention", "pooling" (folded heads), "mean" or "ragged"."""

    what: str
    sequences: int
    tokens: int
    columns: int
    heads: int
    dtype: str
    mode: str
    backward: bool = False
    compiled: bool = False  # with torch.compile, whose warm-up takes many seconds, among the peers
    cold: bool = False

    @property
    def name(self) -> str:
        """Return a title, unique among the cases of one mode."""
        titles = {
            "attention": "attention",
            "pooling": "folded pooling",
            "mean": f"mean of {SHARE:.0%}",
            "ragged": f"ragged {SHARE:.0%}",
        }
        way = {"mean": "", "ragged": ""}.get(
            self.what, " forward+backward" if self.backward else " forward"
        )
        shape = f"{self.sequences} x {self.tokens} x {self.columns}"
        heads = "" if self.what == "mean" else f", m {self.heads}"
        cold = " (cold)" if self.cold else ""
        return f"{titles[self.what]}{way} {shape}{heads}, {self.dtype}{cold}"

    @property
    def large(self) -> bool:
        """Whether the batch is large enough for the targets against Torch eager."""
        return self.sequences * self.tokens >= LARGE

    def threads_of(self, threads: list[int]) -> list[int]:
        """Return all; where nothing is measured, more than one for the plainest cases alone."""
        plain = self.dtype == "float32" and not self.backward
        return threads if plain or self.mode != "smoke" else threads[:1]

    def uncompiled(self) -> Case:
        """Return a copy without contestants that take long to make ready."""
        return replace(self, compiled=False)

    def small(self) -> Case:
        """Return a tiny copy in which the same contestants take part."""
        return replace(self, sequences=2, tokens=8, columns=16, heads=8)

    def target(self) -> float | None:
        """Return the largest ratio to the floor."""
        if self.cold or self.mode == "smoke" or self.what in ("mean", "pooling"):
            return None
        if self.what == "ragged":
            return 1.1
        if self.backward:
            return 1.35
        if self.dtype == "bfloat16":
            return 1.4
        return 1.25 if self.heads == 8 else 1.1

    def goals(self) -> dict[str, float]:
        """Return the least times of peers, in units of our own."""
        if self.cold or self.mode == "smoke" or self.what == "ragged":
            return {}
        single = self.dtype == "float32"
        if self.what == "mean":
            return {"sentence-transformers": 12.0, "bmm": 1.5} if single else {}
        if self.what == "pooling":
            return {"nn.MultiheadAttention": 50.0 if self.backward else 60.0} if single else {}
        found = {}
        if single and self.large:
            found["Torch eager"] = (EAGER_TRAINING if self.backward else EAGER_FORWARD)[self.heads]
        if self.dtype == "bfloat16" and not self.backward:
            found["Torch compiled"] = 2.0 if self.sequences > 1 else 1.6
        return found


def _compiled(sequences: int, tokens: int, heads: int, backward: bool) -> bool:
    """Whether torch.compile takes part: with 16 heads, and where batches are short with all."""
    if (sequences, tokens) in ((1, 512), (32, 512)):
        return True
    return heads == 16 and not (backward and sequences * tokens > LARGE)


def _attention(
    mode: str, sequences: int, tokens: int, columns: int, heads: tuple[int, ...], **more: bool
) -> list[Case]:
    compiles = mode == "full" and columns == 768 and not more.get("cold")
    return [
        Case(
            "attention", sequences, tokens, columns, m, dtype, mode, backward,
            compiled=compiles and _compiled(sequences, tokens, m, backward), **more,
        )
        for dtype, m, backward in product(DTYPES, heads, (False, True))
    ]  # fmt: skip


def _full() -> list[Case]:
    cases: list[Case] = []
    for shape in (*SHAPES["full"], LONG):
        cases += _attention("full", *shape, 768, HEADS)
        if shape != LONG:
            cases += _attention("full", *shape, 768, (16,), cold=True)
    for columns in (384, 1024):
        cases += _attention("full", 32, 512, columns, HEADS)
    for shape in ((1, 512), (1, 2048), (32, 512)):
        cases += _pooling("full", *shape)
    for shape in ((32, 512), (256, 512)):
        cases += [Case("mean", *shape, 768, 1, dtype, "full") for dtype in DTYPES]
    cases += [Case("ragged", 32, 512, 768, m, d, "full") for d, m in product(DTYPES, HEADS)]
    return [*cases, Case("ragged", 256, 512, 768, 16, "float32", "full")]


def _pooling(mode: str, sequences: int, tokens: int, columns: int = 768) -> list[Case]:
    return [
        Case("pooling", sequences, tokens, columns, POOLING_HEADS, dtype, mode, backward)
        for dtype, backward in product(DTYPES, (False, True))
    ]


def _quick() -> list[Case]:
    found = _attention("quick", 1, 512, 768, (16,))
    found += [case for case in _attention("quick", 32, 512, 768, (8, 32)) if _short(case)]
    found += _attention("quick", 8, 512, 768, (16,), cold=True)[:2]
    found += [case for case in _pooling("quick", 4, 512) if case.dtype == "float32"]
    found += [Case("mean", 32, 512, 768, 1, dtype, "quick") for dtype in DTYPES]
    return [*found, Case("ragged", 32, 512, 768, 16, "float32", "quick")]


def _short(case: Case) -> bool:
    """Leave out of a short run what bfloat16's gradients take."""
    return case.dtype == "float32" or not case.backward


def _smoke() -> list[Case]:
    cases = _attention("smoke", 3, 20, 16, (8,))
    cases.append(replace(cases[0], cold=True))
    cases += _pooling("smoke", 3, 20, 16)
    cases += [Case("mean", 3, 20, 16, 1, dtype, "smoke") for dtype in DTYPES]
    return cases + [Case("ragged", 3, 20, 16, 8, dtype, "smoke") for dtype in DTYPES]


def cases_of(mode: str, only: str = "") -> list[Case]:
    """Return the cases of a mode whose names contain `only`; none without Torch, their peer."""
    if optional("torch") is None:
        return []
    made = {"smoke": _smoke, "quick": _quick, "full": _full}[mode]()
    return [case for case in made if only in case.name]
