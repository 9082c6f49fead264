# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from typing import Any

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
    grad_key: object,
    grad_value: object,
    grad_query: object,
    grad_temperature: object,
    grad_bias: object,
    grad_mask: object,
    accumulate: bool,
    /,
) -> None: ...
