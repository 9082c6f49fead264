# SPDX-License-Identifier: Apache-2.0
"""`depth.score`: options to numbers, and the one native call behind most metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .._arrays import to_numpy
from .._check import choose, integer
from .._device import call_of
from .._progress import Progress, reporter
from ._groups import group_codes
from ._metrics import (
    DIRECTIONAL,
    METRICS,
    NATIVE_METRIC,
    NATIVE_PRECISION,
    PRECISIONS,
    REDUCIBLE,
)
from ._on_device import score_on_device
from ._whitened import ai_irw, mahalanobis

_WHERE = "depth.score"
_DIRECTION_STREAM = 0x6469_7273


def score(
    x: Any,
    corpus: Any = None,
    *,
    metric: str = "cosine",
    weights: Any = None,
    groups: Any = None,
    offsets: Any = None,
    precision: str = "float32",
    n_directions: int = 1000,
    seed: int | np.random.Generator = 0,
    shrinkage: float | str = "auto",
    threads: int | None = None,
    progress: Progress = False,
    check: bool = False,
    out: Any = None,
) -> Any:
    r"""Return the statistical depth of each row of `x` in a corpus: how central it is there.

    Parameters
    ----------
    x : array (n, d)
        Embeddings: float16, bfloat16, float32 or float64; NumPy, Torch or any DLPack exporter on
        the CPU; Torch or CuPy on a GPU (Notes), and then all arrays. Rows may be strided; a last
        axis that is not contiguous is packed in scratch.
    corpus : array (m, d), optional
        The corpus F. Without it, the corpus is `x` and each row is left out of its own depth.
    metric : str, default "cosine"
        With :math:`X \sim F`, :math:`c = \cos(x, X)`:

        ================  =====================================================================
        ``cosine``        :math:`2 - E[1 - c]`
        ``chord``         :math:`2 - E\sqrt{2 - 2c}`
        ``arc``           :math:`\pi - E \arccos c`
        ``l2``            :math:`1 / (1 + E\|x - X\|)`
        ``spatial``       :math:`1 - \|E[(x - X) / \|x - X\|]\|` (a zero difference counts 0)
        ``mahalanobis``   :math:`1 / (1 + (x - \mu)' S^{-1} (x - \mu))`
        ``halfspace``     :math:`\min_u \min(P(u'X \le u'x), P(u'X \ge u'x))` (Tukey)
        ``projection``    :math:`1 / (1 + \max_u |u'x - \mathrm{med}| / \mathrm{MAD})`
        ``irw``           the mean over u, in place of the minimum, of ``halfspace``
        ``ai_irw``        ``irw`` after whitening by the corpus's covariance
        ================  =====================================================================

        The last four use `n_directions` shared random unit directions u; where the MAD of one is 0,
        ``projection`` is 0 for rows off its median. Where ``ai_irw`` leaves a row out, the
        covariance that whitens is still that of the whole corpus. On text embeddings cosine depth
        ranks almost as arc and chord do (Spearman above .999) and costs O((n + m) d).
    weights : array (m,), optional
        Non-negative weights of the corpus rows, float32 or float64, in any unit; kernels read them
        as float32. Not for ``projection``. The covariance of weighted rows is divided by the sum
        of the weights, that of others by m - 1.
    groups : array (m,), optional
        A label (integer or string) for each corpus row. The result is then (n, G): column g is the
        depth in the rows of the g-th label in sorted order, all in one pass. Without `corpus` each
        row is left out of its own group only.
    offsets : array (G + 1,), optional
        Ragged alternative to `groups`: group g is ``corpus[offsets[g]:offsets[g + 1]]``.
    precision : {"float32", "bfloat16", "int8"}, default "float32"
        Arithmetic of the pair products for ``chord`` and ``arc`` (``cosine`` needs none). The mean
        rounding error is taken off by a linear correction and pairs closer than 26 (bfloat16) or 32
        (int8) degrees are computed from their difference, which leaves errors of about 1e-5
        (bfloat16) and 5e-5 (int8) on text embeddings. Errors of single pairs are larger and average
        out: in corpora or groups of a few rows they reach some 5e-5 and 2e-4. A corpus in which
        more than 2 % of the pairs are that close is computed in float32.
    n_directions : int, default 1000
        Number of random directions.
    seed : int or numpy.random.Generator, default 0
        Of the directions.
    shrinkage : float in [0, 1] or "auto", default "auto"
        For ``mahalanobis`` and ``ai_irw``: weight of the multiple of the identity that the
        covariance is shrunk to. ``"auto"`` is 0 where the covariance has an inverse, else the
        intensity of Ledoit and Wolf, taken from the whole corpus also where a row is left out.
    threads : int, optional
        Default: :func:`embedcore.get_num_threads`.
    progress : bool or callable, default False
        ``True`` shows a bar (needs tqdm); a callable gets the fraction done.
    check : bool, default False
        For arrays on a GPU: wait for the result, and raise where rows or weights are refused. On
        the CPU they always are.
    out : array (n,) or (n, G), optional
        Where the result goes; C-contiguous, of the dtype below.

    Returns
    -------
    array (n,), or (n, G) with `groups` or `offsets`
        Of the kind of `x`. float64 for float64 input, else float32. For every input dtype products
        (but see `precision`) and short sums of them are float32, longer sums exact or float64:
        ``cosine``, ``chord`` and ``arc`` are right to about 1e-6.

    Raises
    ------
    TypeError
        Arrays of another kind, dtype or device; tensors that require grad.
    ValueError
        Shapes that do not fit; rows that are not finite, or zero under the angular metrics (the
        first is named); empty corpora or groups, and rows alone in their group where they are left
        out; weights that are negative or leave a group without weight; unknown names.

    Notes
    -----
    Complexity: O((n + m) d) for ``cosine``; O(n m d) for ``chord``, ``arc``, ``l2``, ``spatial``,
    half of it without `corpus` (not for ``spatial``); O((n + m) d^2 + d^3) for ``mahalanobis``;
    O((n + m) (d + log m)) for each direction. Memory beyond the inputs is about one packed copy of
    the corpus and of `x`; no n x m matrix is made. For one build and instruction set the result
    does not depend on `threads` (``mahalanobis`` and ``ai_irw`` use NumPy's linear algebra, which
    has its own).

    On a GPU the call starts kernels on the current stream of the array's library, takes scratch
    from it, and returns at once; it may be captured into a CUDA graph. There,
    ``precision="int8"`` has no kernels, and `threads` and `progress` mean nothing. Without `check`,
    a row that would be refused has NaN for its own depths, and in the corpus makes those of its
    group NaN; so has, with `check`, too, a group without weight or whose covariance has no inverse.
    Labels and offsets come from the host, or are fetched, which waits for the device; so does
    sending the random directions, which are those of the CPU.

    References
    ----------
    Seegmiller and Preum, Statistical Depth for Ranking and Characterizing Transformer-Based Text
    Embeddings, EMNLP 2023 (cosine, chord). Pandolfo, Paindaveine and Porzio, Distance-based depths
    for directional data, 2018 (arc). Tukey 1975, Zuo 2003, Ramsay, Durocher and Leblanc 2019,
    Staerman et al. 2021 (halfspace, projection, irw, ai_irw). Vardi and Zhang 2000 (spatial).
    Ledoit and Wolf 2004.

    Examples
    --------
    >>> import numpy as np
    >>> from embedcore import depth
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((100, 8)).astype(np.float32) + 1
    >>> depth.score(x).shape
    (100,)
    >>> depth.score(x, groups=np.arange(100) % 3, metric="arc").shape
    (100, 3)
    """
    if metric not in METRICS:
        choose(_WHERE, "metric", metric, METRICS)
    if precision != "float32":
        _check_precision(metric, precision)
    wanted = 0 if threads is None else integer(_WHERE, "threads", threads, minimum=1, maximum=1024)
    call = call_of(_WHERE, "x", x, corpus=corpus, weights=weights, out=out)
    if call is not None:
        along = None
        if metric in DIRECTIONAL:
            along = call.copied_from_host(_random_directions(x, n_directions, seed))
        return score_on_device(
            call, x, corpus, metric, weights, groups, offsets, precision, along, shrinkage, check,
            out,
        )  # fmt: skip
    labels, count = None, 1
    if groups is not None or offsets is not None:
        labels, count = group_codes(_WHERE, groups, offsets, _corpus_rows(x, corpus))
    if metric == "mahalanobis":
        return mahalanobis(x, corpus, weights, labels, count, shrinkage, out)
    directions = None
    if metric in DIRECTIONAL:
        directions = _random_directions(x, n_directions, seed)

    def run(report: Any) -> Any:
        if metric == "ai_irw":
            return ai_irw(
                x, corpus, weights, labels, count, directions, shrinkage, wanted, report, out
            )
        metric_code, precision_code = NATIVE_METRIC[metric], NATIVE_PRECISION[precision]
        return _core.depth_score(
            _WHERE, x, corpus, metric_code, precision_code, weights, labels, count, directions,
            wanted, False, out, report,
        )  # fmt: skip

    if progress is False:
        return run(None)
    with reporter(progress, _WHERE) as report:
        return run(report)


def _corpus_rows(x: Any, corpus: Any) -> int:
    array = x if corpus is None else corpus
    shape: tuple[int, ...] = getattr(array, "shape", ())
    if len(shape) != 2:
        _core.depth_check(_WHERE, x, corpus, None)  # says what is wrong, if anything is
        shape = to_numpy(array, _WHERE, "x" if corpus is None else "corpus").shape
    return int(shape[0])


def _check_precision(metric: str, precision: str) -> None:
    choose(_WHERE, "precision", precision, PRECISIONS)
    if metric not in REDUCIBLE:
        raise ValueError(
            f"{_WHERE}: 'precision' must be 'float32' for metric {metric!r} (the others serve "
            f"'chord' and 'arc'); got {precision!r}."
        )


def _random_directions(
    x: Any, n_directions: int, seed: int | np.random.Generator
) -> NDArray[np.float64]:
    """Return unit rows (n_directions, d), uniform on the sphere."""
    integer(_WHERE, "n_directions", n_directions, minimum=1, maximum=1 << 20)
    if not isinstance(seed, np.random.Generator):
        integer(_WHERE, "seed", seed, minimum=0)
    columns = x.shape[1] if len(getattr(x, "shape", ())) == 2 else 1
    # A stream of its own: data drawn from default_rng(seed) must not meet itself as directions.
    stream = seed if isinstance(seed, np.random.Generator) else (int(seed), _DIRECTION_STREAM)
    rows = np.random.default_rng(stream).standard_normal((n_directions, columns))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows
