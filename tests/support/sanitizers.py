# SPDX-License-Identifier: Apache-2.0
"""Which sanitizer the tests run under, by what the loader was told to load first."""

from __future__ import annotations

import os

_preloaded = os.environ.get("LD_PRELOAD", "")

UNDER_SANITIZER = "san" in _preloaded

# gcc's address sanitizer does not free the locks of its allocator in a forked child. A child that
# was forked while another thread allocated waits for them forever.
ALLOCATOR_SURVIVES_FORK = "libasan" not in _preloaded
