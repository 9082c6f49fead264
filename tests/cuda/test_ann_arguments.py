# SPDX-License-Identifier: Apache-2.0
"""What searches on a device refuse, in which words, and what an index there says of itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embedcore import ann
from support.ann import make_world
from support.ann_device import ROWS, world_of


def test_copies_on_a_device(kind: Any) -> None:
    world = world_of()
    index = world.index.to("cuda")
    assert (index.device, index.dim, index.metric, index.dtype) == (
        "cuda:0", 41, "cosine", "float32",
    )  # fmt: skip
    assert index.to("cuda:0") is index and world.index.to("cpu") is world.index
    assert repr(index) == "DeviceIndex(dim=41, metric='cosine', rows=700, device='cuda:0')"
    usage = index.memory_usage()
    assert usage["total"] == sum(usage.values()) - usage["total"]
    assert usage["codes"] >= 2 * 64 * ROWS
    assert index and len(index) == ROWS
    with pytest.raises(
        TypeError, match=r"^ann\.DeviceIndex\.count: 'where' must be one filter; got"
    ):
        index.count([None])
    np.testing.assert_array_equal(index.ids, world.index.ids)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"k": 0}, ValueError, "'k' must be from 1 to 1024; got 0"),
        ({"k": 1025}, ValueError, "'k' must be from 1 to 1024; got 1025"),
        ({"recall": 1.0}, ValueError, "'recall' must be above 0 and at most 0.999"),
        ({"where": ann.field("yaer") > 1}, ValueError, "'where' column 'yaer' is unknown; did you"),
        ({"where": ann.field("kind") > 1}, TypeError, "'where' "),
        ({"where": [True, False]}, ValueError, r"'where' as a mask must have .* \(700\); got 2"),
        ({"where": [None, None]}, ValueError, r"'where' as a list must have one filter for each"),
        ({"where": "kind"}, TypeError, "'where' must be an expression"),
        ({"where": np.ones(700)}, TypeError, "'where' as an array must be boolean or int64"),
        ({"where": ann.Index(4).compile([1])}, ValueError, "'where' must be a Filter of this"),
    ],
)
def test_options_that_do_not_fit(
    kind: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    world = world_of()
    with pytest.raises(error, match=rf"^ann\.DeviceIndex\.search: {words}"):
        world.index.to("cuda").search(kind.to_device(world.queries), **options)


def test_arrays_that_do_not_fit(kind: Any) -> None:
    world = make_world(rows=50, columns=16, prefixes=(8,))
    index = world.index.to("cuda")
    where = r"^ann\.DeviceIndex\.search: "
    with pytest.raises(ValueError, match=where + r"'queries' must have 16 or 8 columns; got"):
        index.search(kind.to_device(np.ones((2, 9), np.float32)))
    with pytest.raises(TypeError, match=where + "'queries' must be on device cuda:0, as the index"):
        index.search(world.queries)
    with pytest.raises(TypeError, match=where + "'queries' must be float16, bfloat16"):
        index.search(kind.to_device(np.ones((2, 16), np.int64)))
    with pytest.raises(TypeError, match=where + "'where' must be bool, int8, int16"):
        index.search(kind.to_device(world.queries), where=kind.to_device(np.ones(50, np.float32)))
    with pytest.raises(ValueError, match=where + r"'where' as a mask must have .* \(50\); got 49"):
        index.search(kind.to_device(world.queries), where=kind.to_device(np.ones(49, np.bool_)))


def test_arrays_on_another_device(kind: Any) -> None:
    world = make_world(rows=50, columns=16)
    index = world.index.to("cuda")
    index._number = 1  # one device is enough for the test
    mask, queries = kind.to_device(np.ones(50, np.bool_)), kind.to_device(world.queries)
    words = "must be on device cuda:1, as the index is; got .* on device cuda:0"
    with pytest.raises(TypeError, match=rf"^ann\.DeviceIndex\.count: 'where' {words}"):
        index.count(mask)
    with pytest.raises(TypeError, match=rf"^ann\.DeviceIndex\.search: 'queries' {words}"):
        index.search(queries)


def test_devices_that_are_not_there(kind: Any) -> None:
    index = ann.Index(4)
    where = r"^ann\.Index\.to: 'device' must be "
    with pytest.raises(ValueError, match=where + "'cpu', 'cuda' or 'cuda:' and a number; got 'gp"):
        index.to("gpu")
    with pytest.raises(TypeError, match=where + "a string; got int"):
        index.to(0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=where + "one of the .* devices"):
        index.to("cuda:99")
