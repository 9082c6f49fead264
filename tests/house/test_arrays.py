# SPDX-License-Identifier: Apache-2.0
"""The views: every array kind and dtype is seen with its own values, and bad ones are named."""

from __future__ import annotations

import array as array_module
import gc
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from embedcore import _core
from embedcore._arrays import is_torch, to_kind_of, to_numpy
from support.guard import guarded
from support.kinds import KINDS, Exporter, dtype_of, to_torch

SHAPES = [(0, 3), (3, 0), (1, 1), (1, 5), (5, 1), (4, 7)]


def describe(array: Any) -> dict[str, Any]:
    return _core._describe(array, "depth.score", "x")


def values(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    return np.arange(1, 1 + int(np.prod(shape))).reshape(shape).astype(dtype)


def refused(array: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match="^" + re.escape(f"depth.score: 'x' must {text}") + "$"):
        describe(array)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_kind_and_dtype_is_seen(
    shape: tuple[int, int], dtype_name: str, to_kind: Callable[[Any], Any]
) -> None:
    x = values(shape, dtype_of(dtype_name))
    seen = describe(to_kind(x))
    assert (seen["rows"], seen["columns"], seen["axes"]) == (*shape, 2)
    assert seen["dtype"] == dtype_name
    assert seen["row_bytes"] == [row.tobytes() for row in x]


@pytest.mark.parametrize(
    "kind", ["numpy", "numpy rows apart", "numpy backwards", "torch", "dlpack"]
)
def test_rows_are_seen_in_place(kind: str) -> None:
    x = KINDS[kind](values((4, 6), np.dtype(np.float32)))
    seen = describe(x)
    assert not seen["packed"]
    if isinstance(x, np.ndarray):
        assert seen["data"] == x.ctypes.data
        assert seen["row_stride"] == x.strides[0] // 4
    elif kind == "torch":
        assert seen["data"] == x.data_ptr()


@pytest.mark.parametrize("kind", ["numpy columns apart", "numpy misaligned", "torch transposed"])
def test_what_cannot_be_seen_in_place_is_packed(kind: str) -> None:
    assert describe(KINDS[kind](values((4, 6), np.dtype(np.float32))))["packed"]


def test_views_of_records_are_packed() -> None:
    records = np.zeros(3, dtype=[("flag", "u1"), ("vector", "f4", (5,))])
    records["vector"] = values((3, 5), np.dtype(np.float32))
    seen = describe(records["vector"])
    assert seen["packed"]
    assert seen["row_bytes"] == [row.tobytes() for row in records["vector"]]


def test_strides_of_short_axes_do_not_matter() -> None:
    strided = np.lib.stride_tricks.as_strided
    row = strided(np.ones(4, np.float32), shape=(1, 4), strides=(12345, 4))
    column = strided(np.ones(4, np.float32), shape=(4, 1), strides=(4, 777))
    assert not describe(row)["packed"]
    assert not describe(column)["packed"]


def test_broadcast_rows_have_stride_zero() -> None:
    seen = describe(np.broadcast_to(np.ones(3, np.float32), (4, 3)))
    assert seen["row_stride"] == 0 and not seen["packed"]


def test_vectors() -> None:
    x = values((9,), np.dtype(np.float64))
    for view in (x, x[::2], x[::-1], x[:0], array_module.array("d", x)):
        seen = describe(view)
        assert seen["axes"] == 1 and seen["columns"] == 1
        assert b"".join(seen["row_bytes"]) == np.asarray(view).tobytes()


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "complex64", "complex128", "float128"])
def test_other_dtypes_are_refused(dtype: str) -> None:
    text = f"be float16, bfloat16, float32 or float64; got {dtype}."
    refused(np.ones((2, 3), np.dtype(dtype)), TypeError, text)
    if dtype != "float128":
        refused(to_torch(np.ones((2, 3), np.dtype(dtype))), TypeError, text)


def test_dtypes_that_are_no_numbers_are_refused() -> None:
    refused(np.ones(2, object), TypeError, "have a numeric dtype; got object.")
    refused(np.array(["a"]), TypeError, "have a numeric dtype; got <U1.")
    order = ">f4" if sys.byteorder == "little" else "<f4"
    refused(np.ones(2, order), TypeError, f"be in this machine's byte order; got dtype {order}.")


