# SPDX-License-Identifier: Apache-2.0
"""Arrays in one file: written whole or not at all, read with every length and offset checked.

Layout, little-endian: a head of 40 bytes (magic, version, CRC-32 of the index, offset and length of
the index), the arrays, each at a multiple of 64 bytes, and the index as JSON, which ends the file.
Arrays lie uncompressed, so that they can be memory-mapped. Nothing in a file is ever executed.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"EMBEDCOR"
_HEAD = struct.Struct("<8sIIQQQ")  # the last is reserved, 0
_VERSION = 1
_ALIGNMENT = 64
_LARGEST_INDEX = 64 << 20
_DTYPES = {"float16": "<f2", "bfloat16": "bfloat16", "float32": "<f4", "float64": "<f8"}


def path_of(where: str, path: Any) -> Path:
    """Return `path` as a Path; TypeError for anything else than a str or a path."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{where}: 'path' must be a path; got {type(path).__name__}.")
    return Path(path)


def save(
    path: Path, fields: Mapping[str, Any], arrays: Mapping[str, Sequence[NDArray[Any]]]
) -> None:
    """Write `fields` (JSON) and arrays, each given in parts along its first axis.

    The file appears under its name when all of it is on disk; an error leaves what was there.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(unfinished, "xb") as file:
            _write(file, fields, arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write(
    file: IO[bytes], fields: Mapping[str, Any], arrays: Mapping[str, Sequence[NDArray[Any]]]
) -> None:
    file.write(bytes(_HEAD.size))
    entries: dict[str, dict[str, Any]] = {}
    for name, parts in arrays.items():
        file.write(bytes(-file.tell() % _ALIGNMENT))
        shape = [sum(len(part) for part in parts), *parts[0].shape[1:]]
        entry: dict[str, Any] = {"dtype": parts[0].dtype.name, "shape": shape}
        entry |= {"offset": file.tell(), "crc": 0}
        for part in parts:
            step = max(1, (16 << 20) // max(1, part[:1].nbytes))
            for start in range(0, len(part), step):
                data = np.ascontiguousarray(part[start : start + step]).view(np.uint8).data
                entry["crc"] = zlib.crc32(data, entry["crc"])
                file.write(data)
        entries[name] = entry
    at = file.tell()
    index = json.dumps({**fields, "arrays": entries}).encode("ascii")
    file.write(index)
    file.seek(0)
    file.write(_HEAD.pack(_MAGIC, _VERSION, zlib.crc32(index), at, len(index), 0))


class SavedArrays:
    """A file that `save` wrote; anything else raises OSError that says what is wrong."""

    def __init__(self, where: str, path: Path, *, mapped: bool) -> None:
        self._where, self._path, self._mapped = where, path, mapped
        with open(path, "rb") as file:
            self.fields, self._entries = self._read_index(file)
            self._arrays = {name: self._read(file, name) for name in self._entries}

    def require(self, holds: bool, problem: str) -> None:
        """Raise OSError with `problem` unless `holds`."""
        if not holds:
            raise OSError(
                f"{self._where}: 'path' must be an undamaged file that embedcore saved; "
                f"{str(self._path)!r} {problem}."
            )

    def names(self) -> list[str]:
        """Return the names of the arrays in the order of saving."""
        return list(self._arrays)

    def array(self, name: str, axes: int) -> NDArray[Any]:
        """Return an array with that number of axes, none of them empty."""
        self.require(name in self._arrays, f"has no array {name!r}")
        array = self._arrays[name]
        self.require(array.ndim == axes, f"holds {name!r} in the shape {array.shape}")
        return array

    def numbers(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Return a finite float64 array of that shape."""
        array = self.array(name, len(shape))
        self.require(array.shape == shape, f"holds {name!r} in the shape {array.shape}")
        self.require(array.dtype == np.float64, f"holds {name!r} as {array.dtype}")
        self.require(bool(np.isfinite(array).all()), f"holds {name!r} that is not finite")
        return array

    def _read_index(self, file: IO[bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
        size = os.fstat(file.fileno()).st_size
        head = file.read(_HEAD.size)
        self.require(head[:8] == _MAGIC, "is not such a file")
        self.require(len(head) == _HEAD.size, "is truncated")
        _, version, crc, at, length, _ = _HEAD.unpack(head)
        self.require(
            version == _VERSION, f"has format version {version}, this release reads {_VERSION}"
        )
        self.require(_HEAD.size <= at and length <= _LARGEST_INDEX, "has a damaged head")
        self.require(at + length == size, f"has {size} bytes and should have {at + length}")
        file.seek(at)
        data = file.read(length)
        self.require(zlib.crc32(data) == crc, "has a damaged index")
        try:
            fields = json.loads(data)
        except (ValueError, RecursionError):
            fields = None
        self.require(isinstance(fields, dict), "has an index that is not JSON")
        entries = fields.pop("arrays", None)
        self.require(isinstance(entries, dict), "has no list of arrays")
        for name, entry in entries.items():
            self._check_entry(name, entry, at)
        return fields, entries

    def _check_entry(self, name: str, entry: Any, end: int) -> None:
        self.require(
            isinstance(entry, dict)
            and entry.get("dtype") in tuple(_DTYPES)
            and isinstance(entry.get("shape"), list)
            and 1 <= len(entry["shape"]) <= 2
            and all(type(n) is int and 1 <= n < 1 << 48 for n in entry["shape"])
            and all(type(entry.get(key)) is int for key in ("offset", "crc")),
            f"describes {name!r} in a way that cannot be",
        )
        width = 2 if entry["dtype"] in ("float16", "bfloat16") else int(entry["dtype"][-2:]) // 8
        stop = entry["offset"] + width * math.prod(entry["shape"])
        inside = entry["offset"] >= _HEAD.size and entry["offset"] % _ALIGNMENT == 0
        self.require(inside and stop <= end, f"has no room for {name!r}")

    def _read(self, file: IO[bytes], name: str) -> NDArray[Any]:
        entry = self._entries[name]
        dtype, shape = self._dtype(entry["dtype"]), tuple(entry["shape"])
        if self._mapped and name.startswith("rows"):
            mapped: NDArray[Any] = np.memmap(
                file, dtype=dtype, mode="r", offset=entry["offset"], shape=shape
            )
            return np.asarray(mapped)
        array = np.empty(shape, dtype)
        file.seek(entry["offset"])
        view = array.reshape(-1).view(np.uint8)
        count = file.readinto(view.data)  # type: ignore[attr-defined]
        self.require(count == view.size, "is truncated")
        self.require(zlib.crc32(view.data) == entry["crc"], f"has damaged {name!r}")
        return array

    def _dtype(self, name: str) -> np.dtype[Any]:
        if name != "bfloat16":
            return np.dtype(_DTYPES[name])
        try:
            import ml_dtypes
        except ImportError as error:
            raise ImportError(
                f"{self._where}: a corpus of bfloat16 rows needs ml_dtypes; install ml_dtypes."
            ) from error
        dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return dtype
