# SPDX-License-Identifier: Apache-2.0
"""Approximate nearest neighbours among the rows that pass a filter."""

from ._device_filter import DeviceFilter
from ._expression import Expression, field
from ._index import Index
from ._merge import merge_topk
from ._on_device import DeviceIndex
from ._result import SearchResult
from ._where import Filter

__all__ = [
    "DeviceFilter",
    "DeviceIndex",
    "Expression",
    "Filter",
    "Index",
    "SearchResult",
    "field",
    "merge_topk",
]
