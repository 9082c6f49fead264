# SPDX-License-Identifier: Apache-2.0
"""Gradients of depths by the kernels of the GPU, on tensors of the CPU as if on a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import embedcore._device as device_module
import pytest
from embedcore._device_libraries import Layout, Torch

torch = pytest.importorskip("torch")

from embedcore.torch import depth_score  # noqa: E402
from embedcore.torch._depth_device import device_gradients  # noqa: E402

METRICS = ("cosine", "chord", "arc", "l2", "spatial")
# Of float32 products on both sides; see test_torch_depth.py.
TOLERANCE = 4e-5


class _TorchOnEmulation(Torch):
    """Tensors of the CPU, as the emulated device's."""

    def owns(self, array: object) -> bool:
        return isinstance(array, torch.Tensor)

    def layout(self, array: Any) -> Layout:
        dtype = str(array.dtype).removeprefix("torch.")
        return Layout(array.data_ptr(), tuple(array.shape), array.stride(), dtype, 0)

    def device_of(self, array: Any) -> int:
        return 0

    def empty(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        # On a boundary of 256 bytes, as the allocator of a GPU, and of whatever was there before.
        kind = getattr(torch, dtype)
        size = torch.Size(shape).numel() * kind.itemsize
        raw = torch.full((size + 256,), 255, dtype=torch.uint8)
        start = -raw.data_ptr() % 256
        return raw[start : start + size].view(kind).reshape(shape)

    def staged(self, array: Any, device: int) -> Any:
        return torch.from_numpy(array.copy())

    def is_capturing(self, device: int) -> bool:
        return False

    def stream(self, device: int) -> int:
        return 0

    def on(self, device: int) -> AbstractContextManager[Any]:
        return nullcontext()


@pytest.fixture
def emulated(emulated_module: ModuleType) -> Iterator[Any]:
    """Return a context in which tensors of the CPU are on a device."""

    class Emulated:
        def __enter__(self) -> None:
            self.patch = pytest.MonkeyPatch()
            self.patch.setattr(device_module, "_LIBRARIES", [_TorchOnEmulation()])
            self.patch.setattr(device_module, "_kernels", lambda *_: emulated_module)

        def __exit__(self, *_: object) -> None:
            self.patch.undo()

    yield Emulated()


def _rows(count: int, seed: int, dtype: Any) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, 20, generator=generator, dtype=torch.float64) + 0.3).to(dtype)


def _expected(grad: Any, metric: str, *leaves: Any) -> tuple[Any, list[Any]]:
    """Depths and gradients by the CPU."""
    given = [None if leaf is None else leaf.clone().requires_grad_() for leaf in leaves]
    depths = depth_score(given[0], given[1], metric=metric, weights=given[2])
    (depths * grad).sum().backward()
    return depths.detach(), [None if leaf is None else leaf.grad for leaf in given]


@pytest.mark.parametrize("own", [False, True], ids=["corpus", "self"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("metric", METRICS)
def test_gradients_are_those_of_the_cpu(
    emulated: Any, metric: str, dtype: Any, weighted: bool, own: bool
) -> None:
    x, corpus = _rows(70, 0, dtype), None if own else _rows(90, 1, dtype)
    m = len(x if corpus is None else corpus)
    weights = torch.rand(m, dtype=torch.float64) + 0.1 if weighted else None
    grad = torch.linspace(-1, 2, len(x))
    depths, expected = _expected(grad, metric, x, corpus, weights)
    with emulated:
        found = device_gradients(
            grad, depths, x, corpus, weights, metric, (True, not own, weighted)
        )
    for got, right in zip(found, expected, strict=True):
        if right is None:
            assert got is None
            continue
        bound = 8e-3 if right.dtype == torch.bfloat16 else TOLERANCE
        torch.testing.assert_close(got.to(right.dtype), right, rtol=bound, atol=bound)


@pytest.mark.parametrize("metric", METRICS)
def test_near_and_equal_rows(emulated: Any, metric: str) -> None:
    x = _rows(40, 2, torch.float32)
    x[10:20] = x[0]
    x[20:30] = x[1] + 0.01 * x[20:30]
    x[30:35] = -x[2]
    grad = torch.linspace(-1, 2, len(x))
    depths, expected = _expected(grad, metric, x, None, None)
    with emulated:
        found, _, _ = device_gradients(grad, depths, x, None, None, metric, (True, False, False))
    largest = expected[0].abs().max()
    assert (found - expected[0]).abs().max() <= TOLERANCE * largest


@pytest.mark.parametrize("metric", METRICS)
def test_only_what_is_wanted_is_computed(emulated: Any, metric: str) -> None:
    x, corpus = _rows(9, 3, torch.float32), _rows(30, 4, torch.float32)
    weights, grad = torch.rand(30) + 0.1, torch.linspace(-1, 2, 9)
    depths, expected = _expected(grad, metric, x, corpus, weights)
    for place in range(3):
        wanted = (place == 0, place == 1, place == 2)
        with emulated:
            found = device_gradients(grad, depths, x, corpus, weights, metric, wanted)
        assert [got is not None for got in found] == list(wanted)
        torch.testing.assert_close(
            found[place].to(expected[place].dtype), expected[place], rtol=TOLERANCE, atol=TOLERANCE
        )
