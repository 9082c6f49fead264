# SPDX-License-Identifier: Apache-2.0
"""Low-rank attention: a few heads that pool the tokens of each sequence, in one pass over them."""

from ._temperature import length_law

__all__ = ["length_law"]
