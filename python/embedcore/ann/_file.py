# SPDX-License-Identifier: Apache-2.0
"""Arrays in one file or in one bytes object: checked before use, and replaced whole or not at all.

Layout, little-endian: a head of 48 bytes (magic, version, CRC-32 of the index, offset and length of
the index, length of the file, 0), the sections, each an array of one axis at a multiple of 64
bytes, and the index as JSON, which ends the file and says where each section is, of what dtype and
shape, and what its CRC-32 is. Nothing in a file is ever executed.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import secrets
import stat
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

_MAGIC = b"EMBEDANN"
_VERSION = 1
_HEAD = struct.Struct("<8sIIQQQQ")
_ALIGNMENT = 64
_LARGEST_INDEX = 64 << 20
_STEP = 16 << 20  # bytes that are summed and written at a time
_DTYPES = ("uint8", "uint32", "uint64", "int8", "int32", "int64", "float32", "float64")


def path_of(where: str, path: Any) -> Path:
    """Return `path` as a Path; TypeError for anything else than a str or a path."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{where}: 'path' must be a path; got {type(path).__name__}.")
    if "\0" in str(path):
        raise ValueError(f"{where}: 'path' must not hold a NUL character; got {str(path)!r}.")
    return Path(path)


def save(where: str, path: Path, fields: Mapping[str, Any], arrays: Arrays) -> None:
    """Write a file, which appears under its name when all of it is on disk.

    An error, a full disk or a killed process leaves what was there.
    """
    if not path.name:
        text = f"{where}: 'path' must be a file that can be written; {os.strerror(errno.EISDIR)}"
        raise IsADirectoryError(errno.EISDIR, text, str(path))
    target = os.path.realpath(path)  # what a link points to is replaced, not the link
    # Shortened, so that names as long as the system allows can be used.
    unfinished = Path(target).with_name(f".{path.name[:32]}.{secrets.token_hex(6)}.tmp")
    try:
        with open(unfinished, "xb") as file:
            _write(file, fields, arrays)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            unfinished.chmod(stat.S_IMODE(os.stat(target).st_mode))
        os.replace(unfinished, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        if not isinstance(error, OSError):
            raise
        text = f"{where}: 'path' must be a file that can be written; {error.strerror}"
        raise OSError(error.errno, text, str(path)) from None
    if os.name == "posix":
        folder = os.open(unfinished.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def to_bytes(fields: Mapping[str, Any], arrays: Arrays) -> bytes:
    """Return what `save` would write."""
    file = io.BytesIO()
    _write(file, fields, arrays)
    return file.getvalue()


def _write(file: IO[bytes], fields: Mapping[str, Any], arrays: Arrays) -> None:
    file.write(bytes(_HEAD.size))
    at = _HEAD.size
    sections: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        gap = -at % _ALIGNMENT
        file.write(bytes(gap))
        at += gap
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        crc = 0
        for start in range(0, len(data), _STEP):
            part = data[start : start + _STEP].data
            crc = zlib.crc32(part, crc)
            file.write(part)
        entry = {"dtype": array.dtype.name, "shape": list(array.shape), "offset": at, "crc": crc}
        sections[name] = entry
        at += len(data)
    index = json.dumps({**fields, "sections": sections}).encode("ascii")
    file.write(index)
    file.seek(0)
    head = (_MAGIC, _VERSION, zlib.crc32(index), at, len(index), at + len(index), 0)
    file.write(_HEAD.pack(*head))


class Sections:
    """What `save` wrote; anything else raises OSError that says what is wrong.

    Parameters
    ----------
    where, source : str
        The function that is called and the name of the file, for errors.
    data : array of uint8
        All bytes of the file, in memory or mapped. Arrays are views of it.
    verify : bool
        Whether to check the checksums of the sections; that of the index always is.
    """

    def __init__(self, where: str, source: str, data: NDArray[np.uint8], *, verify: bool) -> None:
        self._where, self._source, self.data = where, source, data
        self.fields = self._index()
        sections = self.fields.pop("sections", None)
        self.require(isinstance(sections, dict), "has no list of sections")
        self._arrays = {name: self._section(name, entry) for name, entry in sections.items()}
        if verify:
            for name, array in self._arrays.items():
                content = array.reshape(-1).view(np.uint8)
                intact = zlib.crc32(content.data) == sections[name]["crc"]
                self.require(intact, f"has a damaged section {name!r}")

    def require(self, holds: bool, problem: str) -> None:
        """Raise OSError with `problem` unless `holds`."""
        if not holds:
            raise OSError(
                f"{self._where}: {self._source} must be an undamaged index that embedcore saved; "
                f"it {problem}."
            )

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the arrays whose names start with `prefix`, without it."""
        return {
            name.removeprefix(prefix): array
            for name, array in self._arrays.items()
            if name.startswith(prefix)
        }

    def array(self, name: str, dtype: type, rows: int) -> NDArray[Any]:
        """Return an array of one axis."""
        array = self._arrays.get(name)
        self.require(array is not None, f"has no section {name!r}")
        assert array is not None
        as_said = array.dtype == dtype and array.shape == (rows,)
        self.require(as_said, f"holds {name!r} as {array.dtype} of shape {array.shape}")
        return array

    def integer(self, name: str, largest: int = (1 << 63) - 1) -> int:
        """Return a field that is an integer from 0 to `largest`."""
        value = self.fields.get(name)
        good = type(value) is int and 0 <= value <= largest
        self.require(good, f"has {name} {value!r}")
        assert isinstance(value, int)
        return value

    def _index(self) -> dict[str, Any]:
        size = len(self.data)
        head = self.data[: _HEAD.size].tobytes()
        self.require(head[:8] == _MAGIC, "is no such file")
        self.require(len(head) == _HEAD.size, "is truncated")
        _, version, crc, at, length, whole, _ = _HEAD.unpack(head)
        self.require(
            version == _VERSION, f"has format version {version}, this release reads {_VERSION}"
        )
        fits = _HEAD.size <= at and length <= _LARGEST_INDEX and at + length == whole
        self.require(fits, "has a damaged head")
        self.require(whole == size, f"has {size} bytes and should have {whole}")
        data = self.data[at:whole].tobytes()
        self.require(zlib.crc32(data) == crc, "has a damaged index")
        try:
            fields = json.loads(data)
        except (ValueError, RecursionError):
            fields = None
        self.require(isinstance(fields, dict), "has an index that is not JSON")
        self._end = at
        return fields  # type: ignore[no-any-return]

    def _section(self, name: str, entry: Any) -> NDArray[Any]:
        self.require(
            isinstance(entry, dict)
            and isinstance(entry.get("dtype"), str)
            and entry["dtype"] in _DTYPES
            and isinstance(entry.get("shape"), list)
            and len(entry["shape"]) == 1
            and all(type(n) is int and 0 <= n < 1 << 48 for n in entry["shape"])
            and all(type(entry.get(key)) is int for key in ("offset", "crc")),
            f"describes the section {name!r} in a way that cannot be",
        )
        dtype = np.dtype(entry["dtype"]).newbyteorder("<")
        start = entry["offset"]
        stop = start + dtype.itemsize * entry["shape"][0]
        inside = _HEAD.size <= start and start % _ALIGNMENT == 0 and stop <= self._end
        self.require(inside, f"has no room for the section {name!r}")
        array: NDArray[Any] = self.data[start:stop].view(dtype)
        return array


def read(where: str, path: Path, *, mapped: bool, verify: bool) -> Sections:
    """Open a file; OSError if it cannot be read or is damaged."""
    try:
        data = _content(path, mapped=mapped)
    except OSError as error:
        text = f"{where}: 'path' must be a file that can be read; {error.strerror}"
        raise OSError(error.errno, text, str(path)) from None
    return Sections(where, f"'path' {str(path)!r}", data, verify=verify)


def _content(path: Path, *, mapped: bool) -> NDArray[np.uint8]:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if mapped and size:
            return np.asarray(np.memmap(file, np.uint8, "r"))
        data = aligned(size)
        count = file.readinto(data.data)
        return data[:count]


def of_bytes(where: str, content: bytes) -> Sections:
    """Read what `to_bytes` returned."""
    data = aligned(len(content))
    data[:] = np.frombuffer(content, np.uint8)
    return Sections(where, "the pickle", data, verify=True)


def aligned(size: int) -> NDArray[np.uint8]:
    """Return uninitialised bytes that start at a multiple of 64, where sections then do too."""
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size]
