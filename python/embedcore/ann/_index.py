# SPDX-License-Identifier: Apache-2.0
"""`ann.Index`: vectors with attributes, and searches among the rows that pass a filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import choose, flag, integer
from . import _change, _file
from ._device_rows import check_device, device_number
from ._device_steps import steps_on
from ._on_device import DeviceIndex
from ._progress import Progress, monitor_of
from ._readable import Readable
from ._search import threads_of
from ._snapshot import from_sections, to_sections
from ._state import Options, State, compacted, settled
from ._vectors import DTYPES, METRICS, queries_of, widths_of
from ._writers import Writers, unlocked_in_children


class Index(Readable):
    """Vectors with attributes, searched by similarity among the rows that pass a filter.

    There is nothing to tune: the index learns axes, codes, cells and a graph from its rows,
    measures on this machine what each way of searching costs, and chooses the cheapest for each
    query and filter that meets the recall asked for. Fewer than 2000 rows are scanned.

    Parameters
    ----------
    dim : int
        Columns of the vectors, 1 to 65536.
    metric : {"cosine", "ip", "l2"}, default "cosine"
        Distances are 1 - cosine, the negated inner product, or Euclidean (not squared): smaller is
        nearer for all three.
    dtype : {"float32", "float16", "bfloat16", "int8"}, optional
        How vectors are kept; by default as the first rows are given, float64 as float32. Rows of
        other floating dtypes are rounded to it.
    threads : int, optional
        For calls that do not name a number. Default: :func:`embedcore.get_num_threads`.
    seed : int, default 0
        Of the samples that a build takes. Equal rows, added in equal calls, and equal seeds give
        equal codes, cells and links at any number of threads. The costs are times that each build
        measures: where two plans cost about the same, two builds may choose differently.
    keep_vectors : bool, default True
        Whether to keep the vectors as given once the index is built. Without them it takes a
        fraction of the memory, distances are those of the codes (two or three digits), and
        ``exact=True`` is refused.
    prefixes : sequence of int, default ()
        Widths below `dim` that queries may have too, for embeddings that are meaningful by their
        first columns (Matryoshka). They are compared with as many columns of the rows, which are
        kept once more for it, by scanning those that pass.
    progress : bool or callable, default False
        Of builds: True writes a line on standard error, a function is called with the fraction
        done.
    build_device : str, default "cpu"
        Where builds make codes and cells, look for the neighbours of rows and choose their links;
        on a GPU (see :meth:`to`; ``"cuda"``: the one that is current at the build) these two by
        products of bfloat16. The index is the CPU's all the same.

    Raises
    ------
    TypeError, ValueError
        For options of another kind or out of bounds.

    Notes
    -----
    Adding appends; the index builds itself anew when the rows that are not linked or are deleted
    are more than a fifth of it, or it has twice as many rows as then, and links new rows into the
    graph in between. So adding n rows in parts costs O(n log n) distances altogether, and an add
    may at times take as long as a build.

    Searches see the index as it was when they began. They may run in many threads, beside each
    other and beside one that writes, and wait for none; writers wait for each other. A call that
    fails, or is interrupted with Ctrl-C, leaves the index as it was before the call.

    Examples
    --------
    >>> import numpy as np
    >>> from embedcore.ann import Index, field
    >>> rows = np.eye(4, 8, dtype=np.float32)
    >>> index = Index(8)
    >>> index.add(rows, attributes={"year": [2019, 2020, 2021, 2021]})
    array([0, 1, 2, 3])
    >>> index.search(rows[3], k=2, where=field("year") >= 2020).ids
    array([[3, 1]])
    """

    def __init__(
        self,
        dim: int,
        *,
        metric: str = "cosine",
        dtype: str | None = None,
        threads: int | None = None,
        seed: int = 0,
        keep_vectors: bool = True,
        prefixes: Sequence[int] = (),
        progress: Progress = False,
        build_device: str = "cpu",
    ) -> None:
        where = "ann.Index"
        dim = integer(where, "dim", dim, minimum=1, maximum=1 << 16)
        options = Options(
            dim,
            choose(where, "metric", metric, METRICS),
            None if dtype is None else choose(where, "dtype", dtype, DTYPES),
            integer(where, "seed", seed, minimum=0, maximum=(1 << 63) - 1),
            flag(where, "keep_vectors", keep_vectors),
            widths_of(where, prefixes, dim),
        )
        self._attach(where, State.empty(options), threads, progress, build_device)

    def _attach(
        self, where: str, state: State, threads: Any, progress: Any, build_device: Any
    ) -> None:
        if progress is not None and not callable(progress):
            flag(where, "progress", progress)
        self._threads = threads_of(where, threads, 0)
        self._progress: Progress = progress
        check_device(where, build_device, "build_device")
        self._build_device = build_device
        self._lock = Writers()
        unlocked_in_children(self)
        self._state = state  # replaced whole

    def add(self, vectors: Any, *, ids: Any = None, attributes: Any = None) -> NDArray[np.int64]:
        """Add rows.

        Parameters
        ----------
        vectors : array (n, dim), or (dim,) for one row
            NumPy, Torch, or another with DLPack; float32, float16, bfloat16, float64 or int8.
        ids : array (n,) of integers, optional
            Names of the rows, from 0 to 2**63 - 2. By default they count on from the largest id
            that the index has had.
        attributes : mapping or table, optional
            Columns with one value for each row: a dict of arrays or lists, a pandas or polars
            DataFrame, a pyarrow Table, or any object with the Arrow PyCapsule interface. Strings,
            booleans, pandas' and Arrow's categories become *category* columns; integers *integer*;
            floating-point numbers *number*; dates and datetimes *datetime* (nanoseconds, UTC);
            lists of labels *set*. None, NaN, NaT and what the table has as null is missing. A
            column keeps its kind; it is missing for rows of calls that do not have it.

        Returns
        -------
        array (n,) of int64
            The ids of the rows.

        Raises
        ------
        TypeError
            Vectors, ids or attributes of another kind or dtype; a column of another kind than it
            has in the index.
        ValueError
            Vectors of another number of columns, or that are not finite, or zero under the cosine
            (the first such row is named); ids that are repeated or in the index; a column of
            another length. Nothing is added then.
        MemoryError
            If there is no room; nothing is added then.

        Notes
        -----
        Amortised O(log n) distances a row; see the class for when a call builds.
        """
        where = "ann.Index.add"
        with self._lock:
            state, chosen = _change.added(
                where, self._state, vectors, ids, attributes, self._threads
            )
            self._settle(state)
        return chosen

    def upsert(self, vectors: Any, ids: Any, attributes: Any = None) -> NDArray[np.int64]:
        """Replace rows whose ids the index has, and add the others.

        Parameters, result and errors are those of :meth:`add`, but that ids are needed and may be
        in the index. A row is replaced whole: attributes that are not given are missing then. It
        keeps its place in the order of adding.
        """
        where = "ann.Index.upsert"
        with self._lock:
            state, chosen = _change.upserted(
                where, self._state, vectors, ids, attributes, self._threads
            )
            self._settle(state)
        return chosen

    def delete(self, ids: Any, *, missing: str = "raise") -> int:
        """Remove rows.

        Parameters
        ----------
        ids : int or array of integers
            Their ids.
        missing : {"raise", "ignore"}, default "raise"
            What to do about ids that the index does not have, or that are named twice.

        Returns
        -------
        int
            How many rows were removed.

        Raises
        ------
        ValueError
            If an id is not in the index (the first is named) or repeated; nothing is removed then.

        Notes
        -----
        Their memory is given back by the next build, or by :meth:`compact`.
        """
        where = "ann.Index.delete"
        choose(where, "missing", missing, ("raise", "ignore"))
        with self._lock:
            state, count = _change.deleted(
                where, self._state, ids, ignore_missing=missing == "ignore"
            )
            self._settle(state)
        return count

    def update_attributes(self, ids: Any, attributes: Any) -> None:
        """Give rows other attributes; their vectors, and columns that are not named, stay.

        Parameters
        ----------
        ids : int or array (n,) of integers
            The rows.
        attributes : mapping or table
            Columns with one value for each id, as for :meth:`add`; None makes a value missing.

        Raises
        ------
        TypeError, ValueError
            As :meth:`add`, and for ids that are repeated or not in the index; nothing is changed
            then.
        """
        with self._lock:
            self._state = _change.updated(
                "ann.Index.update_attributes", self._state, ids, attributes
            )

    def compact(self) -> None:
        """Build the index anew from the rows that it has, which gives back the memory of others.

        Never needed for recall. Does nothing where nothing has changed since the last build.
        """
        with self._lock:
            state = self._state
            if state.ids.rows == state.ids.live == state.trained and state.tail == 0:
                return
            with monitor_of(self._progress, "ann.Index.compact") as monitor:
                steps = steps_on("ann.Index.compact", self._build_device, state.options)
                state = compacted(state, self._threads, monitor, steps)
            self._state = state

    def _settle(self, state: State) -> None:
        with monitor_of(self._progress, "ann.Index: building") as monitor:
            steps = steps_on("ann.Index", self._build_device, state.options)
            state = settled(state, self._threads, monitor, steps)
        self._state = state

    def calibrate(self, queries: Any = None) -> None:
        """Measure the costs of searching anew, which builds do for themselves.

        Useful after opening on another machine, or when queries do not look like rows: what recall
        takes is measured with the queries given. Searches never change the costs; an add does that
        lets the graph grow by an eighth. Does nothing before the first build, which measures them.

        Parameters
        ----------
        queries : array (n, dim), optional
            Typical queries, a hundred or more; by default rows of the index.

        Raises
        ------
        TypeError, ValueError
            As :meth:`search`.
        """
        where = "ann.Index.calibrate"
        with self._lock:
            state = self._state
            if queries is not None:
                queries = queries_of(where, queries, state.options.dim, state.options.metric)
            if state.trained and (queries is None or len(queries)):
                vectors = state.vectors.calibrate(queries, self._threads)
                self._state = state.but(vectors=vectors)

    @classmethod
    def open(
        cls,
        path: Any,
        *,
        mode: str = "mmap",
        verify: bool = True,
        threads: int | None = None,
        progress: Progress = False,
        build_device: str = "cpu",
    ) -> Index:
        """Read an index that :meth:`save` wrote.

        Parameters
        ----------
        path : str or path
            The file.
        mode : {"mmap", "load"}, default "mmap"
            Map the file, so that processes share its memory and parts never used are never read, or
            read all of it. A mapped file must not be truncated or written over in place; replacing
            it (as `save` does) and deleting it are safe.
        verify : bool, default True
            Whether to check all checksums, which reads a mapped file once, at 1 to 3 GB/s. Without,
            only the index of the file is checked, and that all parts fit each other; damaged
            vectors may then give wrong results, but no crash. Files that are loaded are always
            checked.
        threads : int, optional
            For calls that do not name a number.
        progress : bool or callable, default False
            Of later builds.
        build_device : str, default "cpu"
            Where later builds do most of their work.

        Returns
        -------
        Index
            Changes to it stay in memory until it is saved.

        Raises
        ------
        OSError
            If the file cannot be read, is damaged or truncated, or is of a later format.
        """
        where = "ann.Index.open"
        choose(where, "mode", mode, ("mmap", "load"))
        mapped = mode == "mmap"
        checked = flag(where, "verify", verify) or not mapped
        target = _file.path_of(where, path)
        sections = _file.read(where, target, mapped=mapped, verify=checked)
        made = cls.__new__(cls)
        made._attach(where, from_sections(sections), threads, progress, build_device)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        progress = self._progress if isinstance(self._progress, bool) else False
        content = _file.to_bytes(*to_sections(self._state))
        options = (self._threads or None, progress, self._build_device)
        return _restored, (type(self), content, *options)

    def _with(self, state: State) -> Index:
        """Return another index, with the same options of calls."""
        made = type(self).__new__(type(self))
        made._attach("ann.Index", state, self._threads or None, self._progress, self._build_device)
        return made

    def __copy__(self) -> Index:
        return self._with(self._state)

    def to(self, device: str) -> Any:
        """Return the index on a device.

        Parameters
        ----------
        device : str
            ``"cpu"``, a GPU by its number, as ``"cuda:1"``, or ``"cuda"``: the one that Torch or
            else CuPy works on now (``torch.cuda.current_device()``), whichever is imported or can
            be. Memory there comes from that library; arrays of both can be searched for.

        Returns
        -------
        Index or DeviceIndex
            For the CPU the index itself. For a GPU a snapshot, :class:`DeviceIndex`, whose
            ``to("cpu")`` gives the version that it was made from.

        Raises
        ------
        TypeError, ValueError
            For what is no device.
        RuntimeError
            Where there is no GPU, or no library for it.
        """
        number = device_number("ann.Index.to", device)
        return self if number is None else DeviceIndex(self, self._state, number)

    def __deepcopy__(self, memo: dict[int, Any]) -> Index:
        return self.__copy__()  # versions never change, so that both may share this one


def _restored(
    kind: type[Index], content: bytes, threads: int | None, progress: bool, build_device: str
) -> Index:
    where = "ann.Index"
    made = kind.__new__(kind)
    state = from_sections(_file.of_bytes(where, content))
    made._attach(where, state, threads, progress, build_device)
    return made
