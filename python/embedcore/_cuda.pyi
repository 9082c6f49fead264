# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable

_Matrix = tuple[int, int, int, int, int]  # address, rows, columns, elements between rows, dtype
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
    weights: int,
    depths: int,
    allocate: Callable[[int], int],
    /,
) -> None: ...
