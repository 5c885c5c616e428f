"""Drafts: artifacts that are being written, and are published by one rename."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.artifact.manifest import (
    Manifest,
    Reference,
    decode_manifest,
    encode_manifest,
    group_file,
)
from store.artifact.publish import publish
from store.artifact.reader import StoredArtifact
from store.artifact.staging import remove_dead_builds
from store.artifact.verify import size_fault
from store.errors import StoreError
from store.io import FileRecord, explained, make_folders, remove_tree, sync_folder, write_file
from store.json_values import check_json
from store.layout import (
    PIECES,
    build_name,
    builds,
    check_key,
    check_kind,
    check_path,
    home,
    node_file,
    part_home,
    part_key,
)
from store.locks.heartbeat import heartbeats
from store.locks.process import ProcessId

if TYPE_CHECKING:
    import numpy.typing as npt
    import polars as pl

    from store.arrays.codecs import Blosc
    from store.arrays.reader import Array
    from store.arrays.writer import ArrayWriter


class Draft:
    """Writes one artifact into a folder of its own, where no reader looks, and publishes it.

    A context manager: at its end, an unpublished draft is removed. Several arrays may be written
    alternately, all from one thread. A draft of a part is published into the work folder of its
    artifact, where no reader looks either.
    """

    def __init__(self, root: Path, kind: str, key: str, part: int | None = None) -> None:
        self.kind, self.key = check_kind(kind), check_key(key)
        self._root = root
        self._pid = os.getpid()
        # Wherever a part is moved, it must not pass for its artifact or for another part.
        self._own_key = key if part is None else part_key(key, part)
        self._place = home(root, kind, key) if part is None else part_home(root, kind, key, part)
        self.path = builds(root, kind) / build_name(key, str(ProcessId.here()))
        self._is_open = False
        self.was_first = False
        """After `publish`: whether this draft became the artifact, and none was there before."""
        self._nodes: dict[str, str] = {}
        """Path within the artifact -> "group", or what takes no more nodes."""
        self._files: dict[str, FileRecord] = {}
        self._writers: list[ArrayWriter] = []

    def __enter__(self) -> Draft:
        remove_dead_builds(self._root, self.kind, self.key)
        make_folders(self.path.parent)
        with explained("create the folder", self.path):
            os.mkdir(self.path)
        heartbeats.add(self)
        self._is_open = True
        return self

    def __exit__(self, *exc: object) -> None:
        if os.getpid() != self._pid:
            return  # in a forked child: the draft is its parent's
        heartbeats.remove(self)
        for writer in self._writers:
            writer.abandon()
        self._is_open = False
        remove_tree(self.path)

    def beat(self) -> None:
        """Touch the folder: its process may write nothing for hours."""
        with suppress(OSError):  # it was just published, or the next beat may succeed
            os.utime(self.path)

    def array(
        self,
        name: str,
        shape: tuple[int | None, ...],
        dtype: npt.DTypeLike,
        *,
        rows_per_chunk: int = 1,
        rows_per_shard: int | None = None,
        codec: Blosc | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> ArrayWriter:
        """Return a writer to which the rows of an array are appended.

        A shape of (None, ...) leaves the number of rows open until the writer is closed. A chunk is
        the unit that other Zarr readers read, and that a codec compresses; a shard is a file.
        Without `rows_per_shard` there is one file. A name such as "a/b" puts the array into a
        group. Raises StoreError.
        """
        from store.arrays.grid import Grid
        from store.arrays.writer import ArrayWriter

        if None in shape[1:]:
            raise StoreError(f"array {name!r} of shape {shape}: only the rows can be left open")
        grid = Grid.of(
            tuple(n or 0 for n in shape),
            dtype,
            rows_per_chunk=rows_per_chunk,
            rows_per_shard=rows_per_shard,
            codec=codec,
        )
        n_rows = shape[0]
        self._add_node(name, "array")
        writer = ArrayWriter(
            self.path,
            name,
            grid,
            attributes,
            self._files,
            expected_rows=n_rows,
            rows_per_shard=rows_per_shard if n_rows is None else grid.rows_per_shard,
        )
        self._writers.append(writer)
        return writer

    def join(self, name: str, parts: Sequence[Array]) -> None:
        """Write the concatenation of `parts` as one array.

        Their files become files of this array, by hard links where possible: all parts except the
        last must consist of whole shards. Raises StoreError where they do not fit together.
        """
        self._check_some(name, parts)
        self._link(name, parts)

    def join_pieces(self, name: str, parts: Sequence[Array]) -> None:
        """Write the concatenation of `parts`, of any lengths, as an array in pieces.

        Each part is in one file, and becomes an array of its own in a group; `StoredArtifact.array`
        reads them as one. Files are linked as in `join`. Raises StoreError.
        """
        self._check_some(name, parts)
        first = parts[0].grid
        for part in parts:
            if part.grid.n_shards > 1 or part.grid.in_one_shard(1, 1) != first.in_one_shard(1, 1):
                raise StoreError(
                    f"{part!r} cannot be a piece of {name!r}: a piece is one file, in the dtype, "
                    f"shape of rows and codec of the first, {parts[0]!r}"
                )
        pieces = {
            "rows": [len(part) for part in parts],
            "rows_per_chunk": [part.grid.rows_per_chunk for part in parts],
        }
        self._add_node(name, "group", {**parts[0].attributes, PIECES: pieces})
        for i, part in enumerate(parts):
            self._link(f"{name}/{i}", [part])
        self._nodes[name] = "array in pieces"  # it takes no more of them

    def _check_some(self, name: str, parts: Sequence[Array]) -> None:
        if not parts:
            raise StoreError(f"cannot join {name!r} from no parts; write it with Draft.array")

    def _link(self, name: str, parts: Sequence[Array]) -> None:
        first = parts[0].grid
        with self.array(
            name,
            (sum(len(part) for part in parts), *first.row_shape),
            first.dtype,
            rows_per_chunk=first.rows_per_chunk,
            rows_per_shard=first.rows_per_shard,
            codec=first.codec,
            attributes=parts[0].attributes,
        ) as writer:
            for part in parts:
                writer.link_shards(part)

    def write(
        self,
        name: str,
        values: npt.NDArray[Any],
        attributes: Mapping[str, object] | None = None,
        *,
        codec: Blosc | None = None,
    ) -> None:
        """Write a whole array as one chunk.

        Raises StoreError, also for a scalar, which belongs in the attributes.
        """
        import numpy as np

        values = np.asarray(values)
        n_rows = len(values) if values.ndim else 0
        with self.array(
            name,
            values.shape,
            values.dtype,
            rows_per_chunk=max(1, n_rows),
            codec=codec,
            attributes=attributes,
        ) as writer:
            writer.append(values)

    def table(self, name: str, frame: pl.DataFrame) -> None:
        """Write a table of numbers, booleans and strings with nulls. Raises StoreError."""
        from store.arrays.tables import encode

        attributes, columns = encode(frame)
        self._add_node(name, "group", attributes)
        for column in columns:
            self.write(f"{name}/{column.name}", column.values, column.attributes)
        self._nodes[name] = "table"  # it takes no more arrays

    def publish(
        self,
        *,
        type: str,
        version: int,
        canonical: str,
        spec: dict[str, Any],
        parents: Mapping[str, Mapping[str, str]],
        provenance: dict[str, Any],
        attributes: dict[str, Any] | None = None,
    ) -> StoredArtifact:
        """Make the artifact durable and then visible, by one rename. The draft takes no more data.

        `parents` are given as {"kind": ..., "key": ...}. Where a complete artifact of this key
        exists, it is returned and this draft is dropped; a damaged one is moved to the trash.
        Raises StoreError.
        """
        self._check_finished()
        manifest = Manifest(
            kind=self.kind,
            key=self._own_key,
            type=type,
            version=version,
            canonical=canonical,
            spec=spec,
            parents={
                name: Reference(check_kind(parent["kind"]), check_key(parent["key"]))
                for name, parent in parents.items()
            },
            provenance=provenance,
            attributes=attributes or {},
            files=dict(sorted(self._files.items())),
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        for part in ("type", "version", "canonical", "spec", "provenance", "attributes"):
            check_json(getattr(manifest, part), part)
        manifest = self._seal(manifest)
        published = publish(self.path, self._place, self._root, manifest)
        if published.canonical != canonical:
            raise StoreError(
                f"{self._place} holds another spec under the same key: {published.canonical}, and "
                f"this one is {canonical}. Nothing was replaced; one of the specs needs a new key"
            )
        self._is_open = False
        self.was_first = published is manifest
        return StoredArtifact(self._place, published)

    def _seal(self, manifest: Manifest) -> Manifest:
        """Make everything durable, and write the manifest after everything else.

        Return the manifest as a reader will decode it: with lists for tuples.
        """
        for path in self._nodes:
            sync_folder(self.path / path)
        with explained("look at", self.path):
            faults = [
                fault
                for name, record in manifest.files.items()
                if (fault := size_fault(str(self.path), name, record))
            ]
        if faults:
            raise StoreError(
                f"the draft in {self.path} is not on disk as it was written: "
                f"{'; '.join(faults)}. Check the disk, and what else "
                "changes that folder"
            )
        file, data = self.path / node_file(""), encode_manifest(manifest)
        write_file(file, [data])
        sync_folder(self.path)
        return decode_manifest(data, str(file))

    def _add_node(
        self, path: str, what: str, attributes: Mapping[str, object] | None = None
    ) -> None:
        """Create the folder of a node and its missing parents; a group also gets its file."""
        self._check_open()
        check_path(path)
        if path in self._nodes:
            raise StoreError(f"the draft has {path!r} already; choose another name")
        above = path.rpartition("/")[0]
        if above and above not in self._nodes:
            self._add_node(above, "group")
        if self._nodes.get(above, "group") != "group":
            raise StoreError(
                f"{path!r} cannot lie in the {self._nodes[above]} {above!r}; put it elsewhere"
            )
        self._nodes[path] = what  # first: without its file, the draft cannot be published
        with explained("create the folder", self.path / path):
            os.mkdir(self.path / path)
        if what == "group":
            file = node_file(path)
            self._files[file] = write_file(self.path / file, [group_file(attributes or {})])

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreError(
                f"the draft of {self.kind}/{self.key} is not open; write to it within its with "
                "statement, before it is published"
            )

    def _check_finished(self) -> None:
        self._check_open()
        unfinished = [path for path in self._nodes if node_file(path) not in self._files]
        if unfinished:
            raise StoreError(
                f"the draft of {self.kind}/{self.key} has unfinished arrays or groups: "
                f"{', '.join(map(repr, unfinished))}. Close each array before publishing, and drop "
                "the draft after an error"
            )
