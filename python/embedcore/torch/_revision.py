# SPDX-License-Identifier: Apache-2.0
"""What tells apart operators of one name in compiled code that Torch keeps on disk.

Torch looks compiled code up by the calls of the forward: their names and constants. The calls of
the backward, which an operator makes up itself, are not looked at. So code of an earlier version
would call a schema that has changed as it was; with a revision among the constants, that code is
not found.
"""

from __future__ import annotations

import zlib

from .. import __version__

__all__ = ["revision_of"]


def revision_of(*schemas: str) -> str:
    """Return a text that changes with the version of the package and the operators' schemas."""
    return f"{__version__}-{zlib.crc32(' '.join(schemas).encode()):08x}"
