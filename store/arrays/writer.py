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
from store.arrays.shard_file import NewShard
from store.errors import StoreError
from store.io import FileRecord, link_file, write_file
from store.json_values import check_json
from store.layout import NODE_FILE

AnyArray = npt.NDArray[Any]


class ArrayWriter:
    """Writes appended rows at once; only a chunk to be compressed is buffered.

    The number of rows may be unknown until `close`. Without `rows_per_shard` there is one file.
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
        *,
        expected_rows: int | None,
        rows_per_shard: int | None,
    ) -> None:
        self.name = name
        self.grid = grid
        """Of an array whose number of rows is not known yet, what is known."""
        self.attributes: dict[str, object] = dict(attributes or {})
        self.n_rows = 0
        """Rows appended so far."""
        self.is_open = True
        self._folder = artifact / name
        self._files = files
        self._expected_rows, self._rows_per_shard = expected_rows, rows_per_shard
        self._shard: NewShard | None = None
        self._n_shards = 0
        """Files that are finished."""

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
        ours, whole, n_rows = self.grid, self._rows_per_shard, self.n_rows + len(rows)
        fits = (
            whole is not None
            and len(rows.pieces) == 1
            and replace(rows.grid, shape=ours.shape) == ours
            and rows.shape[1:] == ours.row_shape
            and self.n_rows % whole == 0
            and (self._expected_rows is None or n_rows <= self._expected_rows)
            and (len(rows) % whole == 0 or n_rows == self._expected_rows)
        )
        if not fits:
            raise StoreError(
                f"array {self.name!r} of shape {ours.shape} in files of {ours.rows_per_shard} rows "
                f"cannot link the files of {rows!r} at row {self.n_rows}: they are not whole "
                "shards of this array"
            )
        try:
            for shard in rows.shards:
                name = ours.shard_name(self._n_shards)
                link_file(shard.path, self._folder / name, shard.record)
                self._add_file(name, shard.record)
                self._n_shards += 1
        except BaseException:
            self.abandon()
            raise
        self.n_rows = n_rows

    def close(self) -> None:
        """Finish the array. Raises StoreError where rows are missing."""
        self._check_open()
        if self._expected_rows is None:
            if self._rows_per_shard is None:
                self.grid = self.grid.in_one_shard(self.n_rows, self.grid.rows_per_chunk)
            else:
                self.grid = self.grid.with_rows(self.n_rows)
        elif self.n_rows != self._expected_rows:
            self.abandon()
            raise StoreError(
                f"array {self.name!r} got {self.n_rows} of its {self._expected_rows} rows; append "
                "all of them, or declare the right number"
            )
        self._end_shard()
        check_json(self.attributes, f"attributes of array {self.name!r}")
        node = msgspec.json.format(
            msgspec.json.encode(self.grid.to_zarr(self.attributes)), indent=2
        )
        self._add_file(NODE_FILE, write_file(self._folder / NODE_FILE, [node, b"\n"]))
        self.is_open = False

    def abandon(self) -> None:
        """Stop writing the array. Safe to call at any time."""
        self.is_open = False
        if self._shard:
            self._shard.abandon()

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
        n_rows = self.n_rows + len(rows)
        if self._expected_rows is not None and n_rows > self._expected_rows:
            raise StoreError(
                f"array {self.name!r} has {self._expected_rows} rows, and was given {n_rows}"
            )

    def _append(self, rows: AnyArray) -> None:
        while len(rows) and self.grid.row_nbytes:  # else there are no files
            if self._shard is None:
                self._shard = NewShard(
                    self._folder / self.grid.shard_name(self._n_shards), self.grid
                )
            room = len(rows)
            if self._rows_per_shard is not None:
                room = self._rows_per_shard - self._shard.n_rows
            part, rows = rows[:room], rows[room:]
            self._shard.append(part)
            self.n_rows += len(part)
            if self._shard.n_rows == self._rows_per_shard:
                self._end_shard()
        self.n_rows += len(rows)

    def _end_shard(self) -> None:
        if self._shard:
            self._add_file(self.grid.shard_name(self._n_shards), self._shard.close(self.grid))
            self._shard = None
            self._n_shards += 1

    def _add_file(self, name: str, record: FileRecord) -> None:
        self._files[f"{self.name}/{name}"] = record
