# SPDX-License-Identifier: Apache-2.0
"""What every part of the tour gets: the sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..datasets import Glosses, TokenStates


@dataclass(frozen=True)
class Sample:
    """The glosses by class, and the hidden states of some of them."""

    glosses: Glosses
    states: TokenStates

    @property
    def size(self) -> int:
        return len(self.glosses.texts)

    @property
    def columns(self) -> int:
        return len(self.glosses.vectors[0])

    @property
    def class_names(self) -> list[str]:
        return self.glosses.class_names

    @property
    def class_of_row(self) -> NDArray[np.str_]:
        return np.array(self.class_names)[self.glosses.labels]

    def vectors_of(self, class_name: str) -> NDArray[np.float32]:
        return self.glosses.vectors[self.glosses.rows_of(class_name)]

    def entry(self, row: int) -> str:
        """Return a definition with its word, as a dictionary prints it."""
        return f"{self.glosses.lemmas[row][0]}: {self.glosses.texts[row]}"
