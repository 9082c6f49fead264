# SPDX-License-Identifier: Apache-2.0
"""`depth.Corpus`: a corpus that grows, is shared out, is saved, and scores rows."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .._arrays import to_kind_of, to_numpy
from .._check import choose, integer
from .._device import call_of
from .._progress import Progress, reporter
from ._corpus_device import DeviceState, call_for_scores, device_state_of, together
from ._corpus_file import open_corpus, read_state, save_corpus
from ._corpus_states import ANGULAR, Call, Options, State, check_rows, state_of
from ._metrics import METRICS, PRECISIONS, REDUCIBLE
from ._persist import path_of


class Corpus:
    r"""A corpus that rows are scored in, built up in parts.

    What is kept of the rows depends on the metric:

    ====================================  ==============================  ==========================
    metric                                kept                            cost of scoring n rows
    ====================================  ==============================  ==========================
    ``cosine``                            the sum of the unit rows        O(n d)
    ``mahalanobis``                       moments, O(d^2)                 O(n d^2 + d^3)
    ``chord``, ``arc``, ``l2``            references to the rows          O(n m d), one pass
    ``spatial``                           references to the rows          O(n m d), one pass
    ``halfspace``, ``projection``,        references to the rows          O((n + m) d) a direction,
    ``irw``, ``ai_irw``                   (``ai_irw``: moments too)       several passes
    ====================================  ==============================  ==========================

    Sums and moments are exact: they may be updated and merged in any order, and the corpus may be
    larger than memory. Where rows are kept, they are *not copied*: leave the arrays unchanged as
    long as the corpus is used, and pass a memory-mapped array (``numpy.load(..., mmap_mode="r")``,
    ``numpy.memmap``) for a corpus larger than memory; it is read in blocks of 32 MiB. A bfloat16
    Torch tensor is copied, as float32.

    Parameters
    ----------
    metric : str, default "cosine"
        As for :func:`score`.
    shrinkage : "auto" or float in [0, 1], default "auto"
        Of the covariance, for ``mahalanobis`` and ``ai_irw``. The same number as :func:`score`
        finds: Ledoit and Wolf's intensity is computed from moments that merge exactly.
    n_directions, seed : int
        Random directions of ``halfspace``, ``projection``, ``irw`` and ``ai_irw``: those of
        :func:`score`. Corpora merge only if both agree.
    precision : {"float32", "bfloat16", "int8"}, default "float32"
        As for :func:`score`: ``chord`` and ``arc``.

    Raises
    ------
    TypeError, ValueError
        As :func:`score`.

    Notes
    -----
    Scores agree with ``score(x, corpus)`` on the same rows to 1e-6 (``spatial``: 5e-6, for each
    block is moved to its own origin); where ranks along random directions are counted, rows whose
    projections differ by less than float32 resolves may trade places. They do not depend on the
    number of threads (``mahalanobis`` and the directions use NumPy's linear algebra, which has its
    own).

    Direction depths of a corpus that is larger than memory project all of it on a few directions at
    a time, so that the file is read about ``m * n_directions / 2**23`` times.

    Rows on a GPU stay there: ``cosine`` keeps its sum, every other metric references to the rows
    (parts, of one dtype, are copied together at the first score), and scores, of rows on the same
    device, run as those of :func:`score` without `check`. Random directions are sent once, and a
    covariance is found once. `left_out` is for corpora on the CPU; `save` writes a corpus that
    loads there.

    Objects pickle with what they keep; rows are copied into the pickle, mapped ones too. Shards may
    be fitted in several processes and merged.

    Examples
    --------
    >>> import numpy as np
    >>> from embedcore import depth
    >>> rows = np.random.default_rng(0).standard_normal((100, 8)) + 1
    >>> corpus = depth.Corpus("cosine").fit(rows[:60]).update(rows[60:])
    >>> len(corpus)
    100
    >>> bool(np.allclose(corpus.score(rows[:5]), depth.score(rows[:5], rows)))
    True
    """

    def __init__(
        self,
        metric: str = "cosine",
        *,
        shrinkage: float | str = "auto",
        n_directions: int = 1000,
        seed: int = 0,
        precision: str = "float32",
    ) -> None:
        where = "depth.Corpus"
        choose(where, "metric", metric, METRICS)
        choose(where, "precision", precision, PRECISIONS)
        if precision != "float32" and metric not in REDUCIBLE:
            raise ValueError(
                f"{where}: 'precision' must be 'float32' for metric {metric!r} (the others serve "
                f"'chord' and 'arc'); got {precision!r}."
            )
        self._options = Options(
            metric,
            _shrinkage(where, shrinkage),
            integer(where, "n_directions", n_directions, minimum=1, maximum=1 << 20),
            integer(where, "seed", seed, minimum=0),
            precision,
        )
        self._state: State | DeviceState | None = None

    @property
    def metric(self) -> str:
        """Name of the depth."""
        return self._options.metric

    def __len__(self) -> int:
        return 0 if self._state is None else self._state.count

    def __repr__(self) -> str:
        if self._state is None:
            return f"Corpus(metric={self.metric!r}, not fitted)"
        return f"Corpus(metric={self.metric!r}, rows={len(self)}, columns={self._state.columns})"

    def fit(self, x: Any, *, weights: Any = None) -> Corpus:
        """Make `x` the corpus; what was there before is forgotten.

        Parameters
        ----------
        x : array (m, d)
            As `corpus` in :func:`score`.
        weights : array (m,), optional
            Non-negative weights with a positive sum, float32 or float64. Not for ``projection``.

        Returns
        -------
        Corpus
            The object itself.

        Raises
        ------
        TypeError, ValueError
            As :func:`score`; the corpus then is as it was before.
        """
        where = "depth.Corpus.fit"
        self._state = self._state_of(where, x, weights)
        return self

    def update(self, x: Any, *, weights: Any = None) -> Corpus:
        """Add rows to the corpus; parameters, result and errors as :meth:`fit`.

        On an object that is not fitted it is :meth:`fit`. Once any part has weights, the others
        count as weighted 1 (for ``mahalanobis`` this also sets the covariance's denominator to the
        sum of the weights, as in :func:`score`).
        """
        where = "depth.Corpus.update"
        added = self._state_of(where, x, weights, more=True)
        self._state = added if self._state is None else together(where, self._state, added)
        return self

    def merge(self, other: Corpus) -> Corpus:
        """Add the rows of another corpus, which is left as it is.

        Raises
        ------
        TypeError
            If `other` is no Corpus.
        ValueError
            If metric or options differ, or the number of columns.
        """
        where = "depth.Corpus.merge"
        if not isinstance(other, Corpus):
            raise TypeError(f"{where}: 'other' must be a Corpus; got {type(other).__name__}.")
        if other._options != self._options:
            raise ValueError(
                f"{where}: 'other' must have the same metric and options; got {other._options} for "
                f"{self._options}."
            )
        if other._state is None:
            return self
        if self._state is None:
            self._state = other._state
            return self
        self._check_columns(where, "other", (len(other), other._state.columns))
        self._state = together(where, self._state, other._state)
        return self

    def score(
        self,
        x: Any,
        *,
        left_out: bool = False,
        weights: Any = None,
        threads: int | None = None,
        progress: Progress = False,
        out: Any = None,
    ) -> Any:
        """Return the depth of each row of `x` in the corpus.

        Parameters
        ----------
        x : array (n, d)
            As in :func:`score`. It may be memory-mapped and larger than memory.
        left_out : bool, default False
            Each row of `x` is a row of the corpus, in the same dtype, and is left out of its own
            depth: with all rows of the corpus, what :func:`score` returns without `corpus`. The
            row's own term is taken out of the sums; under ``cosine`` and the directional metrics a
            row with nearly all the weight loses digits by that (about 1e-7 times the weight of the
            corpus over what is left of it). Not for ``projection``, whose median is no sum.
        weights : array (n,), optional
            With `left_out`: the weights that the rows of `x` have in the corpus; needed if it has
            any.
        threads : int, optional
            Default: :func:`embedcore.get_num_threads`.
        progress : bool or callable, default False
            As in :func:`score`.
        out : array (n,), optional
            Where the result goes; C-contiguous, of the dtype below.

        Returns
        -------
        array (n,)
            Of the kind of `x`; float64 for float64 input, else float32.

        Raises
        ------
        TypeError, ValueError
            As :func:`score`; ValueError if the corpus is not fitted.
        """
        where = "depth.Corpus.score"
        if self._state is None:
            raise ValueError(f"{where}: the corpus must be fitted first. Call fit(x) or update(x).")
        if isinstance(self._state, DeviceState):
            device_call = call_for_scores(where, x, left_out, weights, out)
            self._check_columns(where, "x", x.shape)
            return self._state.depths(device_call, x, self._options, out)
        rows = _as_rows(where, x)
        self._check_columns(where, "x", rows.shape)
        own_weights = self._own_weights(where, left_out, weights, len(rows))
        wanted = 0
        if threads is not None:
            wanted = integer(where, "threads", threads, minimum=1, maximum=1024)
        if out is not None:
            _check_out(where, x, out, len(rows))
        with reporter(progress, where) as report:
            call = Call(where, self._options, wanted, report, own_weights)
            try:
                depths = self._state.depths(rows, call)
            except ValueError:
                # A block does not know where in 'x' it lies: this names the row in all of 'x'.
                check_rows(where, rows, None, angular=self.metric in ANGULAR)
                raise
        if out is not None:
            return _core.depth_write(where, x, depths, out)
        wide = rows.dtype == np.float64
        return to_kind_of(x, depths if wide else depths.astype(np.float32))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted corpus to one file, for :meth:`load`.

        The file holds what the table above says is kept, so for most metrics the rows. It appears
        under its name only when all of it is on disk.

        Raises
        ------
        TypeError
            If `path` is no path.
        ValueError
            If the corpus is not fitted.
        OSError
            If the file cannot be written; a file that was there before is then unchanged.
        """
        where = "depth.Corpus.save"
        if self._state is None:
            raise ValueError(f"{where}: the corpus must be fitted first. Call fit(x) or update(x).")
        state = self._state
        if isinstance(state, DeviceState):
            state = state.on_host(where, self._options)
        save_corpus(path_of(where, path), self._options, state)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, mmap: bool = True) -> Corpus:
        """Read a corpus that :meth:`save` wrote.

        Parameters
        ----------
        path : path
            The file. Nothing in it is executed, and every length in it is checked.
        mmap : bool, default True
            Leave rows in the file and read them when they are needed; the file must then stay as it
            is (it may be replaced or deleted on POSIX systems, not cut short), and damage among the
            rows is not looked for. ``False`` reads and checks all of it.

        Raises
        ------
        TypeError
            If `path` is no path.
        OSError
            If the file cannot be read, is damaged, or is of another kind or format version.
        ImportError
            If the rows are bfloat16 and ml_dtypes is not installed.
        """
        where = "depth.Corpus.load"
        file = open_corpus(where, path_of(where, path), mapped=bool(mmap))
        names = ("metric", "shrinkage", "n_directions", "seed", "precision")
        options: dict[str, Any] = {name: file.fields.get(name) for name in names}
        try:
            corpus = cls(**options)
        except (TypeError, ValueError):
            file.require(False, "has options that cannot be")
            raise
        corpus._state = read_state(file, corpus._options)
        return corpus

    def _state_of(
        self, where: str, x: Any, weights: Any, more: bool = False
    ) -> State | DeviceState:
        """Return the state of other rows; `more`: they are to be added to those that are there."""
        call = call_of(where, "x", x, weights=weights)
        rows = _as_rows(where, x) if call is None else x
        if call is not None:
            call.floats("x", x, 2)
        if more:
            self._check_columns(where, "x", rows.shape)
        if call is None:
            return state_of(where, rows, weights, self._options)
        return device_state_of(where, call, rows, weights, self._options)

    def _check_columns(self, where: str, argument: str, shape: tuple[int, ...]) -> None:
        if self._state is not None and shape[1] != self._state.columns:
            raise ValueError(
                f"{where}: '{argument}' must have the same number of columns as the corpus "
                f"({self._state.columns}); got shape {tuple(shape)}."
            )

    def _own_weights(
        self, where: str, left_out: bool, weights: Any, rows: int
    ) -> NDArray[np.float64] | None:
        weighted = self._state is not None and self._state.weighted
        if not left_out:
            if weights is not None:
                raise ValueError(f"{where}: 'weights' must be None unless left_out=True.")
            return None
        if self.metric == "projection":
            raise ValueError(
                f"{where}: 'left_out' must be False for metric 'projection', because a median is "
                f"no sum. Use depth.score(x, metric='projection')."
            )
        if weights is None:
            if weighted:
                raise ValueError(
                    f"{where}: 'weights' must hold the weights of the rows of 'x', because the "
                    f"corpus has weights; got None."
                )
            return np.ones(rows)
        own = to_numpy(weights, where, "weights")
        _core.depth_check(where, np.ones((rows, 1)), None, own)
        own = own.astype(np.float64)
        if self.metric == "mahalanobis":
            return own
        # Native sums are of weights that were rounded to float32, in a unit that it holds.
        digits, exponent = np.frexp(own)
        rounded: NDArray[np.float64] = np.ldexp(
            digits.astype(np.float32), exponent, dtype=np.float64
        )
        return rounded


