# SPDX-License-Identifier: Apache-2.0
"""Hidden states as a transformer leaves them, and factors that spread the scores by about one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.timing import optional

_CHUNK = 256  # rows whose steps stay in a cache


@lru_cache(maxsize=1)
def hidden(sequences: int, tokens: int, columns: int) -> NDArray[np.float32]:
    """Return random tokens, each with mean 0 and variance 1 as LayerNorm leaves it: (B, L, d)."""
    rng = np.random.default_rng([3, columns])
    rows = np.empty((sequences * tokens, columns), np.float32)
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        rng.standard_normal(part.shape, dtype=np.float32, out=part)
        part -= part.mean(axis=1, keepdims=True)
        part /= part.std(axis=1, keepdims=True)
    return rows.reshape(sequences, tokens, columns)


@dataclass(frozen=True, eq=False)
class Problem:
    """Torch tensors of one dtype, all contiguous."""

    tokens: Any  # (B, L, d)
    factor: Any  # (d, m)
    gradient: Any  # (B, m, d), of the outputs
    lengths: NDArray[np.int64] | None = None  # None: every token is valid

    @property
    def valid_tokens(self) -> int:
        """Return how many tokens count."""
        if self.lengths is None:
            return int(self.tokens.shape[0] * self.tokens.shape[1])
        return int(self.lengths.sum())

    @property
    def bytes_per_token(self) -> int:
        """Return the size of a token."""
        return int(self.tokens.shape[2] * self.tokens.element_size())

    def mask(self) -> Any:
        """Return which tokens are valid: (B, L) of bool."""
        torch = optional("torch")
        positions = torch.arange(self.tokens.shape[1])
        return positions[None] < torch.from_numpy(self.lengths)[:, None]

    def packed(self) -> tuple[Any, Any]:
        """Return the valid tokens in one array, (T, d), and where each sequence starts, (B + 1)."""
        torch = optional("torch")
        assert self.lengths is not None
        starts = torch.from_numpy(np.concatenate([[0], np.cumsum(self.lengths)]))
        return self.tokens[self.mask()].contiguous(), starts


def spread_lengths(sequences: int, tokens: int, share: float) -> NDArray[np.int64]:
    """Return lengths spread evenly about `share` of all tokens, in random order."""
    width = min(share, 1.0 - share)
    shares = np.linspace(share - width, share + width, sequences) if sequences > 1 else [share]
    lengths = np.maximum(1, np.round(np.asarray(shares) * tokens)).astype(np.int64)
    return np.random.default_rng(4).permutation(lengths)


def make(
    sequences: int, tokens: int, columns: int, heads: int, dtype: str, share: float = 1.0
) -> Problem:
    """Make a problem of which `share` of the tokens are valid; `dtype` is Torch's name."""
    torch = optional("torch")
    kind = getattr(torch, dtype)
    rng = np.random.default_rng([5, columns, heads])
    factor = rng.standard_normal((columns, heads), dtype=np.float32) / np.sqrt(np.float32(columns))
    gradient = rng.standard_normal((sequences, heads, columns), dtype=np.float32)
    return Problem(
        torch.from_numpy(hidden(sequences, tokens, columns)).to(kind),
        torch.from_numpy(factor).to(kind),
        torch.from_numpy(gradient).to(kind),
        None if share == 1.0 else spread_lengths(sequences, tokens, share),
    )
