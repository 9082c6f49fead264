# SPDX-License-Identifier: Apache-2.0
r"""The axes along which vectors are coded: the principal components of a sample.

With rows :math:`x`, their mean :math:`\mu` and the eigenvectors :math:`b_1, b_2, \dots` of their
covariance, by falling variance, codes hold :math:`\langle b_i, x - \mu\rangle`. The first few dozen
carry most of a distance, which is why a search reads those first, as the head of a code.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

SAMPLE_ROWS = 20_000
_LEAST_SAMPLE = 4096
_SAMPLE_PER_DIM = 8  # rows of a sample for each dimension: eigenvalues then are right to about 30 %
_SAMPLE_VALUES = 1 << 24  # 64 MiB
_EXACT_DIMS = 1024  # from here on the cubic cost of all eigenvectors is no longer paid

ALL_DIMS = 512  # up to here a code has every dimension
_MOST_DIMS = 1024
_STEP = 64  # bytes of a cache line
_CODE_SHARE = 0.95  # of the variance, in a whole code
_HEAD_SHARE = 0.80  # of the variance, in its head
_MOST_HEAD_BYTES = 512
_HEAD_FACTORS = 16  # bytes of a head that hold factors, not codes

_POWER_STEPS = 1
_BLOCK = 256  # axes that are looked for at a time
_WORST_PIVOT = 1e-6  # of a Cholesky factor in float64, with digits enough left for float32


@dataclass(frozen=True)
class Basis:
    """Orthonormal axes (code_dims, dim), the mean (dim,), and the bytes of the head of a code."""

    axes: Floats
    mean: Floats
    head_bytes: int


def sample_size(dim: int) -> int:
    """Return how many rows the statistics of `dim` dimensions are taken from."""
    wanted = min(SAMPLE_ROWS, max(_LEAST_SAMPLE, _SAMPLE_PER_DIM * dim))
    return max(1024, min(wanted, _SAMPLE_VALUES // dim))


def basis_of(sample: NDArray[Any], *, unit: bool, seed: int) -> Basis:
    """Return the basis for rows like those of `sample` (m, dim).

    Parameters
    ----------
    sample : array (m, dim)
        Finite rows.
    unit : bool
        Whether to scale them to length 1 first, as the cosine does.
    seed : int
        For the start of the iteration beyond 1024 dimensions.

    Notes
    -----
    O(m dim^2 + dim^3) up to 1024 dimensions: all eigenvectors of the covariance. Beyond,
    randomised subspace iteration (Halko, Martinsson and Tropp, SIAM Review 53, 2011, algorithm
    4.4), by blocks of axes until they carry the variance wanted: O(m dim r) for r axes.
    """
    with _one_blas_thread():
        return _basis_of(sample, unit=unit, seed=seed)


def _one_blas_thread() -> AbstractContextManager[object]:
    """Keep BLAS to one thread, where threadpoolctl is there to say so.

    The matrices are small: several threads gain little, and where they share processors with other
    work they wait for each other at every step, which makes eigenvectors a hundred times slower.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    limits: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limits


def _basis_of(sample: NDArray[Any], *, unit: bool, seed: int) -> Basis:
    rows = sample.astype(np.float32)
    if unit:
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
        rows *= (1.0 / np.maximum(lengths, np.finfo(np.float32).tiny))[:, None]
    largest = float(np.abs(rows).max(initial=0.0))
    scale = np.float32(1.0 if largest == 0.0 else 1.0 / largest)  # so that no square overflows
    rows *= scale
    mean = rows.mean(axis=0, dtype=np.float64)
    rows -= mean.astype(np.float32)
    total = float(np.einsum("ij,ij->", rows, rows, dtype=np.float64))
    if rows.shape[1] <= _EXACT_DIMS:
        variances, axes = _exact(rows)
    else:
        variances, axes = _iterated(rows, total, np.random.default_rng(seed))
    shares = np.cumsum(np.maximum(variances, 0.0)) / max(total, np.finfo(np.float64).tiny)
    kept = _code_dims(shares, rows.shape[1])
    return Basis(
        np.ascontiguousarray(_signed(axes[:, :kept].T), np.float32),
        (mean / scale).astype(np.float32),
        _head_bytes(shares),
    )


def _exact(rows: Floats) -> tuple[Doubles, Doubles]:
    variances, axes = np.linalg.eigh((rows.T @ rows).astype(np.float64))
    return variances[::-1], axes[:, ::-1]


def _iterated(
    rows: Floats, total: float, generator: np.random.Generator
) -> tuple[Doubles, NDArray[Any]]:
    """Find axes block by block, each orthogonal to those before, until they carry enough."""
    count, dim = rows.shape
    axes = np.empty((dim, 0), np.float32)
    projected = np.empty((count, 0), np.float32)
    carried = 0.0
    most = min(_MOST_DIMS, count)
    while carried < _CODE_SHARE * total and axes.shape[1] < most:
        size = min(_BLOCK, most - axes.shape[1])
        block = generator.standard_normal((dim, size), dtype=np.float32)
        for _ in range(_POWER_STEPS):
            block = rows.T @ (rows @ _beside(axes, block))
        block = _beside(axes, block)
        part = rows @ block
        carried += float(np.einsum("ij,ij->", part, part, dtype=np.float64))
        axes = np.concatenate([axes, block], axis=1)
        projected = np.concatenate([projected, part], axis=1)
    variances, turn = np.linalg.eigh((projected.T @ projected).astype(np.float64))
    return variances[::-1], axes @ turn[:, ::-1].astype(np.float32)


def _beside(axes: Floats, block: Floats) -> Floats:
    """Return an orthonormal basis of what `block` spans beside the orthonormal `axes`."""
    for _ in range(2):  # the second time removes what rounding left
        block = _orthonormal(block - axes @ (axes.T @ block))
    return block


def _orthonormal(block: Floats) -> Floats:
    """Return an orthonormal basis of the columns: by Cholesky, ten times faster than by QR."""
    wide = block.astype(np.float64)
    gram = wide.T @ wide
    try:
        lower = np.linalg.cholesky(gram)
    except np.linalg.LinAlgError:
        return np.linalg.qr(block)[0]
    diagonal = lower.diagonal()
    if diagonal.min() < _WORST_PIVOT * diagonal.max():
        return np.linalg.qr(block)[0]
    return (wide @ np.linalg.inv(lower).T).astype(np.float32)


def _signed(axes: NDArray[Any]) -> NDArray[Any]:
    """Choose the sign of each axis: eigenvectors have none of their own."""
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return axes * np.where(largest < 0, -1.0, 1.0)


def _code_dims(shares: Doubles, dim: int) -> int:
    if dim <= ALL_DIMS:
        return dim
    enough = int(np.searchsorted(shares, _CODE_SHARE)) + 1
    return min(-(-enough // _STEP) * _STEP, _MOST_DIMS, len(shares))


def _head_bytes(shares: Doubles) -> int:
    for size in range(_STEP, _MOST_HEAD_BYTES, _STEP):
        codes = size - _HEAD_FACTORS
        if codes >= len(shares) or shares[codes - 1] >= _HEAD_SHARE:
            return size
    return _MOST_HEAD_BYTES
