# SPDX-License-Identifier: Apache-2.0
"""Published poolings in float64, each from its own equations: special cases of the oracle.

Masks are bool, true where a token is valid; every sequence has at least one valid token.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def _softmax_over_tokens(scores: Floats, mask: Mask) -> Floats:
    """Over axis 1 of (B, L, m); masked tokens get 0."""
    masked = np.where(mask[..., None], scores, -np.inf)
    e = np.exp(masked - masked.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def lama(
    tokens: ArrayLike,
    q: ArrayLike,
    p: ArrayLike,
    context: ArrayLike,
    mask: Mask,
    keys: ArrayLike | None = None,
) -> tuple[Floats, Floats]:
    """Return pooled (B, m, d) and A (B, L, m) of LAMA (arXiv 1912.00835).

    c~ = P'c, u~ = Q'u, a = tanh(c~ o u~), f = a / |a| over the heads, A = softmax over tokens.
    `context` is the parameter c (d,) of plain LAMA, or c (B, d) of LAMA + ctx; u is `keys`, by
    default the tokens.
    """
    h = np.asarray(tokens, np.float64)
    u = h if keys is None else np.asarray(keys, np.float64)
    c = np.broadcast_to(np.asarray(context, np.float64), (len(h), u.shape[2]))
    a = np.tanh((c @ np.asarray(p))[:, None, :] * (u @ np.asarray(q)))
    f = a / np.sqrt((a**2).sum(axis=2, keepdims=True))
    weights = _softmax_over_tokens(f, mask)
    return np.einsum("blm,bld->bmd", weights, np.where(mask[..., None], h, 0)), weights


def structured_self_attention(
    tokens: ArrayLike, w1: ArrayLike, w2: ArrayLike, mask: Mask
) -> tuple[Floats, Floats]:
    """Return M = A H and A = softmax(W2 tanh(W1 H')) of Lin et al. (arXiv 1703.03130).

    `w1` is (d_a, d) and `w2` (m, d_a); M is (B, m, d), A (B, L, m).
    """
    h = np.asarray(tokens, np.float64)
    scores = np.tanh(h @ np.asarray(w1).T) @ np.asarray(w2).T
    weights = _softmax_over_tokens(scores, mask)
    return np.einsum("blm,bld->bmd", weights, np.where(mask[..., None], h, 0)), weights


def multihead_attention_pooling(
    tokens: ArrayLike,
    queries: ArrayLike,
    in_proj_weight: ArrayLike,
    in_proj_bias: ArrayLike | None,
    out_proj_weight: ArrayLike,
    out_proj_bias: ArrayLike | None,
    heads: int,
    mask: Mask,
) -> Floats:
    """Return (B, n, d): n learned queries (n, d) attend to the tokens as in nn.MultiheadAttention.

    `in_proj_weight` (3d, d) stacks W_q, W_k, W_v, as that module's state does; scores are divided
    by sqrt(d / heads); `mask` is the opposite of its key_padding_mask.
    """
    h = np.asarray(tokens, np.float64)
    w_q, w_k, w_v = np.split(np.asarray(in_proj_weight, np.float64), 3)
    flat = np.zeros(3 * h.shape[2]) if in_proj_bias is None else np.asarray(in_proj_bias)
    b_q, b_k, b_v = np.split(flat.astype(np.float64), 3)
    q = np.asarray(queries, np.float64) @ w_q.T + b_q
    k, v = h @ w_k.T + b_k, h @ w_v.T + b_v
    width = h.shape[2] // heads
    parts = []
    for j in range(heads):
        part = slice(j * width, (j + 1) * width)
        scores = k[..., part] @ q[:, part].T / np.sqrt(width)
        weights = _softmax_over_tokens(scores, mask)
        parts.append(np.einsum("bln,bld->bnd", weights, v[..., part]))
    pooled = np.concatenate(parts, axis=2) @ np.asarray(out_proj_weight, np.float64).T
    return pooled if out_proj_bias is None else pooled + np.asarray(out_proj_bias)


def mean_pooling(tokens: ArrayLike, mask: Mask, weights: ArrayLike | None = None) -> Floats:
    """Return (B, d): sum of w_t h_t over the valid tokens, divided by the sum of w_t."""
    h = np.where(mask[..., None], np.asarray(tokens, np.float64), 0)
    w = mask * (1.0 if weights is None else np.asarray(weights, np.float64))
    return np.einsum("bl,bld->bd", w, h) / w.sum(axis=1, keepdims=True)


def merge_states(outs: ArrayLike, lses: ArrayLike) -> tuple[Floats, Floats]:
    """Return the state over all tokens from S states of parts of them: (S, B, m, dv), (S, B, m)."""
    out, lse = np.asarray(outs, np.float64), np.asarray(lses, np.float64)
    top = np.max(lse, axis=0)
    seen = top != -np.inf
    shares = np.where(seen, np.exp(lse - np.where(seen, top, 0)), 0)
    total = np.where(seen, shares.sum(axis=0), 1.0)
    merged = (shares[..., None] * out).sum(axis=0) / total[..., None]
    return merged, np.where(seen, top + np.log(total), -np.inf)
