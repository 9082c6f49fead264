# SPDX-License-Identifier: Apache-2.0
"""Arguments of the NumPy functions: any array kind to NumPy, the two layouts of tokens, options."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._arrays import to_numpy
from .._check import choose, integer
from ._kinds import check_floating, is_floating, is_integer

__all__ = [
    "ACTIVATIONS",
    "NORMS",
    "Tokens",
    "as_array",
    "as_floating",
    "as_integers",
    "as_torch_or_numpy",
    "check_one_kind",
    "has_torch",
    "option_code",
    "read_tokens",
    "real_dtype",
    "thread_count",
]

# Names and the numbers that the native side gives them.
ACTIVATIONS: Mapping[str | None, int] = {None: 0, "tanh": 1}
NORMS: Mapping[str | None, int] = {None: 0, "l2": 1}


class Tokens(NamedTuple):
    """B sequences in one of the two layouts, with what says which tokens are valid."""

    key: NDArray[Any]  # (B, L, d), or (T, d) with offsets
    offsets: NDArray[Any] | None  # (B + 1,)
    lengths: NDArray[Any] | None  # (B,)
    mask: NDArray[Any] | None  # (B, L) or (T,); boolean, float32 or float64
    sequences: int  # B
    length: int  # of the token axis: L or T

    def token_shape(self) -> tuple[int, ...]:
        return self.key.shape[:-1]

    def weights_shape(self, heads: int) -> tuple[int, ...]:
        if self.offsets is None:
            return (self.sequences, heads, self.length)
        return (heads, self.length)


def has_torch(*arrays: object) -> bool:
    """Tell whether one of them is a Torch tensor, without importing Torch."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    tensor = torch.Tensor
    for array in arrays:  # noqa: SIM110  small calls notice what any() costs
        if array is not None and isinstance(array, tensor):
            return True
    return False


def option_code(where: str, argument: str, value: object, codes: Mapping[str | None, int]) -> int:
    """Return the number of an option, whose names exclude None."""
    if value is None:
        return codes[None]
    if isinstance(value, str) and value in codes:
        return codes[value]
    return codes[choose(where, argument, value, [name for name in codes if name is not None])]


def thread_count(where: str, threads: int | None) -> int:
    """Return the number of threads, 0 for the default."""
    return 0 if threads is None else integer(where, "threads", threads, minimum=1, maximum=1024)


def real_dtype(key: NDArray[Any]) -> type[np.float32] | type[np.float64]:
    """Return the dtype of numbers about the scores of `key`."""
    return np.float64 if key.dtype.char == "d" else np.float32


def as_array(where: str, argument: str, array: Any) -> NDArray[Any]:
    """Return a NumPy array over the same memory."""
    if type(array) is np.ndarray and array.dtype.isnative:
        return array
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{where}: '{argument}' must not be a masked array, because the mask would be ignored; "
            "got MaskedArray."
        )
    if not hasattr(array, "__dlpack__"):
        try:
            memoryview(array)
        except TypeError:
            raise TypeError(
                f"{where}: '{argument}' must be an array (NumPy, Torch, or another with "
                f"__dlpack__ or the buffer protocol); got {type(array).__name__}. "
                f"Use numpy.asarray({argument})."
            ) from None
    try:
        found = to_numpy(array, where, argument)
    except (BufferError, RuntimeError) as error:
        raise TypeError(
            f"{where}: '{argument}' must be an array that NumPy can read; "
            f"got {type(array).__name__}, of which NumPy says: {error}"
        ) from error
    if not found.dtype.isnative:
        raise TypeError(
            f"{where}: '{argument}' must be in this machine's byte order; got dtype {found.dtype}. "
            f"Use {argument}.astype({argument}.dtype.newbyteorder('='))."
        )
    return found


def as_floating(where: str, argument: str, array: Any) -> NDArray[Any]:
    """Return `as_array` of an array that must be floating."""
    found = as_array(where, argument, array)
    check_floating(where, argument, found)
    return found


