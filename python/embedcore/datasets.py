# SPDX-License-Identifier: Apache-2.0
"""Sample data: WordNet glosses with MiniLM embeddings, read from the package or from a file."""

from __future__ import annotations

import difflib
import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from typing import IO, Any

import numpy as np
import numpy.typing as npt

__all__ = ["Glosses", "TokenStates", "load_glosses", "load_token_states"]

_FORMAT_VERSION = 1

# What the zip and npy readers raise on damaged input; a plain npy file is no context manager.
_READ_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


@dataclass(frozen=True, eq=False)
class Glosses:
    """Dictionary definitions, their classes and words, and their embeddings.

    Rows are sorted by class name, then by their place in WordNet.

    Attributes
    ----------
    vectors : ndarray of shape (n, 384), float32
        One embedding of unit length for each text.
    texts : list of str, length n
        The definitions, without usage examples.
    class_names : list of str, length C, sorted
        WordNet's lexicographer files, for instance ``"noun.animal"``.
    labels : ndarray of shape (n,), int64
        Index into `class_names`.
    pos : list of str, length n
        Part of speech: ``"noun"``, ``"verb"``, ``"adj"`` or ``"adv"``.
    lemmas : list of tuple of str, length n
        The words that have this definition.
    lemma_counts : ndarray of shape (n,), int64
        Number of words in each element of `lemmas`.
    query_texts : list of str, length q
        Everyday questions in natural language.
    query_vectors : ndarray of shape (q, 384), float32
        One embedding of unit length for each question.
    query_answers : ndarray of shape (q,), int64
        The row that each question was written for. It need not be the nearest row.
    """

    vectors: npt.NDArray[np.float32]
    texts: list[str]
    class_names: list[str]
    labels: npt.NDArray[np.int64]
    pos: list[str]
    lemmas: list[tuple[str, ...]]
    lemma_counts: npt.NDArray[np.int64]
    query_texts: list[str]
    query_vectors: npt.NDArray[np.float32]
    query_answers: npt.NDArray[np.int64]

    def rows_of(self, class_name: str) -> npt.NDArray[np.int64]:
        """Return the rows of one class, in ascending order.

        Parameters
        ----------
        class_name : str
            An element of `class_names`.

        Returns
        -------
        ndarray of shape (rows,), int64

        Raises
        ------
        TypeError
            When `class_name` is not a string.
        ValueError
            When no class has this name.
        """
        if not isinstance(class_name, str):
            raise TypeError(
                "datasets.Glosses.rows_of: 'class_name' must be a str; "
                f"got {type(class_name).__name__}."
            )
        if class_name not in self.class_names:
            near = difflib.get_close_matches(class_name, self.class_names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                "datasets.Glosses.rows_of: 'class_name' must be one of the class_names; "
                f"got {class_name!r}.{hint}"
            )
        return np.flatnonzero(self.labels == self.class_names.index(class_name))


@dataclass(frozen=True, eq=False)
class TokenStates:
    """Hidden states of the model for some of the glosses, one vector for each token.

    Attributes
    ----------
    hidden : ndarray of shape (r, max(lengths), 384), float32
        Hidden states; zero from ``lengths[i]`` on.
    lengths : ndarray of shape (r,), int64
        Number of tokens, ``[CLS]`` and ``[SEP]`` included.
    tokens : list of tuple of str, length r
        The word pieces of each gloss.
    rows : ndarray of shape (r,), int64
        Row of each gloss among the texts of the file: in the `Glosses` of a file that has them.
    texts : list of str, length r
        The glosses.
    class_names : list of str, length C, sorted
        The classes of the file.
    labels : ndarray of shape (r,), int64
        Index into `class_names`.
    """

    hidden: npt.NDArray[np.float32]
    lengths: npt.NDArray[np.int64]
    tokens: list[tuple[str, ...]]
    rows: npt.NDArray[np.int64]
    texts: list[str]
    class_names: list[str]
    labels: npt.NDArray[np.int64]


