# SPDX-License-Identifier: Apache-2.0
"""The LAMA head as a module: multi-head attention pooling whose scores have low rank."""

from __future__ import annotations

import math
from typing import Any

import torch

from .._check import choose, integer
from ..attention._arguments import ACTIVATIONS, NORMS, option_code
from ..attention._temperature import LAWS
from ._arguments import positive_number
from ._attention import low_rank_attention

__all__ = ["LowRankAttention"]

_WHERE = "torch.LowRankAttention"
_CONTEXTS = ("learned", "mean")
_LEARNED_TEMPERATURES = ("scalar", "head")


class LowRankAttention(torch.nn.Module):  # type: ignore[misc]
    r"""Pool token embeddings by m heads of low rank (LAMA).

    Head j scores a token h by :math:`\sum_r (p_{rj} \cdot c)(q_{rj} \cdot h)`, then tanh, the norm
    over the heads and a softmax over the tokens at temperature T follow; the head's output is the
    sum of the tokens with these weights.

    Parameters
    ----------
    embed_dim : int
        Columns d of the tokens.
    num_heads : int
        m.
    rank : int, default 1
        Rank of the bilinear form of each head.
    context : {"learned", "mean"}, default "learned"
        The context c: one parameter for all sequences, or the mean of the tokens of each.
    activation : {"tanh"} or None, default "tanh"
    norm : {"l2"} or None, default "l2"
    temperature : float, default 1.0
        T, or its start where it is learned. With tanh and norm the scores lie within 1 of 0, so
        that at T = 1 a head is nearly a mean; smaller temperatures make it choose.
    learn_temperature : {"scalar", "head"} or None, default None
        Learn one temperature, or one for each head, as ``exp(log_temperature)``.
    length_scale : {"log", "sqrt_log", "log_squared"}, optional
        As in :func:`embedcore.attention.low_rank_attention`.
    out_features : int, optional
        Width of a linear layer over the heads' outputs side by side.
    bias : bool, default True
        Of that layer.
    device, dtype : optional
        Of the parameters.

    Attributes
    ----------
    query, P : Parameter (d, m), or (d, rank, m) for a rank above 1
        The factors, uniform within 1 / sqrt(d) at the start.
    context : Parameter (d,) or None
        None for the mean; uniform within 1 at the start.
    log_temperature : Parameter () or (m,), or None
    out_proj : Linear or None

    Raises
    ------
    TypeError, ValueError
        Sizes below 1, unknown names, a temperature that is not positive.

    References
    ----------
    Mehta, Rangwala and Ramakrishnan, arXiv 1912.00835.

    Examples
    --------
    >>> import torch
    >>> from embedcore.torch import LowRankAttention
    >>> head = LowRankAttention(16, 4, temperature=0.2, out_features=3)
    >>> tuple(head(torch.randn(2, 10, 16), lengths=[10, 7]).shape)
    (2, 3)
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        rank: int = 1,
        context: str = "learned",
        activation: str | None = "tanh",
        norm: str | None = "l2",
        temperature: float = 1.0,
        learn_temperature: str | None = None,
        length_scale: str | None = None,
        out_features: int | None = None,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.embed_dim = integer(_WHERE, "embed_dim", embed_dim, minimum=1)
        self.num_heads = integer(_WHERE, "num_heads", num_heads, minimum=1)
        self.rank = integer(_WHERE, "rank", rank, minimum=1)
        option_code(_WHERE, "activation", activation, ACTIVATIONS)
        option_code(_WHERE, "norm", norm, NORMS)
        if length_scale is not None:
            choose(_WHERE, "length_scale", length_scale, LAWS)
        if learn_temperature is not None:
            choose(_WHERE, "learn_temperature", learn_temperature, _LEARNED_TEMPERATURES)
        self.temperature = positive_number(_WHERE, "temperature", temperature)
        self.context_kind = choose(_WHERE, "context", context, _CONTEXTS)
        self.activation, self.norm, self.length_scale = activation, norm, length_scale
        self.learn_temperature = learn_temperature
        factory = {"device": device, "dtype": dtype}
        ranks = () if self.rank == 1 else (self.rank,)
        shape = (self.embed_dim, *ranks, self.num_heads)
        self.query = torch.nn.Parameter(torch.empty(shape, **factory))
        self.P = torch.nn.Parameter(torch.empty(shape, **factory))
        learned = torch.nn.Parameter(torch.empty(self.embed_dim, **factory))
        self.register_parameter("context", learned if context == "learned" else None)
        start = torch.empty((self.num_heads,) if learn_temperature == "head" else (), **factory)
        self.register_parameter(
            "log_temperature", None if learn_temperature is None else torch.nn.Parameter(start)
        )
        self.out_proj: Any = None
        if out_features is not None:
            integer(_WHERE, "out_features", out_features, minimum=1)
            width = self.num_heads * self.embed_dim
            self.out_proj = torch.nn.Linear(width, out_features, bias=bias, **factory)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        # The bound of kaiming_uniform_(a=sqrt(5)) for d inputs.
        bound = 1.0 / math.sqrt(self.embed_dim)
        torch.nn.init.uniform_(self.query, -bound, bound)
        torch.nn.init.uniform_(self.P, -bound, bound)
        if self.context is not None:
            torch.nn.init.uniform_(self.context, -1.0, 1.0)
        if self.log_temperature is not None:
            torch.nn.init.constant_(self.log_temperature, math.log(self.temperature))
        if self.out_proj is not None:
            self.out_proj.reset_parameters()

    def forward(
        self,
        tokens: Any,
        *,
        mask: Any = None,
        lengths: Any = None,
        cu_seqlens: Any = None,
        return_weights: bool = False,
    ) -> Any:
        """Return the pooled embeddings.

        Parameters
        ----------
        tokens : tensor (B, L, d), or (T, d) with `cu_seqlens`
        mask, lengths, cu_seqlens : optional
            As in :func:`embedcore.attention.low_rank_attention`.
        return_weights : bool, default False

        Returns
        -------
        tensor (B, m * d) or (B, out_features)
            In the dtype of `tokens`; with a linear layer in what that makes of it.
        weights : tensor (B, m, L) or (m, T)
            With `return_weights`; differentiable.
        """
        log_temperature = self.log_temperature
        found = low_rank_attention(
            tokens,
            self.query,
            context="mean" if self.context is None else self.context,
            P=self.P,
            mask=mask,
            lengths=lengths,
            cu_seqlens=cu_seqlens,
            temperature=self.temperature if log_temperature is None else log_temperature.exp(),
            length_scale=self.length_scale,
            activation=self.activation,
            norm=self.norm,
            return_weights=return_weights,
        )
        pooled = (found[0] if return_weights else found).flatten(1)
        if self.out_proj is not None:
            weight = self.out_proj.weight
            if pooled.dtype is not weight.dtype and not torch.is_autocast_enabled(
                weight.device.type
            ):
                pooled = self.out_proj(pooled.to(weight.dtype)).to(pooled.dtype)
            else:
                pooled = self.out_proj(pooled)
        return (pooled, found[1]) if return_weights else pooled

    def extra_repr(self) -> str:
        """Return the options that are not their defaults."""
        text = f"{self.embed_dim}, {self.num_heads}"
        if self.rank != 1:
            text += f", rank={self.rank}"
        defaults = {
            "context": (self.context_kind, "learned"),
            "activation": (self.activation, "tanh"),
            "norm": (self.norm, "l2"),
            "temperature": (self.temperature, 1.0),
            "learn_temperature": (self.learn_temperature, None),
            "length_scale": (self.length_scale, None),
        }
        for name, (value, default) in defaults.items():
            if value != default:
                text += f", {name}={value!r}"
        return text
