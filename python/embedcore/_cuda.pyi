# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable

_Matrix = tuple[int, int, int, int, int]  # address, rows, columns, elements between rows, dtype
_Vector = tuple[int, int, int]  # address, elements between numbers, dtype
_Array = tuple[int, int, int, int, int]  # address, three strides in elements, dtype
# Shrinkage; address and number of directions; address of sums; that of a covariance, and if found.
_Further = tuple[float, int, int, int, int, bool]
_Place = tuple[int, int]  # device, stream

build_info: str

def device_count(where: str) -> int: ...
def depth_score(
    where: str,
    place: _Place,
    x: _Matrix,
    corpus: _Matrix | None,
    metric: int,
    precision: int,
    weights: _Vector,
    groups: tuple[list[int], int] | None,
    further: _Further,
    depths: int,
    allocate: Callable[[int], int],
    /,
) -> None: ...
def depth_covariance_bytes(
    where: str,
    place: _Place,
    x: _Matrix,
    corpus: _Matrix,
    metric: int,
    weights: _Vector,
    further: _Further,
    /,
) -> int: ...
def depth_direction_sums(
    where: str,
    place: _Place,
    corpus: _Matrix,
    weights: _Vector,
    sums: int,
    allocate: Callable[[int], int],
    /,
) -> None: ...
def depth_check(
    where: str,
    place: _Place,
    x: _Matrix,
    corpus: _Matrix | None,
    metric: int,
    weights: _Vector,
    further: _Further,
    allocate: Callable[[int], int],
    /,
) -> None: ...
def depth_gradient(
    where: str,
    place: _Place,
    x: _Matrix,
    corpus: _Matrix | None,
    metric: int,
    pull: int,
    weights: int,
    gradients: tuple[int, int, int],
    allocate: Callable[[int], int],
    /,
) -> None: ...

class _Pybind11Type(type): ...

class AttentionProblem(metaclass=_Pybind11Type):
    def __init__(
        self,
        sizes: tuple[int, int, int, int, int],
        arrays: list[_Array],
        query_per_sequence: bool,
        limits: list[int],
        keep: tuple[int, int, int],
        temperature: float,
        activation: int,
        norm: int,
        /,
    ) -> None: ...

def attention_forward(
    where: str,
    place: _Place,
    problem: AttentionProblem,
    results: tuple[int, int, int, int, int, int],
    allocate: Callable[[int], int],
    /,
) -> None: ...
def attention_backward(
    where: str,
    place: _Place,
    problem: AttentionProblem,
    grad_out: _Array,
    grad_lse: _Array,
    grad_weights: int,
    saved: tuple[int, int, int, int],
    out_dtype: int,
    gradients: tuple[int, int, int, int, int, int],
    accumulate: bool,
    allocate: Callable[[int], int],
    /,
) -> None: ...

class AnnIndex(metaclass=_Pybind11Type):
    def __init__(
        self,
        metric: int,
        number: int,
        sizes: tuple[int, int, int, int, int],
        arrays: tuple[int, int, int, int, int, int, int, int, int, int],
        /,
    ) -> None: ...

def ann_encode(where: str, place: _Place, index: AnnIndex, /) -> None: ...
def ann_filter_words(rows: int, /) -> int: ...
def ann_evaluate(
    where: str,
    place: _Place,
    arrays: tuple[int, int, int, int, int],
    programs: int,
    rows: int,
    bits: int,
    /,
) -> None: ...
def ann_mark_mask(
    where: str,
    place: _Place,
    mask: tuple[int, int],
    order: tuple[int, int],
    rows: int,
    bits: int,
    /,
) -> None: ...
def ann_mark_ids(
    where: str,
    place: _Place,
    ids: tuple[int, int],
    known: tuple[int, int, int],
    rows: int,
    bits: int,
    /,
) -> None: ...
def ann_gather(
    where: str, place: _Place, sources: tuple[int, int], rows: int, bits: int, /
) -> None: ...
def ann_list(
    where: str,
    place: _Place,
    bits: tuple[int, int],
    rows: int,
    slots: tuple[int, int],
    counts: int,
    allocate: Callable[[int], int],
    /,
) -> None: ...
def ann_search(
    where: str,
    place: _Place,
    index: AnnIndex,
    queries: _Matrix,
    k: int,
    exact: bool,
    positions: tuple[int, int, int, int, int, int],
    lists: tuple[int, int, int, int, int, int, int],
    graph: tuple[int, int, int, int, int, tuple[int, int, int, int]],
    results: tuple[int, int, int, int],
    allocate: Callable[[int], int],
    /,
) -> None: ...
def ann_list_near(
    where: str,
    place: _Place,
    cells: tuple[tuple[int, int, int, int], int, int],
    slots: tuple[int, int, int],
    wanted: int,
    lists: tuple[int, int, int],
    /,
) -> None: ...
def ann_choose_links(
    where: str,
    place: _Place,
    index: AnnIndex,
    candidates: tuple[int, int, tuple[int, int], tuple[tuple[int, int, int, int], int, int], int],
    seed: int,
    degree: int,
    least: int,
    links: int,
    /,
) -> None: ...
def ann_make_byte_codes(
    where: str,
    place: _Place,
    rows: tuple[int, int, int, int, int, int],
    codes: tuple[int, int, int, tuple[int, int, int, int]],
    allocate: Callable[[int], int],
    /,
) -> None: ...
def ann_group(
    where: str,
    place: _Place,
    heads: tuple[int, int, int],
    drawn: tuple[int, int],
    sample: tuple[int, int],
    moves: int,
    slots: tuple[int, int],
    cell_of: int,
    allocate: Callable[[int], int],
    /,
) -> None: ...
def ann_cell_means(
    where: str,
    place: _Place,
    heads: tuple[int, int, int],
    cell_of: tuple[int, int],
    means: tuple[int, int],
    /,
) -> None: ...
