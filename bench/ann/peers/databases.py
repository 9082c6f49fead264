# SPDX-License-Identifier: Apache-2.0
"""Embedded databases, which keep the attributes and evaluate filters themselves."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.ann.columns import Columns, Tree
from bench.ann.peers.base import Allowed, Ids, Peer, Rows, Setting
from bench.timing import optional

LINKS, BUILD_BEAM = 16, 200
_STEP = 2000  # rows inserted at once


def _rows(columns: Columns) -> list[dict[str, Any]]:
    """Return the attributes of each row by name."""
    named: dict[str, list[Any]] = {}
    for plain in (columns.categories, columns.numbers):
        named |= {name: column.tolist() for name, column in plain.items()}
    for name, sets in columns.sets.items():
        codes, starts = sets.codes.tolist(), sets.starts.tolist()
        named[name] = [codes[starts[i] : starts[i + 1]] for i in range(columns.rows)]
    names = list(named)
    return [dict(zip(names, row, strict=True)) for row in zip(*named.values(), strict=True)]


class _Database(Peer):
    """Prepares a filter in the database's own language; evaluating it is part of the search."""

    evaluates, slow_build, largest = True, True, 70_000

    def __init__(self, base: Rows, columns: Columns, threads: int) -> None:
        # Both files and process must be gone before the folder is: held here, closed by `build`.
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        super().__init__(base, columns, threads)

    @property
    def path(self) -> str:
        """Return where the database is."""
        return str(Path(self._folder.name) / "data")

    def filter_of(self, tree: Tree) -> Any:
        """Return a filter in the database's language."""
        raise NotImplementedError

    def prepare(self, allowed: Allowed, setting: Setting) -> Any:
        return self.filter_of(allowed.tree)

    def search_expressions(
        self, queries: Rows, trees: Sequence[Tree], k: int, setting: Setting, threads: int
    ) -> Ids:
        prepared = [self.filter_of(tree) for tree in trees]
        return self.search(queries, prepared, k, setting, threads)


class Qdrant(_Database):
    """qdrant's edge shard: a graph, more links for each value, and indexes of the attributes."""

    name, package = "qdrant-edge", "qdrant_edge"

    def build(self, threads: int) -> None:
        q = optional("qdrant_edge")
        Path(self.path).mkdir()
        graph = q.HnswIndexConfig(
            m=LINKS, ef_construct=BUILD_BEAM, full_scan_threshold=10_000,
            max_indexing_threads=threads, payload_m=LINKS,
        )  # fmt: skip
        vectors = q.EdgeVectorParams(size=self.base.shape[1], distance=q.Distance.Dot)
        optimizers = q.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1)
        config = q.EdgeConfig(
            vectors=vectors, hnsw_config=graph, optimizers=optimizers,
            max_search_threads=1, wal_enabled=False,
        )  # fmt: skip
        self._shard = q.EdgeShard.create(self.path, config)
        for name in [*self.columns.categories, *self.columns.numbers, *self.columns.sets]:
            made = q.UpdateOperation.create_field_index(name, q.PayloadSchemaType.Integer)
            self._shard.update(made)
        payloads = _rows(self.columns)
        for start in range(0, len(self.base), _STEP):
            vectors = self.base[start : start + _STEP].tolist()
            points = [
                q.Point(start + i, vector, payloads[start + i]) for i, vector in enumerate(vectors)
            ]
            self._shard.update(q.UpdateOperation.upsert_points(points))
        self._shard.optimize()

    def settings(self) -> list[Setting]:
        return [{"beam": beam} for beam in (16, 32, 64, 128, 256, 512)]

    def _condition(self, tree: Tree) -> Any:
        q = optional("qdrant_edge")
        kind = tree[0]
        if kind in ("eq", "has"):
            return q.FieldCondition(key=tree[1], match=q.MatchValue(tree[2]))
        if kind == "range":
            between = q.RangeFloat(gte=float(tree[2]), lte=float(tree[3]))
            return q.FieldCondition(key=tree[1], range=between)
        parts = [self._condition(part) for part in tree[1:]]
        return q.Filter(**{{"and": "must", "or": "should", "not": "must_not"}[kind]: parts})

    def filter_of(self, tree: Tree) -> Any:
        if tree[0] == "all":
            return None
        made = self._condition(tree)
        q = optional("qdrant_edge")
        return made if isinstance(made, q.Filter) else q.Filter(must=[made])

    def one(self, query: Rows, prepared: Any, k: int, setting: Setting, out: Ids) -> None:
        q = optional("qdrant_edge")
        request = q.QueryRequest(
            limit=k, query=q.Query.Nearest(query.tolist()), filter=prepared,
            params=q.SearchParams(hnsw_ef=setting["beam"]), with_payload=False, with_vector=False,
        )  # fmt: skip
        for place, found in enumerate(self._shard.query(request)):
            out[place] = found.id


class Zvec(_Database):
    """zvec: a graph and inverted indexes of the attributes."""

    name, package = "zvec", "zvec"

    def build(self, threads: int) -> None:
        z = optional("zvec")
        with suppress(RuntimeError):  # it is, where there were other rows before
            z.init(log_level=z.LogLevel.ERROR, query_threads=1, optimize_threads=threads)
        inverted = z.InvertIndexParam(enable_range_optimization=True)
        plain = [*self.columns.categories, *self.columns.numbers]
        fields = [z.FieldSchema(name, z.DataType.INT64, False, inverted) for name in plain]
        fields += [
            z.FieldSchema(name, z.DataType.ARRAY_INT64, False, inverted)
            for name in self.columns.sets
        ]
        graph = z.HnswIndexParam(
            z.MetricType.IP, m=LINKS, ef_construction=BUILD_BEAM, use_contiguous_memory=True
        )
        vector = z.VectorSchema("v", z.DataType.VECTOR_FP32, self.base.shape[1], graph)
        schema = z.CollectionSchema(name="rows", fields=fields, vectors=[vector])
        self._rows = z.create_and_open(self.path, schema)
        values = _rows(self.columns)
        for start in range(0, len(self.base), 1000):
            vectors = self.base[start : start + 1000].tolist()
            self._rows.insert(
                [
                    z.Doc(id=str(start + i), vectors={"v": vector}, fields=values[start + i])
                    for i, vector in enumerate(vectors)
                ]
            )
        self._rows.optimize()

    def settings(self) -> list[Setting]:
        return [{"beam": beam} for beam in (16, 32, 64, 128, 256, 512)]

    def filter_of(self, tree: Tree) -> Any:
        kind = tree[0]
        if kind == "all":
            return None
        if kind == "eq":
            return f"{tree[1]} = {tree[2]}"
        if kind == "range":
            return f"({tree[1]} >= {tree[2]} and {tree[1]} <= {tree[3]})"
        if kind == "has":
            return f"{tree[1]} contain_any ({tree[2]})"
        if kind == "not" and tree[1][0] == "eq":
            return f"{tree[1][1]} != {tree[1][2]}"
        return f" {kind} ".join(f"({self.filter_of(part)})" for part in tree[1:])

    def one(self, query: Rows, prepared: Any, k: int, setting: Setting, out: Ids) -> None:
        z = optional("zvec")
        asked = z.Query("v", vector=query, param=z.HnswQueryParam(ef=setting["beam"]))
        found = self._rows.query(asked, topk=k, filter=prepared, output_fields=[])
        for place, row in enumerate(found):
            out[place] = int(row.id)
