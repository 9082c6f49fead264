# SPDX-License-Identifier: Apache-2.0
"""Choose in-context examples for a prompt: k per class, typical, odd, or spread between the two."""

from __future__ import annotations

import argparse

import numpy as np
from embedcore import datasets, depth

CLASSES = ("noun.animal", "noun.food", "noun.person")


def prompt(glosses: datasets.Glosses, chosen: dict[str, list[int]], question: int) -> str:
    """Build a few-shot prompt that asks for the class of one definition."""
    lines = ["Name the class of the thing that is defined.", ""]
    for name, rows in chosen.items():
        for row in rows:
            lines += [f"Definition: {glosses.texts[row]}", f"Class: {name}", ""]
    return "\n".join([*lines, f"Definition: {glosses.texts[question]}", "Class:"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", type=int, default=3, help="examples per class")
    k = parser.parse_args().k

    glosses = datasets.load_glosses()
    rows = np.concatenate([glosses.rows_of(name) for name in CLASSES])
    x, labels = glosses.vectors[rows], glosses.labels[rows]

    for strategy in ("deepest", "spread", "outermost"):
        print(f"-- {strategy}")
        # One row of indices for each class, classes in sorted order.
        selected = rows[depth.select(x, labels, k, strategy=strategy)]
        for name, own in zip(CLASSES, selected, strict=True):
            words = ", ".join(glosses.lemmas[row][0] for row in own)
            print(f"   {name}: {words}")

    deepest = rows[depth.select(x, labels, k)]
    chosen = {name: own.tolist() for name, own in zip(CLASSES, deepest, strict=True)}
    used = {row for own in chosen.values() for row in own}
    question = next(row for row in rows.tolist() if row not in used)
    print("\n-- the prompt with the deepest examples\n")
    print(prompt(glosses, chosen, question))


if __name__ == "__main__":
    main()
