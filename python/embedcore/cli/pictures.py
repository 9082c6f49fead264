# SPDX-License-Identifier: Apache-2.0
"""The pictures of the tour: each part says what there is to draw, and all are drawn at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from .output import heading, timed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The name of each file, and what makes its figure.
Pictures: TypeAlias = "Mapping[str, Callable[[], Figure]]"


def draw(pictures: Pictures, folder: Path | None) -> None:
    """Write them into a folder; without one, or without Matplotlib, say so."""
    heading("Pictures")
    if folder is None:
        print("None, as asked.")
        return
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        print("None: Matplotlib is not installed. To get them: pip install 'embedcore[plot]'")
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure_of in pictures.items():
        with timed(f"drew {folder / name}"):
            figure_of().savefig(folder / name, dpi=90)
