"""Read a published artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from store.artifact.manifest import Manifest, read_manifest
from store.artifact.verify import byte_fault, files_in
from store.errors import CorruptArtifact, StoreError
from store.io import FileRecord, digest, explained, read_file
from store.layout import NODE_FILE, PIECES, TABLE, node_file

if TYPE_CHECKING:
    import polars as pl
    import zarr

    from store.arrays.grid import Grid
    from store.arrays.reader import Array
    from store.arrays.shard_file import ShardFile

Node = dict[str, Any]
"""Content of a zarr.json."""


class StoredArtifact:
    """An artifact in the store. Arrays and tables are opened only when they are asked for."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._nodes: dict[str, Node] = {}

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def key(self) -> str:
        return self.manifest.key

    @property
    def n_bytes(self) -> int:
        """Size of its files, without the manifest's own."""
        return self.manifest.n_bytes

    def __repr__(self) -> str:
        return f"StoredArtifact({self.kind}/{self.key}, {self.manifest.type})"

    def arrays(self) -> list[str]:
        """Return the names of its arrays, without the columns of tables and pieces of arrays."""
        return self._names("array")

    def tables(self) -> list[str]:
        return self._names("table")

    def array(self, name: str) -> Array:
        """Open an array. Raises StoreError where there is none, and CorruptArtifact."""
        from store.arrays.reader import Array, Piece

        node = self._find(name, "array")
        attributes = dict(node["attributes"])
        if (pieces := attributes.pop(PIECES, None)) is None:
            grid = self._grid(name, node)
            return Array(f"{self.path}/{name}", [Piece(grid, self._shards(name, grid))], attributes)
        grid = self._grid(f"{name}/0", self._node(f"{name}/0"))
        sizes = zip(pieces["rows"], pieces["rows_per_chunk"], strict=True)
        grids = [grid.in_one_shard(n_rows, per_chunk) for n_rows, per_chunk in sizes]
        found = [Piece(grid, self._shards(f"{name}/{i}", grid)) for i, grid in enumerate(grids)]
        return Array(f"{self.path}/{name}", found, attributes)

    def _grid(self, name: str, node: Node) -> Grid:
        from store.arrays.grid import Grid

        try:
            return Grid.from_zarr(node)
        except ValueError as error:
            raise CorruptArtifact(f"{self.path / name}: {error}") from error

    def _shards(self, name: str, grid: Grid) -> tuple[ShardFile, ...]:
        from store.arrays.shard_file import ShardFile

        names = [f"{name}/{grid.shard_name(i)}" for i in range(grid.n_shards)]
        return tuple(
            ShardFile(f"{self.path}/{file}", self.manifest.files[file], grid, i)
            for i, file in enumerate(names)
        )

    def table(self, name: str) -> pl.DataFrame:
        """Read a table and compare it with its digests. Raises StoreError and CorruptArtifact."""
        from store.arrays.tables import decode

        node = self._find(name, "table")
        return decode(node["attributes"], lambda column: self.array(f"{name}/{column}"))

    def zarr(self) -> zarr.Group:
        """Open its root group with zarr-python, read-only."""
        import zarr

        return zarr.open_group(str(self.path), mode="r", zarr_format=3)

    def verify(self) -> list[str]:
        """Read every byte and return what is not as it was written; [] where all is.

        Raises StoreError where a file cannot be read.
        """
        try:
            same = read_manifest(str(self.path)) == self.manifest
        except CorruptArtifact:
            same = False
        faults = [] if same else [f"{NODE_FILE} is not the manifest that was opened"]
        extra = sorted(files_in(self.path) - {NODE_FILE, *self.manifest.files})
        return faults + self.altered() + [f"{name} is not in the manifest" for name in extra]

    def altered(self) -> list[str]:
        """As `verify`, for the files that its manifest names."""
        faults = (self._fault_of(name, record) for name, record in self.manifest.files.items())
        return [fault for fault in faults if fault]

    def _fault_of(self, name: str, record: FileRecord) -> str | None:
        with explained("read", self.path / name):
            return byte_fault(str(self.path), name, record)

    def _names(self, what: str) -> list[str]:
        found = []
        groups = {""}
        for path in sorted(
            file.rpartition("/")[0] for file in self.manifest.files if _is_node(file)
        ):
            if path.rpartition("/")[0] not in groups:
                continue  # within a table or an array in pieces
            if (kind := self._what(path)) == "group":
                groups.add(path)
            if kind == what:
                found.append(path)
        return found

    def _find(self, path: str, what: str) -> Node:
        if node_file(path) not in self.manifest.files or self._what(path) != what:
            there = ", ".join(map(repr, self._names(what))) or f"no {what}s"
            raise StoreError(f"{self!r} has no {what} {path!r}; it has {there}")
        return self._node(path)

    def _what(self, path: str) -> str:
        node = self._node(path)
        if node["node_type"] == "array" or PIECES in node["attributes"]:
            return "array"
        return "table" if TABLE in node["attributes"] else "group"

    def _node(self, path: str) -> Node:
        """Return the zarr.json of a node, read once and compared with its digest."""
        if path not in self._nodes:
            file = node_file(path)
            record = self.manifest.files[file]
            place = f"{self.path}/{file}"
            with explained("read", place):
                data = read_file(place)
            if digest(data) != record.xxh3:
                raise CorruptArtifact(f"{place} is not as written: its digest differs")
            self._nodes[path] = msgspec.json.decode(data)
        return self._nodes[path]


def _is_node(file: str) -> bool:
    return file.endswith(f"/{NODE_FILE}")
