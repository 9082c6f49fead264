# SPDX-License-Identifier: Apache-2.0
"""Low-rank attention: a few heads that pool the tokens of each sequence, in one pass over them."""

from ._diagnostics import effective_tokens, high_frequency_gain
from ._low_rank import low_rank_attention
from ._merge import merge_states
from ._multihead import FoldedAttention, fold_multihead_attention
from ._pooling import mean_pool
from ._temperature import length_law

__all__ = [
    "FoldedAttention",
    "effective_tokens",
    "fold_multihead_attention",
    "high_frequency_gain",
    "length_law",
    "low_rank_attention",
    "mean_pool",
    "merge_states",
]
