# SPDX-License-Identifier: Apache-2.0
"""Weights of corpus rows as the gradients need them: what each row is averaged over."""

from __future__ import annotations

from dataclasses import dataclass

import torch

WHERE = "torch.depth_score"  # what errors name


@dataclass(frozen=True)
class Weights:
    """Weights with the largest 1 (their unit is no part of a depth), all in float64."""

    each: torch.Tensor  # (m,)
    remaining: torch.Tensor  # (n,) their sum, for each row of x
    own: bool  # whether rows are left out of their own depth
    unit: torch.Tensor  # (), what they were divided by; a tensor, so that nobody waits for it

    @classmethod
    def of(
        cls, weights: torch.Tensor | None, x: torch.Tensor, corpus: torch.Tensor | None
    ) -> Weights:
        """Return the weights, 1 for all where there are none."""
        rows = len(x if corpus is None else corpus)
        each = x.new_ones(rows, dtype=torch.float64) if weights is None else weights.double()
        unit = each.max()
        each = each / unit
        total = each.sum()
        remaining = total - each if corpus is None else total.expand(len(x))
        return cls(each, remaining, corpus is None, unit)

    def gradient(self, sums: torch.Tensor, pull: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the weights of depths that are functions of means.

        The mean t_i of t_ij over the corpus has derivative (t_ij - t_i) / remaining_i by weight j.

        Parameters
        ----------
        sums : Tensor (m,)
            Of pull_i t_ij over the rows i of x; nothing from a row with itself.
        pull : Tensor (n,)
            Gradient of the means, over `remaining`.
        means : Tensor (n,)
            The means t_i.
        """
        taken = pull * means
        rest = taken.sum() - taken if self.own else taken.sum()
        return (sums - rest) / self.unit
