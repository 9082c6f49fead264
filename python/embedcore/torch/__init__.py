# SPDX-License-Identifier: Apache-2.0
"""Differentiable functions and modules for Torch; importing this imports Torch."""

from ..attention import merge_states
from ._attention import low_rank_attention, mean_pool
from ._depth import depth_score
from ._modules_lama import LowRankAttention
from ._modules_pooling import AttentionPooling, MeanPooling

__all__ = [
    "AttentionPooling",
    "LowRankAttention",
    "MeanPooling",
    "depth_score",
    "low_rank_attention",
    "mean_pool",
    "merge_states",
]
