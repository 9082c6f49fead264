# SPDX-License-Identifier: Apache-2.0
"""NumPy's masked arrays, whose masks mean nothing here but in attributes."""

from __future__ import annotations

import numpy as np


def refuse_masked(where: str, argument: str, value: object) -> None:
    """Raise TypeError for a masked array; `where` and `argument` start the message."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{where}: '{argument}' must not be a masked array, because the mask would be ignored; "
            "got MaskedArray. Use filled() or compressed()."
        )
