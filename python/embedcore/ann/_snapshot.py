# SPDX-License-Identifier: Apache-2.0
"""An index as fields and arrays of a file, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ._file import Sections
from ._ids import LARGEST_ID, Ids
from ._state import Options, State
from ._vectors import DTYPES, METRICS

KIND = "ann.Index"


def to_sections(state: State) -> tuple[dict[str, Any], Mapping[str, NDArray[Any]]]:
    """Return what says all of an index: fields for JSON, and arrays."""
    options = state.options
    fields = {
        "kind": KIND,
        "dim": options.dim,
        "metric": options.metric,
        "dtype": options.dtype,
        "seed": options.seed,
        "keep_vectors": options.keep_vectors,
        "prefixes": list(options.prefixes),
        "rows": state.ids.rows,
        "next_id": state.ids.next_id,
        "next_place": state.ids.next_place,
    }
    arrays = {f"vectors/{name}": array for name, array in state.vectors.parts().items()}
    for part in state.prefixes:
        arrays |= {f"prefix{part.dim}/{name}": array for name, array in part.parts().items()}
    arrays |= {f"attributes/{name}": array for name, array in state.table.parts().items()}
    arrays |= {"ids/external": state.ids.external, "ids/places": state.ids.places}
    return fields, arrays


def from_sections(sections: Sections) -> State:
    """Return the index; OSError where the file contradicts itself."""
    options = _options(sections)
    rows = sections.integer("rows", 1 << 40)
    try:
        vectors = _core.AnnVectors.from_parts(sections.arrays("vectors/"))
        table = _core.AnnTable.from_parts(sections.arrays("attributes/"), sections.data)
        prefixes = tuple(
            _core.AnnVectors.from_parts(sections.arrays(f"prefix{width}/"))
            for width in options.prefixes
        )
    except (TypeError, ValueError) as error:
        sections.require(False, f"holds parts that do not fit: {error}")
        raise  # never reached
    for part, width in zip((vectors, *prefixes), (options.dim, *options.prefixes), strict=True):
        same = (part.dim, part.metric) == (width, options.metric)
        same = same and part.dtype == (options.dtype or "float32")
        sections.require(same, "holds vectors of another index")
        fits = part.rows == table.rows == rows
        sections.require(fits, f"holds {part.rows} vectors and {table.rows} rows of attributes")
        same = np.array_equal(part.live_bits(), vectors.live_bits())  # type: ignore[arg-type]
        sections.require(same, "contradicts itself about rows that were removed")
    return State(options, vectors, table, _ids(sections, rows, vectors), prefixes)


def _options(sections: Sections) -> Options:
    fields = sections.fields
    sections.require(fields.get("kind") == KIND, "holds something else")
    metric, dtype, keep = (fields.get(name) for name in ("metric", "dtype", "keep_vectors"))
    sections.require(metric in METRICS, f"has the metric {metric!r}")
    sections.require(dtype is None or dtype in DTYPES, f"has the dtype {dtype!r}")
    sections.require(isinstance(keep, bool), "does not say whether to keep the vectors")
    dim = sections.integer("dim", 1 << 20)
    sections.require(dim >= 1, "has vectors without columns")
    widths = fields.get("prefixes", [])
    sections.require(
        isinstance(widths, list)
        and all(type(width) is int and 1 <= width < dim for width in widths)
        and widths == sorted(set(widths)),
        f"has the prefixes {widths!r}",
    )
    seed = sections.integer("seed")
    return Options(dim, str(metric), dtype, seed, bool(keep), tuple(widths))


def _ids(sections: Sections, rows: int, vectors: _core.AnnVectors) -> Ids:
    external = sections.array("ids/external", np.int64, rows)
    places = sections.array("ids/places", np.int64, rows)
    alive = alive_of(vectors)
    live = external if alive is None else external[alive]
    live_places = places if alive is None else places[alive]
    next_id = sections.integer("next_id", LARGEST_ID + 1)
    next_place = sections.integer("next_place", 1 << 62)
    inside = _inside(live, next_id) and _inside(live_places, next_place)
    sections.require(inside, "holds ids that cannot be")
    distinct = len(np.unique(live)) == len(live) == len(np.unique(live_places))
    sections.require(distinct, "holds an id twice")
    return Ids.of(external, places, alive, next_id, next_place)


def _inside(values: NDArray[np.int64], end: int) -> bool:
    return len(values) == 0 or (int(values.min()) >= 0 and int(values.max()) < end)


def alive_of(vectors: _core.AnnVectors) -> NDArray[np.bool_] | None:
    """Return which slots are live, None for all."""
    words = vectors.live_bits()
    if words is None:
        return None
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), bitorder="little")
    return bits[: vectors.rows].astype(np.bool_)
