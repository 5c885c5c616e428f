"""Write an array as a stream of rows: each shard file is closed when it is full."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from store.arrays.grid import Grid
from store.arrays.reader import Array
from store.errors import StoreError
from store.io import FileRecord, NewFile, link_file, write_file
from store.json_values import check_json
from store.layout import NODE_FILE

AnyArray = npt.NDArray[Any]


class ArrayWriter:
    """Writes appended rows at once, without a buffer.

    As a context manager it closes the array on success and abandons it on an exception. A draft
    with an abandoned array cannot be published. `attributes` may be changed until `close`.
    """

    def __init__(
        self,
        artifact: Path,
        name: str,
        grid: Grid,
        attributes: Mapping[str, object] | None,
        files: dict[str, FileRecord],
    ) -> None:
        self.name, self.grid = name, grid
        self.attributes: dict[str, object] = dict(attributes or {})
        self.n_rows = 0
        """Rows appended so far."""
        self.is_open = True
        self._folder = artifact / name
        self._files = files
        self._file: NewFile | None = None

    def append(self, rows: AnyArray) -> None:
        """Append rows of shape (n, *shape[1:]) and of the array's dtype.

        Raises StoreError where they do not fit the array or cannot be written.
        """
        self._check_open()
        rows = np.asarray(rows)
        self._check_fit(rows)
        try:
            self._append(np.ascontiguousarray(rows, dtype=self.grid.dtype))
        except BaseException:  # some rows may be written: the stream cannot continue
            self.abandon()
            raise

    def link_shards(self, rows: Array) -> None:
        """Append a stored array by hard-linking its files, or copying them where it must.

        Raises StoreError where its files are not whole shards of this array.
        """
        self._check_open()
        theirs, ours = rows.grid, self.grid
        fits = (
            replace(theirs, shape=ours.shape) == ours
            and self.n_rows % ours.rows_per_shard == 0
            and self.n_rows + len(rows) <= ours.n_rows
            and (len(rows) % ours.rows_per_shard == 0 or self.n_rows + len(rows) == ours.n_rows)
            and theirs.row_shape == ours.row_shape
        )
        if not fits:
            raise StoreError(
                f"array {self.name!r} of shape {ours.shape} in files of {ours.rows_per_shard} rows "
                f"cannot link the files of {rows!r} at row {self.n_rows}: they are not whole "
                "shards of this array"
            )
        try:
            for shard, (path, record) in enumerate(
                rows.shard_files(), start=self.n_rows // ours.rows_per_shard
            ):
                name = ours.shard_name(shard)
                link_file(path, self._folder / name, record)
                self._add_file(name, record)
        except BaseException:
            self.abandon()
            raise
        self.n_rows += len(rows)

    def close(self) -> None:
        """Finish the array. Raises StoreError where rows are missing."""
        self._check_open()
        if self.n_rows != self.grid.n_rows:
            self.abandon()
            raise StoreError(
                f"array {self.name!r} got {self.n_rows} of its {self.grid.n_rows} rows; append "
                "all of them, or declare the right number"
            )
        check_json(self.attributes, f"attributes of array {self.name!r}")
        node = msgspec.json.format(
            msgspec.json.encode(self.grid.to_zarr(self.attributes)), indent=2
        )
        self._add_file(NODE_FILE, write_file(self._folder / NODE_FILE, [node, b"\n"]))
        self.is_open = False

    def abandon(self) -> None:
        """Stop writing the array. Safe to call at any time."""
        self.is_open = False
        if self._file:
            self._file.abandon()

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        if exc[0] is not None:
            self.abandon()
        elif self.is_open:
            self.close()

    def _check_open(self) -> None:
        if not self.is_open:
            raise StoreError(f"array {self.name!r} is closed or abandoned; it takes no more rows")

    def _check_fit(self, rows: AnyArray) -> None:
        grid = self.grid
        if rows.dtype.name != grid.dtype.name:
            raise StoreError(
                f"array {self.name!r} holds {grid.dtype.name}, and was given {rows.dtype.name}; "
                "convert the rows before appending them, and check for overflow"
            )
        if rows.ndim != len(grid.shape) or rows.shape[1:] != grid.row_shape:
            shape = ", ".join(map(str, ("n", *grid.row_shape)))
            raise StoreError(
                f"array {self.name!r} takes rows of shape ({shape}), and was given {rows.shape}"
            )
        if self.n_rows + len(rows) > grid.n_rows:
            raise StoreError(
                f"array {self.name!r} has {grid.n_rows} rows, and was given "
                f"{self.n_rows + len(rows)}"
            )

    def _append(self, rows: AnyArray) -> None:
        grid = self.grid
        while len(rows) and grid.n_shards:
            shard = self.n_rows // grid.rows_per_shard
            n_left = shard * grid.rows_per_shard + grid.shard_rows(shard) - self.n_rows
            part, rows = np.split(rows, [n_left])
            if self._file is None:
                self._file = NewFile(self._folder / grid.shard_name(shard))
            self._file.write(_bytes_of(part))
            self.n_rows += len(part)
            if len(part) == n_left:
                padding = (grid.padding_rows(shard), *grid.row_shape)
                self._file.write(_bytes_of(np.full(padding, grid.fill, dtype=grid.dtype)))
                self._file.write(grid.index(shard))
                self._add_file(grid.shard_name(shard), self._file.close())
                self._file = None
        self.n_rows += len(rows)  # of an array without elements, which has no shards

    def _add_file(self, name: str, record: FileRecord) -> None:
        self._files[f"{self.name}/{name}"] = record


def _bytes_of(rows: AnyArray) -> memoryview:
    return rows.reshape(-1).view(np.uint8).data