def _as_rows(where: str, x: Any) -> NDArray[Any]:
    """Return `x` as a NumPy array (n, d) of a dtype that kernels take."""
    plain = isinstance(x, (list, tuple))
    rows: Any = x if plain else to_numpy(x, where, "x")
    # The native view says what is wrong with kinds, dtypes and shapes; one row is enough for it.
    _core.depth_check(where, rows if plain or rows.ndim != 2 else rows[:1], None, None)
    result: NDArray[Any] = rows
    return result


def _check_out(where: str, x: Any, out: Any, rows: int) -> None:
    """Raise now what writing to `out` would raise; leaves `out` as it is where it fits."""
    current = np.asarray(to_numpy(out, where, "out"))
    fits = current.shape == (rows,) and current.dtype in (np.float32, np.float64)
    _core.depth_write(where, x, current.astype(np.float64) if fits else np.zeros(rows), out)


def _shrinkage(where: str, value: Any) -> float | str:
    if isinstance(value, str) and value == "auto":
        return "auto"
    if isinstance(value, (bool, str)) or not isinstance(value, (int, float, np.number)):
        raise TypeError(
            f"{where}: 'shrinkage' must be 'auto' or a number in [0, 1]; got {value!r}."
        )
    if not 0.0 <= float(value) <= 1.0:
        raise ValueError(f"{where}: 'shrinkage' must lie in [0, 1]; got {value!r}.")
    return float(value)
