"""An artifact in the making."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from store.artifact.manifest import (
    Manifest,
    Reference,
    check_plain,
    decode_manifest,
    encode_manifest,
    group_file,
    size_fault,
)
from store.artifact.publish import publish
from store.artifact.reader import StoredArtifact
from store.artifact.staging import remove_dead_builds
from store.errors import StoreError
from store.io import FileRecord, explained, make_folders, remove_tree, sync_folder, write_file
from store.layout import (
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

    from store.arrays.reader import Array
    from store.arrays.writer import ArrayWriter


class Draft:
    """Builds one artifact in a folder of its own, where no reader looks, and publishes it.

    A context manager: what is not published disappears at its end. Several arrays may be written
    side by side; one draft belongs to one thread. A draft of a part is published into the work
    folder of its artifact, where no reader looks either.
    """

    def __init__(self, root: Path, kind: str, key: str, part: int | None = None) -> None:
        self.kind, self.key = check_kind(kind), check_key(key)
        self._root = root
        self._pid = os.getpid()
        # A part must not pass for its artifact, nor for another part, wherever it may be moved.
        self._own_key = key if part is None else part_key(key, part)
        self._place = home(root, kind, key) if part is None else part_home(root, kind, key, part)
        self.path = builds(root, kind) / build_name(key, str(ProcessId.here()))
        self._state: Literal["not open", "open", "broken", "published"] = "not open"
        self.was_first = False
        """Once published: whether it is what stands there, and not one that was there before."""
        self._nodes: dict[str, str] = {}
        """What each path within the artifact is: group, table or array."""
        self._files: dict[str, FileRecord] = {}
        self._writers: list[ArrayWriter] = []

    def __enter__(self) -> Draft:
        remove_dead_builds(self._root, self.kind, self.key)
        make_folders(self.path.parent)
        with explained("create the folder", self.path):
            os.mkdir(self.path)
        heartbeats.add(self)
        self._state = "open"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if os.getpid() != self._pid:
            return  # a forked child has no say in what its parent builds
        heartbeats.remove(self)
        for writer in self._writers:
            writer.abandon()
        if self._state == "open":
            self._state = "not open"
        remove_tree(self.path)

    def beat(self) -> None:
        """Shows that the process of this draft lives, where it writes nothing for hours."""
        with suppress(OSError):  # just published; or the next beat may succeed
            os.utime(self.path)

    def array(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        *,
        rows_per_chunk: int = 1,
        rows_per_shard: int | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> ArrayWriter:
        """A writer that takes the rows of an array as they come.

        A chunk is what other Zarr readers read at once; a shard is a file. Without
        `rows_per_shard` there is one file. A name such as "a/b" puts the array into a group.
        Raises StoreError.
        """
        from store.arrays.grid import Grid
        from store.arrays.writer import ArrayWriter

        grid = Grid.of(shape, dtype, rows_per_chunk=rows_per_chunk, rows_per_shard=rows_per_shard)
        self._add_node(name, "array")
        folder = self.path / name
        writer = ArrayWriter(
            folder, name, grid, attributes, lambda file, record: self._add_file(name, file, record)
        )
        self._writers.append(writer)
        return writer

    def join(self, name: str, parts: Sequence[Array]) -> None:
        """Writes the array whose rows are those of `parts`, one after another.

        Their files become files of this array, by hard links where there are any: all parts but
        the last hold whole shards. Raises StoreError where they do not fit together.
        """
        if not parts:
            raise StoreError(f"cannot join {name!r} from no parts: write it as an array of its own")
        grids = [part.grid for part in parts]
        first = grids[0]
        writer = self.array(
            name,
            (sum(grid.n_rows for grid in grids), *first.row_shape),
            first.dtype,
            rows_per_chunk=first.rows_per_chunk,
            rows_per_shard=first.rows_per_shard,
            attributes=parts[0].attributes,
        )
        with writer:
            for part in parts:
                writer.link_shards(part)

    def write(
        self, name: str, values: npt.NDArray[Any], attributes: Mapping[str, object] | None = None
    ) -> None:
        """Writes a whole array, as one chunk.

        Raises StoreError, also for a single value: that belongs into the attributes.
        """
        import numpy as np

        values = np.asarray(values)
        n_rows = len(values) if values.ndim else 0
        with self.array(
            name, values.shape, values.dtype, rows_per_chunk=max(1, n_rows), attributes=attributes
        ) as writer:
            writer.append(values)

    def table(self, name: str, frame: pl.DataFrame) -> None:
        """Writes a table of numbers, booleans and strings, nulls included. Raises StoreError."""
        from store.arrays.tables import encode

        attributes, columns = encode(frame)
        self._add_node(name, "group", attributes)
        for column in columns:
            self.write(f"{name}/{column.name}", column.values, column.attributes)
        self._nodes[name] = "table"  # from here on it takes no more arrays

    def publish(
        self,
        *,
        type: str,
        version: int,
        canonical: str,
        spec: dict[str, Any],
        parents: Mapping[str, Reference | Mapping[str, str]],
        provenance: dict[str, Any],
        attributes: dict[str, Any] | None = None,
    ) -> StoredArtifact:
        """Makes the artifact durable and visible, by one rename; the last act of a draft.

        Where a whole artifact of this key is there already, that one is returned and this draft
        dropped; a damaged one is moved to the trash. Raises StoreError.
        """
        self._check_finished()
        manifest = Manifest(
            kind=self.kind,
            key=self._own_key,
            type=type,
            version=version,
            canonical=canonical,
            spec=spec,
            parents={name: _reference(parent) for name, parent in parents.items()},
            provenance=provenance,
            attributes=attributes or {},
            files=dict(sorted(self._files.items())),
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        for part in ("type", "version", "canonical", "spec", "provenance", "attributes"):
            check_plain(getattr(manifest, part), part)
        manifest = self._seal(manifest)
        place = self._place
        standing = publish(self.path, place, self._root, manifest)
        if standing.canonical != canonical:
            raise StoreError(
                f"{place} holds another spec under the same key: {standing.canonical} where this "
                f"one is {canonical}. Nothing was replaced; one of the two specs needs a new key"
            )
        self._state = "published"
        self.was_first = standing is manifest
        return StoredArtifact(place, standing)

    def _seal(self, manifest: Manifest) -> Manifest:
        """Makes everything durable, and writes the manifest only once all of it is there.

        Returns the manifest as a reader will see it: a tuple comes back as a list.
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
                f"{'; '.join(faults)}. Check the disk, and what else works in that folder"
            )
        file, data = self.path / node_file(""), encode_manifest(manifest)
        write_file(file, [data])
        sync_folder(self.path)
        return decode_manifest(data, str(file))

    def _add_node(
        self, path: str, what: str, attributes: Mapping[str, object] | None = None
    ) -> None:
        """Makes the folder of a node, and the groups above it. Only a group gets its file here."""
        self._check_open()
        check_path(path)
        if path in self._nodes:
            raise StoreError(f"the draft has {path!r} already; choose another name")
        above = path.rpartition("/")[0]
        if above and above not in self._nodes:
            self._add_node(above, "group")
        if self._nodes.get(above) in ("array", "table"):
            raise StoreError(
                f"{path!r} cannot lie in the {self._nodes[above]} {above!r}; put it elsewhere"
            )
        try:
            with explained("create the folder", self.path / path):
                os.mkdir(self.path / path)
            if what == "group":
                file = node_file(path)
                self._files[file] = write_file(self.path / file, [group_file(attributes or {})])
        except BaseException:  # half of a node may be there, and must not be published
            self._state = "broken"
            raise
        self._nodes[path] = what

    def _add_file(self, array: str, file: str, record: FileRecord) -> None:
        self._files[f"{array}/{file}"] = record

    def _check_open(self) -> None:
        if self._state != "open":
            raise StoreError(
                f"the draft of {self.kind}/{self.key} is {self._state}; write to a draft in its "
                "with statement, before it is published, and drop it after an error"
            )

    def _check_finished(self) -> None:
        self._check_open()
        if unfinished := [writer for writer in self._writers if writer.state != "closed"]:
            names = ", ".join(f"{writer.name!r} ({writer.state})" for writer in unfinished)
            raise StoreError(
                f"the draft of {self.kind}/{self.key} has unfinished arrays: {names}; close each "
                "one before publishing"
            )


def _reference(parent: Reference | Mapping[str, str]) -> Reference:
    if not isinstance(parent, Reference):
        parent = Reference(parent["kind"], parent["key"])
    return Reference(check_kind(parent.kind), check_key(parent.key))
