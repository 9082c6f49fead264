# SPDX-License-Identifier: Apache-2.0
"""Peers: other libraries' indexes, each in its best form, behind one interface."""

from __future__ import annotations

from bench.ann.peers.base import Allowed, Peer
from bench.ann.peers.brute import NumpyScan, TorchBfloat, TorchInteger
from bench.ann.peers.databases import Qdrant, Zvec
from bench.ann.peers.faiss_peers import (
    FaissFastScan,
    FaissFlat,
    FaissHnsw,
    FaissHnswInteger,
    FaissInteger,
    FaissIvf,
)
from bench.ann.peers.graphs import (
    Hnswlib,
    HnswlibCallback,
    Pynndescent,
    Svs,
    Usearch,
    UsearchInteger,
)
from bench.timing import optional

__all__ = ["EXACT", "PEERS", "Allowed", "Peer", "installed", "missing"]

# Those that need no building; they take part everywhere.
EXACT: tuple[type[Peer], ...] = (NumpyScan, FaissFlat)
PEERS: tuple[type[Peer], ...] = (
    *EXACT,
    FaissInteger,
    TorchBfloat,
    TorchInteger,
    FaissIvf,
    FaissFastScan,
    FaissHnsw,
    FaissHnswInteger,
    Hnswlib,
    HnswlibCallback,
    Usearch,
    UsearchInteger,
    Svs,
    Pynndescent,
    Qdrant,
    Zvec,
)


def installed() -> list[type[Peer]]:
    """Return the peers whose library imports."""
    return [peer for peer in PEERS if optional(peer.package) is not None]


def missing() -> list[str]:
    """Return the packages that do not import."""
    return sorted({peer.package for peer in PEERS if optional(peer.package) is None})