@pytest.mark.parametrize("value", [[1.0, 2.0], (1.0,), 3.0, None, "text", {}])
def test_what_is_no_array_is_refused(value: object) -> None:
    refused(
        value,
        TypeError,
        "be an array (NumPy, Torch, or another with __dlpack__ or the buffer protocol); got "
        f"{type(value).__name__}. Use numpy.asarray(x).",
    )


def test_masked_arrays_are_refused() -> None:
    refused(
        np.ma.masked_array(np.ones((2, 2)), mask=np.eye(2)),
        TypeError,
        "not be a masked array, because the mask would be ignored; got MaskedArray.",
    )


@pytest.mark.parametrize("shape", [(), (2, 3, 4)], ids=str)
def test_other_numbers_of_axes_are_refused(shape: tuple[int, ...]) -> None:
    text = f"be a 1-D or 2-D array; got shape {shape}."
    refused(np.ones(shape), ValueError, text)
    refused(to_torch(np.ones(shape)), ValueError, text)


class OnDevice(Exporter):
    def __init__(self, device: tuple[int, int]) -> None:
        self._device = device

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device


@pytest.mark.parametrize(
    ("device", "name"), [((2, 0), "cuda:0"), ((13, 3), "cuda:3"), ((8, 0), "metal:0")]
)
def test_other_devices_are_refused(device: tuple[int, int], name: str) -> None:
    text = f"be on the CPU; got device {name}."
    refused(OnDevice(device), TypeError, text)


def test_exporters_that_lie_are_refused() -> None:
    class Liar(OnDevice):
        def __dlpack__(self, **options: Any) -> Any:
            return 3

    text = "have a __dlpack__ method that returns a new DLPack capsule; got int."
    refused(Liar((1, 0)), TypeError, text)


def test_torch_tensors_that_are_no_plain_memory_are_refused() -> None:
    torch = pytest.importorskip("torch")
    refused(
        torch.ones((2, 2), requires_grad=True),
        TypeError,
        "not require grad, because depth.score is not differentiable; got a tensor with "
        "requires_grad=True. Use x.detach().",
    )
    refused(
        torch.ones((2, 2), dtype=torch.cfloat).conj().imag,
        TypeError,
        "hold its values in memory; got a tensor with the negative bit. Use x.resolve_neg().",
    )
    library = re.escape("depth.score: 'x' must be an array that DLPack can describe; its own ")
    for tensor in (torch.ones(2, device="meta"), torch.eye(2).to_sparse()):
        with pytest.raises(TypeError, match=f"^{library}library says: [^\n]*$"):
            describe(tensor)


def test_torch_parameters_and_subclasses_are_seen() -> None:
    torch = pytest.importorskip("torch")
    frozen = torch.nn.Parameter(torch.ones((2, 3)), requires_grad=False)
    assert describe(frozen)["data"] == frozen.data_ptr()
    assert describe(torch.ones((2, 3), requires_grad=True).detach())["rows"] == 2


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "int64", "uint64"])
def test_indices_of_every_width(dtype: str) -> None:
    x = np.arange(9).astype(dtype)
    for view in (x, x[::2], x[::-1], x[:0]):
        assert _core._describe_indices(view, "f", "labels") == view.tolist()
    assert _core._describe_indices(memoryview(x), "f", "labels") == x.tolist()


def test_indices_that_are_refused() -> None:
    cases: list[tuple[Any, type[Exception], str]] = [
        (np.ones(3), TypeError, "must have an integer dtype; got float64."),
        (np.ones(3, bool), TypeError, "must have an integer dtype; got bool."),
        (np.ones((2, 2), int), ValueError, "must be a 1-D array; got shape (2, 2)."),
        (
            np.array([2**63], np.uint64),
            ValueError,
            "must hold values that int64 can hold; got uint64 values above 2**63 - 1.",
        ),
    ]
    for array, kind, text in cases:
        with pytest.raises(kind, match=re.escape(f"f: 'labels' {text}")):
            _core._describe_indices(array, "f", "labels")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3,), (0,), (3, 4), (0, 4)], ids=str)
def test_results_have_the_kind_of_the_input(dtype: str, shape: tuple[int, ...]) -> None:
    x = np.ones(shape, dtype)
    made = _core._output_like(x, None, "f", dtype)
    assert type(made) is np.ndarray and made.shape == shape and made.dtype == dtype
    assert not made.any()
    assert type(_core._output_like(Exporter(x), None, "f", dtype)) is np.ndarray
    tensor = _core._output_like(to_torch(x), None, "f", dtype)
    torch = pytest.importorskip("torch")
    assert type(tensor) is torch.Tensor and tuple(tensor.shape) == shape
    assert tensor.dtype is getattr(torch, dtype) and not tensor.requires_grad
    assert not tensor.any()
    assert tensor.clone().add_(1).shape == tensor.shape


