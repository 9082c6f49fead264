# SPDX-License-Identifier: Apache-2.0
"""``python -m embedcore``: the tour, the benchmarks, and what this build is."""

from __future__ import annotations

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
