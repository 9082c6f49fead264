# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

version: str
build_info: str

def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def num_threads_source() -> str: ...
def get_isa() -> str: ...
def set_isa(where: str, name: str) -> None: ...
def list_isas() -> tuple[str, ...]: ...
def _describe(array: object, where: str, name: str) -> dict[str, Any]: ...
def _describe_indices(array: object, where: str, name: str) -> list[int]: ...
def _output_like(like: object, out: object, where: str, dtype: str) -> Any: ...
def _touch(array: object) -> None: ...
def depth_score(
    where: str,
    x: object,
    corpus: object,
    metric: int,
    precision: int,
    weights: object,
    labels: object,
    groups: int,
    directions: object,
    threads: int,
    raw_sums: bool,
    out: object,
    progress: Callable[[float], object] | None,
    /,
) -> Any: ...
def depth_check(where: str, x: object, corpus: object, weights: object, /) -> None: ...
def depth_write(where: str, x: object, depths: object, out: object, /) -> Any: ...
def depth_direction_sums(
    where: str,
    corpus: object,
    weights: object,
    labels: object,
    groups: int,
    threads: int,
    sums: object,
    totals: object,
    progress: Callable[[float], object] | None,
    /,
) -> None: ...
def depth_cosine_sums(
    where: str,
    x: object,
    sums: object,
    threads: int,
    progress: Callable[[float], object] | None,
    /,
) -> Any: ...
def attention_forward(
    where: str,
    key: object,
    value: object,
    query: object,
    offsets: object,
    lengths: object,
    mask: object,
    bias: object,
    temperature: object,
    activation: int,
    norm: int,
    threads: int,
    out: object,
    lse: object,
    scores: object,
    weights: object,
    wide: object = ...,
    /,
) -> None: ...
def attention_backward(
    where: str,
    key: object,
    value: object,
    query: object,
    offsets: object,
    lengths: object,
    mask: object,
    bias: object,
    temperature: object,
    activation: int,
    norm: int,
    threads: int,
    grad_out: object,
    out: object,
    lse: object,
    scores: object,
    grad_lse: object,
    grad_weights: object,
    grad_key: object,
    grad_value: object,
    grad_query: object,
    grad_temperature: object,
    grad_bias: object,
    grad_mask: object,
    accumulate: bool,
    /,
) -> None: ...

_Int32s = NDArray[np.int32]
_Int64s = NDArray[np.int64]
_UInt64s = NDArray[np.uint64]
_Floats = NDArray[np.float32]
_Parts = dict[str, NDArray[Any]]
_Monitor = Callable[[float], object] | None

class _Pybind11Type(type): ...

class AnnFilters(metaclass=_Pybind11Type):
    def __init__(self, *args: NoReturn, **kwargs: NoReturn) -> None: ...  # it has none
    def __len__(self) -> int: ...
    @property
    def rows(self) -> int: ...
    def counts(self) -> _Int64s: ...
    def mask(self, i: int) -> NDArray[np.bool_]: ...
    def slots(self, i: int) -> _Int64s: ...
    @staticmethod
    def from_masks(masks: list[NDArray[np.bool_]], live: _UInt64s | None) -> AnnFilters: ...
    @staticmethod
    def from_slots(slots: list[_Int64s], rows: int, live: _UInt64s | None) -> AnnFilters: ...
    @staticmethod
    def concatenate(parts: list[AnnFilters]) -> AnnFilters: ...

class AnnTable(metaclass=_Pybind11Type):
    def __init__(self) -> None: ...
    @property
    def rows(self) -> int: ...
    def append(self, rows: int, columns: dict[str, tuple[Any, ...]]) -> AnnTable: ...
    def update(self, slots: _Int64s, columns: dict[str, tuple[Any, ...]]) -> AnnTable: ...
    def take(self, order: _Int64s) -> AnnTable: ...
    def evaluate(
        self, programs: list[bytes], live: _UInt64s | None, threads: int
    ) -> AnnFilters: ...
    def steps(self, programs: list[bytes]) -> tuple[_Int64s, _Int64s, _Int64s]: ...
    def schema(self) -> list[tuple[str, str, int]]: ...
    def values(self, name: str, slots: _Int64s) -> tuple[Any, ...]: ...
    def nbytes(self) -> dict[str, int]: ...
    def parts(self) -> _Parts: ...
    @staticmethod
    def from_parts(parts: _Parts, owner: object) -> AnnTable: ...

class AnnVectors(metaclass=_Pybind11Type):
    def __init__(self, dim: int, metric: str, dtype: str) -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def live(self) -> int: ...
    @property
    def graph_rows(self) -> int: ...
    @property
    def trained_rows(self) -> int: ...
    @property
    def calibrated_rows(self) -> int: ...
    @property
    def trained(self) -> bool: ...
    @property
    def raw_dropped(self) -> bool: ...
    @property
    def dim(self) -> int: ...
    @property
    def metric(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    def append(self, rows: NDArray[Any], threads: int) -> AnnVectors: ...
    def delete(self, slots: _Int64s) -> AnnVectors: ...
    def build(
        self,
        basis: _Floats | None,
        mean: _Floats | None,
        head_bytes: int,
        threads: int,
        seed: int,
        progress: _Monitor,
        steps: object = ...,
    ) -> tuple[AnnVectors, _Int64s]: ...
    def merge(self, threads: int, progress: _Monitor = ...) -> AnnVectors: ...
    def calibrate(self, queries: _Floats | None, threads: int) -> AnnVectors: ...
    def drop_raw(self) -> AnnVectors: ...
    def search(
        self,
        queries: _Floats,
        k: int,
        filters: AnnFilters | None,
        which: _Int32s | None,
        recall: float,
        effort: int,
        exact: bool,
        threads: int,
        slots: _Int64s,
        distances: _Floats,
        counts: _Int64s,
    ) -> None: ...
    def explain(
        self,
        queries: _Floats,
        k: int,
        filters: AnnFilters | None,
        which: _Int32s | None,
        recall: float,
        effort: int,
        exact: bool,
        threads: int,
    ) -> list[dict[str, Any]]: ...
    def live_bits(self) -> _UInt64s | None: ...
    def vectors(self, slots: _Int64s) -> NDArray[Any]: ...
    def nbytes(self) -> dict[str, int]: ...
    def parts(self) -> _Parts: ...
    @staticmethod
    def from_parts(parts: _Parts) -> AnnVectors: ...