def test_given_outputs_are_written_and_returned() -> None:
    x = np.ones((3, 4), np.float32)
    for out in (np.ones((3, 4), np.float32), to_torch(x), memoryview(x.copy())):
        assert _core._output_like(x, out, "f", "float32") is out
        assert not np.asarray(out).any()


def test_given_outputs_that_are_refused() -> None:
    x = np.ones((3, 4), np.float32)
    read_only = x.copy()
    read_only.flags.writeable = False
    cases: list[tuple[Any, type[Exception], str]] = [
        (np.ones((3, 4)), TypeError, "must be float32; got float64."),
        (np.ones((4, 3), np.float32), ValueError, "must have the shape (3, 4); got shape (4, 3)."),
        (np.ones(12, np.float32), ValueError, "must have the shape (3, 4); got shape (12,)."),
        (
            np.ones((4, 3), np.float32).T,
            ValueError,
            "must be C-contiguous and aligned; got a strided or misaligned array.",
        ),
        (read_only, ValueError, "must be writable; got a read-only array."),
        (Exporter(read_only), ValueError, "must be writable; got a read-only array."),
    ]
    for out, kind, text in cases:
        with pytest.raises(kind, match=re.escape(f"f: 'out' {text}")):
            _core._output_like(x, out, "f", "float32")


@pytest.mark.parametrize("kind", list(KINDS))
def test_producers_are_released(kind: str) -> None:
    x = KINDS[kind](np.ones((3, 5), np.float32))
    before = sys.getrefcount(x)
    for _ in range(10_000):
        _core._touch(x)
    assert sys.getrefcount(x) == before
    bad = KINDS[kind](np.ones((3, 5), np.float64))
    before = sys.getrefcount(bad)
    for _ in range(100):
        with pytest.raises(TypeError):
            _core._describe_indices(bad, "f", "x")
    gc.collect()
    assert sys.getrefcount(bad) == before


def test_outputs_are_freed() -> None:
    resource = pytest.importorskip("resource")
    for x in (np.ones(1 << 18, np.float32), to_torch(np.ones(1 << 18, np.float32))):
        for _ in range(20):
            _core._output_like(x, None, "f", "float32")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(1000):  # 1 GiB if they stayed; a sanitizer keeps 256 MiB for a while
            _core._output_like(x, None, "f", "float32")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_guarded_memory_ends_at_an_unreadable_page() -> None:
    x = guarded(np.arange(5, dtype=np.float32))
    assert (x.ctypes.data + x.nbytes) % 4096 == 0
    assert x.tolist() == [0, 1, 2, 3, 4]


def test_to_numpy_shares_memory(to_kind: Callable[[Any], Any]) -> None:
    x = values((3, 4), np.dtype(np.float32))
    seen = to_numpy(to_kind(x))
    np.testing.assert_array_equal(seen, x)


def test_to_numpy_of_other_things() -> None:
    assert to_numpy(["a", "b"]).tolist() == ["a", "b"]
    x = np.arange(4.0)
    assert to_numpy(x) is x
    torch = pytest.importorskip("torch")
    widened = to_numpy(torch.ones(3, dtype=torch.bfloat16))
    assert widened.dtype == np.float32 and widened.tolist() == [1, 1, 1]
    tensor = torch.ones(3)
    assert to_numpy(tensor).ctypes.data == tensor.data_ptr()
    with pytest.raises(TypeError, match=re.escape("f: 'x' must not require grad, because f is")):
        to_numpy(torch.ones(3, requires_grad=True), "f", "x")
    with pytest.raises(TypeError, match=re.escape("f: 'x' must be on the CPU")):
        to_numpy(OnDevice((2, 0)), "f", "x")


def test_results_go_back_to_the_kind_of_the_input() -> None:
    result = np.arange(3)
    assert to_kind_of(np.ones(2), result) is result
    tensor = to_torch(np.ones(2))
    assert is_torch(tensor) and not is_torch(result)
    back = to_kind_of(tensor, result)
    assert is_torch(back) and back.tolist() == [0, 1, 2]