def as_torch_or_numpy(where: str, argument: str, array: Any) -> Any:
    """Return a floating Torch tensor as it is, an array of another kind as `as_floating` does."""
    if not has_torch(array):
        return as_floating(where, argument, array)
    check_floating(where, argument, array)
    return array


def check_one_kind(where: str, what: str, *arrays: Any) -> None:
    """Refuse Torch tensors beside arrays of other kinds; None goes with both."""
    if has_torch(*arrays) and not all(array is None or has_torch(array) for array in arrays):
        raise TypeError(f"{where}: {what} must be of one kind; got Torch tensors and others.")


def read_tokens(
    where: str, argument: str, key: Any, mask: Any, lengths: Any, cu_seqlens: Any
) -> Tokens:
    """Return the tokens of a call, and what limits them, with shapes and dtypes that fit.

    `argument` is what the public function calls `key`. Values (lengths up to L, offsets that rise)
    are checked by the kernel.
    """
    key = as_floating(where, argument, key)
    offsets = None
    if cu_seqlens is None:
        if key.ndim != 3:
            hint = " Give 'cu_seqlens' with tokens of shape (T, d)." if key.ndim == 2 else ""
            raise ValueError(
                f"{where}: '{argument}' must be a 3-D array of shape (sequences, tokens, columns); "
                f"got shape {key.shape}.{hint}"
            )
        sequences = key.shape[0]
    else:
        if lengths is not None:
            raise ValueError(
                f"{where}: 'lengths' must not be given together with 'cu_seqlens', which has the "
                "lengths already; got both."
            )
        if key.ndim != 2:
            raise ValueError(
                f"{where}: '{argument}' must be a 2-D array of shape (tokens, columns) with "
                f"'cu_seqlens'; got shape {key.shape}."
            )
        offsets = as_integers(where, "cu_seqlens", cu_seqlens)
        if offsets.ndim != 1 or len(offsets) == 0:
            raise ValueError(
                f"{where}: 'cu_seqlens' must have shape (sequences + 1,); "
                f"got shape {offsets.shape}."
            )
        sequences = len(offsets) - 1
    if lengths is not None:
        lengths = as_integers(where, "lengths", lengths)
        _check_shape(where, "lengths", lengths, (sequences,), "one value for each sequence")
    if mask is not None:
        mask = _mask(where, mask)
        _check_shape(
            where, "mask", mask, key.shape[:-1], f"one value for each token of '{argument}'"
        )
    return Tokens(key, offsets, lengths, mask, sequences, key.shape[-2])


def _check_shape(
    where: str, argument: str, array: NDArray[Any], shape: tuple[int, ...], what: str
) -> None:
    if array.shape != shape:
        raise ValueError(
            f"{where}: '{argument}' must have {what} {shape}; got shape {array.shape}."
        )


def as_integers(where: str, argument: str, array: Any) -> NDArray[Any]:
    """Return an array of int32 or int64; lists are taken too."""
    if isinstance(array, (list, tuple)):
        array = np.asarray(array, None if array else np.int64)
    found = as_array(where, argument, array)
    if found.dtype.kind == "i" and found.dtype.itemsize >= 4:
        return found
    if not is_integer(found):
        raise TypeError(f"{where}: '{argument}' must have an integer dtype; got {found.dtype}.")
    return found.astype(np.int64)


def _mask(where: str, mask: Any) -> NDArray[Any]:
    found = as_array(where, "mask", mask)
    if found.dtype.char in "?fd":
        return found
    if is_floating(found):
        return found.astype(np.float32)
    hint = " Use mask != 0." if found.dtype.kind in "iu" else ""
    raise TypeError(
        f"{where}: 'mask' must be boolean (true where a token counts) or floating-point (added to "
        f"the scores); got {found.dtype}.{hint}"
    )
