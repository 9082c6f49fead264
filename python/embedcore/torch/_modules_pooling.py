# SPDX-License-Identifier: Apache-2.0
"""Attention pooling with learned probes, and mean pooling, as modules."""

from __future__ import annotations

import math
from typing import Any

import torch

from .._check import integer
from ..attention import fold_multihead_attention
from ._arguments import positive_number
from ._attention import low_rank_attention, mean_pool
from ._eager import is_plain, needs_grad
from ._kernels import without_autocast

__all__ = ["AttentionPooling", "MeanPooling"]

_WHERE = "torch.AttentionPooling"
_FROM = "torch.AttentionPooling.from_multihead_attention"
_PROJECTIONS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


class AttentionPooling(torch.nn.Module):  # type: ignore[misc]
    """Pool tokens by learned probes: ``nn.MultiheadAttention`` with the probes as queries.

    The heads of SigLIP (MAP), Set Transformer (PMA) and CoCa. The probes, the query and the key
    projection fold into one factor, and values are projected after pooling: neither keys nor values
    of the tokens are made.

    Parameters
    ----------
    embed_dim : int
        Columns E of the probes and of the result.
    num_heads : int
        Must divide E.
    num_probes : int, default 1
        N.
    bias : bool, default True
        Of the projections.
    kdim : int, optional
        Columns of the tokens; default E.
    temperature : float, default 1.0
        Divides the scores, after the usual 1 / sqrt(E / heads), and a floating mask.
    device, dtype : optional
        Of the parameters.

    Attributes
    ----------
    probe : Parameter (N, E)
    in_proj_weight, in_proj_bias, out_proj : as in ``nn.MultiheadAttention``
        With `kdim` other than E, ``q_proj_weight``, ``k_proj_weight`` and ``v_proj_weight``. A
        state dictionary of ``nn.MultiheadAttention`` fits but for `probe`.

    Raises
    ------
    TypeError, ValueError
        Sizes below 1, heads that do not divide E, a temperature that is not positive.

    Notes
    -----
    Where no gradient is recorded in eval mode, the factor is kept until a parameter changes. Writes
    that Torch does not count, through ``.data`` or NumPy, are seen after ``eval()``. There is no
    dropout of weights: what was made of attention that has it works in eval mode. A sequence
    without valid tokens gives what the biases alone give (``nn.MultiheadAttention`` gives NaN).

    References
    ----------
    Lee et al., Set Transformer, arXiv 1810.00825. Zhai et al., arXiv 2303.15343.

    Examples
    --------
    >>> import torch
    >>> from embedcore.torch import AttentionPooling
    >>> pool = AttentionPooling(16, 4)
    >>> tuple(pool(torch.randn(2, 10, 16)).shape)
    (2, 1, 16)
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        num_probes: int = 1,
        bias: bool = True,
        kdim: int | None = None,
        temperature: float = 1.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        integer(_WHERE, "embed_dim", embed_dim, minimum=1)
        integer(_WHERE, "num_heads", num_heads, minimum=1)
        integer(_WHERE, "num_probes", num_probes, minimum=1)
        if embed_dim % num_heads != 0:
            raise ValueError(
                f"{_WHERE}: 'num_heads' must divide 'embed_dim' ({embed_dim}); got {num_heads}."
            )
        if kdim is not None:
            integer(_WHERE, "kdim", kdim, minimum=1)
        self.temperature = positive_number(_WHERE, "temperature", temperature)
        shell = torch.nn.MultiheadAttention(
            embed_dim, num_heads, bias=bias, kdim=kdim, vdim=kdim, device=device, dtype=dtype
        )
        self._take(shell)
        # Linear maps of the probes and tokens start as in nn.MultiheadAttention.
        probe = torch.empty(num_probes, embed_dim, device=device, dtype=dtype)
        self.probe = torch.nn.Parameter(probe)
        torch.nn.init.normal_(self.probe, std=1.0 / math.sqrt(embed_dim))

    @classmethod
    def from_multihead_attention(
        cls, attention: Any, probe: Any, *, temperature: float = 1.0
    ) -> AttentionPooling:
        """Return the pooling that ``attention(probe, tokens, tokens)`` is.

        Parameters
        ----------
        attention : nn.MultiheadAttention
            Its parameters are shared, not copied. Tokens are (B, L, columns) here, whatever its
            `batch_first`.
        probe : tensor (N, E) or (1, N, E)
            A Parameter is shared too.
        temperature : float, default 1.0

        Returns
        -------
        AttentionPooling
            In the mode (training or not) of `attention`.

        Raises
        ------
        TypeError
            If `attention` is no ``nn.MultiheadAttention`` or `probe` no tensor.
        ValueError
            ``bias_k``, ``add_zero_attn`` or `vdim` other than `kdim`, which the fold does not have;
            a probe of another shape. Dropout: when it is called in training mode.
        """
        if not isinstance(attention, torch.nn.MultiheadAttention):
            raise TypeError(
                f"{_FROM}: 'attention' must be a torch.nn.MultiheadAttention; "
                f"got {type(attention).__name__}."
            )
        if not isinstance(probe, torch.Tensor):
            raise TypeError(f"{_FROM}: 'probe' must be a torch.Tensor; got {type(probe).__name__}.")
        _check_foldable(attention)
        shape = tuple(probe.shape)
        if len(shape) not in (2, 3) or shape[-1] != attention.embed_dim or len(probe) == 0:
            raise ValueError(
                f"{_FROM}: 'probe' must have shape (probes, {attention.embed_dim}) or "
                f"(1, probes, {attention.embed_dim}); got shape {shape}."
            )
        if len(shape) == 3 and shape[0] != 1:
            raise ValueError(
                f"{_FROM}: 'probe' must be the same for all sequences; got shape {shape}."
            )
        pooling = cls.__new__(cls)
        torch.nn.Module.__init__(pooling)
        pooling.temperature = positive_number(_FROM, "temperature", temperature)
        pooling._take(attention)
        if not isinstance(probe, torch.nn.Parameter):
            probe = torch.nn.Parameter(probe.detach().clone())
        pooling.probe = probe
        pooling.train(attention.training)
        return pooling

    def _take(self, attention: Any) -> None:
        """Register the parameters of an nn.MultiheadAttention as ours."""
        self.embed_dim: int = attention.embed_dim
        self.num_heads: int = attention.num_heads
        self.kdim: int = attention.kdim
        self._dropout: float = attention.dropout
        for name in ("in_proj_weight", *_PROJECTIONS, "in_proj_bias"):
            self.register_parameter(name, getattr(attention, name))
        self.out_proj = attention.out_proj
        self._folded: tuple[Any, Any] | None = None

    def forward(
        self,
        tokens: Any,
        key_padding_mask: Any = None,
        *,
        mask: Any = None,
        lengths: Any = None,
        cu_seqlens: Any = None,
        return_weights: bool = False,
    ) -> Any:
        """Return the pooled tokens.

        Parameters
        ----------
        tokens : tensor (B, L, kdim), or (T, kdim) with `cu_seqlens`
        key_padding_mask : tensor (B, L), optional
            As in ``nn.MultiheadAttention``: boolean and true at tokens to ignore, or floating and
            added to the scores. Not together with `mask`.
        mask, lengths, cu_seqlens : optional
            As in :func:`embedcore.attention.low_rank_attention`.
        return_weights : bool, default False

        Returns
        -------
        tensor (B, N, E)
            In the dtype of `tokens`.
        weights : tensor (B, N, heads, L), or (N, heads, T) with `cu_seqlens`
            With `return_weights`; differentiable.

        Raises
        ------
        ValueError
            `mask` and `key_padding_mask` together; training mode where the attention that this was
            made of has dropout.
        """
        if self.training and self._dropout:
            raise ValueError(
                f"{_WHERE}: 'attention' must not have dropout in training mode, because the kernel "
                f"has none; got dropout {self._dropout}. Set it to 0 before folding, or call "
                "eval()."
            )
        if key_padding_mask is not None:
            if mask is not None:
                raise ValueError(
                    f"{_WHERE}: 'mask' must not be given together with 'key_padding_mask'; "
                    "got both."
                )
            mask = key_padding_mask
            if isinstance(mask, torch.Tensor) and mask.dtype is torch.bool:
                mask = ~mask
        folded = self._fold(tokens)
        found = low_rank_attention(
            tokens,
            # Scaled here: the temperature divides a floating mask too.
            folded.query / folded.temperature,
            mask=mask,
            lengths=lengths,
            cu_seqlens=cu_seqlens,
            temperature=self.temperature,
            return_weights=return_weights,
        )
        if not return_weights:
            return folded.project(found)
        weights = found[1].unflatten(-2, (-1, self.num_heads))
        return folded.project(found[0]), weights

    def train(self, mode: bool = True) -> Any:
        """Set the mode, and forget the folded factor."""
        self._folded = None
        return super().train(mode)

    def _fold(self, tokens: Any) -> Any:
        """Return the folded weights, kept while parameters are what they were."""
        parameters = tuple(self.parameters())
        if (
            self.training
            or not is_plain(tokens, *parameters)
            or (torch.is_grad_enabled() and needs_grad(parameters))
            or any(parameter.is_inference() for parameter in parameters)
        ):
            self._folded = None
            return self._computed_fold()
        state = tuple((p.data_ptr(), p._version, p.dtype) for p in parameters)
        kept = self._folded  # other threads may drop it meanwhile
        if kept is None or kept[0] != state:
            kept = self._folded = (state, self._computed_fold())
        return kept[1]

    def _computed_fold(self) -> Any:
        weight = self.in_proj_weight
        if weight is None:
            weight = [getattr(self, name) for name in _PROJECTIONS]
        with without_autocast(self.probe):
            return fold_multihead_attention(
                self.probe.reshape(-1, self.embed_dim),
                self.num_heads,
                weight,
                self.in_proj_bias,
                self.out_proj.weight,
                self.out_proj.bias,
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_folded": None}

    def extra_repr(self) -> str:
        """Return the sizes."""
        text = f"{self.embed_dim}, {self.num_heads}, num_probes={self.probe.shape[-2]}"
        if self.kdim != self.embed_dim:
            text += f", kdim={self.kdim}"
        if self.temperature != 1.0:
            text += f", temperature={self.temperature}"
        return text


class MeanPooling(torch.nn.Module):  # type: ignore[misc]
    """Mean of the valid tokens of each sequence, as :func:`embedcore.torch.mean_pool`.

    Examples
    --------
    >>> import torch
    >>> from embedcore.torch import MeanPooling
    >>> tuple(MeanPooling()(torch.randn(2, 10, 16), lengths=[10, 7]).shape)
    (2, 16)
    """

    def forward(
        self,
        tokens: Any,
        *,
        mask: Any = None,
        lengths: Any = None,
        cu_seqlens: Any = None,
        weights: Any = None,
    ) -> Any:
        """Return the means.

        Parameters
        ----------
        tokens : tensor (B, L, d), or (T, d) with `cu_seqlens`
        mask, lengths, cu_seqlens, weights : optional
            As in :func:`embedcore.attention.mean_pool`.

        Returns
        -------
        tensor (B, d)
        """
        return mean_pool(tokens, mask=mask, lengths=lengths, cu_seqlens=cu_seqlens, weights=weights)


def _check_foldable(attention: Any) -> None:
    reason = ""
    if attention.bias_k is not None:
        reason = "add_bias_kv=True, which adds a token that the kernel does not have"
    elif attention.add_zero_attn:
        reason = "add_zero_attn=True, which adds a token that the kernel does not have"
    elif attention.vdim != attention.kdim:
        reason = f"kdim {attention.kdim} and vdim {attention.vdim}: keys and values are one array"
    if reason:
        raise ValueError(f"{_FROM}: 'attention' must be plain attention of tokens; got {reason}.")