def load_glosses(path: str | os.PathLike[str] | None = None) -> Glosses:
    """Load a sample of WordNet 3.0 glosses embedded by all-MiniLM-L6-v2.

    The package carries 1,440 glosses of 8 classes; ``examples/data/glosses.npz`` of the source
    tree holds 4,064 glosses of all 45 classes in the same format.

    Parameters
    ----------
    path : str or path-like, optional
        A sample file. By default the one inside the package.

    Returns
    -------
    Glosses
        Vectors are stored in 16-bit fixed point (step 2**-12) and brought back to unit length.

    Raises
    ------
    TypeError
        When `path` is not a path.
    OSError
        When the file is missing or is not a sample file.

    See Also
    --------
    load_token_states : the hidden states of some of the glosses.

    Notes
    -----
    Time and memory are linear in the size of the file. The licence of WordNet [1]_ lies beside
    the data, in ``WORDNET_LICENSE.txt``.

    References
    ----------
    .. [1] C. Fellbaum (ed.), *WordNet: An Electronic Lexical Database*, MIT Press, 1998.
    """
    file = _SampleFile("datasets.load_glosses", path)
    texts = file.lines("texts")
    class_names = file.lines("class_names")
    labels = file.indices("labels", len(texts), below=len(class_names))
    lemmas = _split(file.lines("lemmas"), file.boundaries("lemma_indptr", "lemmas"))
    query_texts = file.lines("query_texts")
    vectors = file.unit_vectors("vectors", len(texts))
    query_vectors = file.unit_vectors("query_vectors", len(query_texts))
    file.require(len(lemmas) == len(texts), "'lemma_indptr' must have one row per text")
    file.require(
        vectors.shape[1] == query_vectors.shape[1],
        "'vectors' and 'query_vectors' must have the same number of columns",
    )
    return Glosses(
        vectors=vectors,
        texts=texts,
        class_names=class_names,
        labels=labels,
        pos=[class_names[label].partition(".")[0] for label in labels],
        lemmas=lemmas,
        lemma_counts=np.array([len(words) for words in lemmas], dtype=np.int64),
        query_texts=query_texts,
        query_vectors=query_vectors,
        query_answers=file.indices("query_answers", len(query_texts), below=len(texts)),
    )


def load_token_states(path: str | os.PathLike[str] | None = None) -> TokenStates:
    """Load the token-level hidden states of some of the glosses, padded with zeros.

    The package carries 24 glosses with the states of the last layer; ``examples/data/glosses.npz``
    of the source tree holds 315. The mean of ``hidden[i, :lengths[i]]`` has the direction of
    ``vectors[rows[i]]`` of `Glosses`, up to rounding. ``examples/data/token_states.npz`` holds 90
    glosses of each of ten classes, with the states after the fourth of six layers.

    Parameters
    ----------
    path : str or path-like, optional
        A sample file. By default the one inside the package.

    Returns
    -------
    TokenStates
        States are stored in 16-bit fixed point (step 2**-8), in ``token_states.npz`` as 8-bit
        integers times a scale of each token (off by about 2 % of its norm).

    Raises
    ------
    TypeError
        When `path` is not a path.
    OSError
        When the file is missing or is not a sample file.

    See Also
    --------
    load_glosses : the texts, classes and sentence embeddings.

    Notes
    -----
    Time and memory are linear in the size of the padded array.
    """
    file = _SampleFile("datasets.load_token_states", path)
    bounds = file.boundaries("token_indptr", "tokens")
    tokens = _split(file.lines("tokens"), bounds)
    states = file.states(int(bounds[-1]))
    lengths = np.diff(bounds)
    hidden = np.zeros((len(lengths), int(lengths.max(initial=0)), states.shape[1]), np.float32)
    hidden[np.arange(hidden.shape[1]) < lengths[:, None]] = states
    texts = file.lines("texts")
    class_names = file.lines("class_names")
    labels = file.indices("labels", len(texts), below=len(class_names))
    rows = file.indices("token_rows", len(lengths), below=len(texts))
    return TokenStates(
        hidden=hidden,
        lengths=lengths,
        tokens=tokens,
        rows=rows,
        texts=[texts[row] for row in rows],
        class_names=class_names,
        labels=labels[rows],
    )


