# SPDX-License-Identifier: Apache-2.0
"""Statistical depth of embeddings: how central each text is, and whether two corpora differ."""

from ._corpus import Corpus
from ._rank_sum import RankSumResult, rank_sum_test
from ._rank_sum_matrix import RankSumMatrixResult, rank_sum_matrix
from ._sample import DepthEstimate, estimate
from ._score import score
from ._select import order, select

__all__ = [
    "Corpus",
    "DepthEstimate",
    "RankSumMatrixResult",
    "RankSumResult",
    "estimate",
    "order",
    "rank_sum_matrix",
    "rank_sum_test",
    "score",
    "select",
]