class _SampleFile:
    """The fields of one sample file; whatever is wrong with the file becomes an OSError."""

    def __init__(self, function: str, path: str | os.PathLike[str] | None) -> None:
        if path is not None and not isinstance(path, (str, os.PathLike)):
            raise TypeError(
                f"{function}: 'path' must be a str or a path-like object; "
                f"got {type(path).__name__}."
            )
        self._function = function
        self._name = "the file inside the package" if path is None else repr(os.fspath(path))
        self._fields: dict[str, npt.NDArray[Any]] = {}
        try:
            with self._open(path) as stream, np.load(stream, allow_pickle=False) as archive:
                self._fields.update(archive)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{function}: 'path' must be an existing sample file; got {self._name}."
            ) from None
        except _READ_ERRORS:
            self.require(False, "it is not a readable npz archive")
        version = self._field("format_version")
        self.require(
            version.size == 1 and version.item() == _FORMAT_VERSION,
            f"its format version must be {_FORMAT_VERSION}",
        )

    @staticmethod
    def _open(path: str | os.PathLike[str] | None) -> IO[bytes]:
        if path is None:
            return (files("embedcore") / "data" / "glosses.npz").open("rb")
        return open(path, "rb")

    def _field(self, name: str) -> npt.NDArray[Any]:
        self.require(name in self._fields, f"it has no field {name!r}")
        return self._fields[name]

    def require(self, holds: bool, problem: str) -> None:
        """Raise unless what the format promises holds."""
        if not holds:
            raise OSError(
                f"{self._function}: 'path' must be a sample file of embedcore; "
                f"got {self._name}: {problem}."
            )

    def lines(self, name: str) -> list[str]:
        """Return a list of strings, stored as one UTF-8 blob."""
        blob = self._field(name)
        self.require(blob.dtype == np.uint8, f"{name!r} must hold bytes")
        try:
            return blob.tobytes().decode("utf-8").split("\n")
        except UnicodeDecodeError:
            self.require(False, f"{name!r} must be UTF-8")
            raise

    def indices(self, name: str, length: int, *, below: int) -> npt.NDArray[np.int64]:
        """Return `length` integers in [0, below)."""
        values = self._field(name)
        self.require(
            values.shape == (length,)
            and values.dtype.kind in "iu"
            and bool(np.all((values >= 0) & (values < below))),
            f"{name!r} must hold {length} integers in [0, {below})",
        )
        return values.astype(np.int64)

    def boundaries(self, name: str, values_name: str) -> npt.NDArray[np.int64]:
        """Return the row boundaries of a ragged list of strings."""
        n_values = len(self.lines(values_name))
        bounds = self.indices(name, self._field(name).size, below=n_values + 1)
        self.require(
            bounds.size > 0
            and bounds[0] == 0
            and bounds[-1] == n_values
            and bool(np.all(np.diff(bounds) > 0)),
            f"{name!r} must rise from 0 to {n_values}",
        )
        return bounds

    def fixed_point(self, name: str, n_rows: int, step_name: str) -> npt.NDArray[np.float64]:
        """Return an (n_rows, d) array, stored as planes of low and of high bytes."""
        planes, step = self._field(name), self._field(step_name)
        self.require(
            planes.dtype == np.uint8 and planes.ndim == 3 and planes.shape[:2] == (2, n_rows),
            f"{name!r} must have shape (2, {n_rows}, d) and dtype uint8",
        )
        self.require(
            step.shape == () and step.dtype == np.float64 and bool(0 < step < np.inf),
            f"{step_name!r} must be a positive number",
        )
        fixed = planes[0] | planes[1].astype(np.uint16) << 8
        values: npt.NDArray[np.float64] = fixed.view(np.int16) * step.astype(np.float64)
        return values

    def states(self, n_tokens: int) -> npt.NDArray[Any]:
        """Return the hidden states (n_tokens, d), in fixed point or scaled row by row."""
        if "token_codes" not in self._fields:
            return self.fixed_point("token_states", n_tokens, "token_state_step")
        codes, scales = self._field("token_codes"), self._field("token_scales")
        self.require(
            codes.dtype == np.int8 and codes.ndim == 2 and len(codes) == n_tokens,
            f"'token_codes' must have shape ({n_tokens}, d) and dtype int8",
        )
        self.require(
            scales.shape == (n_tokens,)
            and scales.dtype == np.float32
            and bool(np.all((scales >= 0) & (scales < np.inf))),
            f"'token_scales' must hold {n_tokens} finite numbers, none negative",
        )
        values: npt.NDArray[Any] = codes * scales[:, None]
        return values

    def unit_vectors(self, name: str, n_rows: int) -> npt.NDArray[np.float32]:
        """Return an (n_rows, d) array of rows of unit length."""
        values = self.fixed_point(name, n_rows, "vector_step")
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        self.require(bool(np.all(norms > 0)), f"{name!r} must have no zero row")
        unit: npt.NDArray[np.float32] = (values / norms).astype(np.float32)
        return unit


def _split(values: Sequence[str], bounds: npt.NDArray[np.int64]) -> list[tuple[str, ...]]:
    """Cut a flat list of strings into rows."""
    ends = bounds.tolist()
    return [tuple(values[a:b]) for a, b in pairwise(ends)]
