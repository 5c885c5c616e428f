"""Arrays of an artifact: written as a stream of rows, read through memory maps."""

from __future__ import annotations

import mmap
import operator
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from store.errors import CorruptArtifact, StoreError
from store.files import FileRecord, NewFile, explained, write_file
from store.grid import Grid
from store.layout import NODE_FILE
from store.manifest import check_plain

AnyArray = npt.NDArray[Any]


class ArrayWriter:
    """Writes an array as its rows come, holding none back.

    As a context manager it closes the array on success and abandons it on an exception; an
    abandoned array keeps its draft from being published. `attributes` may be added to until then.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        grid: Grid,
        attributes: Mapping[str, object] | None,
        record: Callable[[str, FileRecord], None],
    ) -> None:
        self.name, self.grid = name, grid
        self.attributes: dict[str, object] = dict(attributes or {})
        self.n_rows = 0
        """Rows appended so far."""
        self.state: Literal["open", "closed", "abandoned"] = "open"
        self._folder = folder
        self._record = record
        self._shard = 0
        self._file: NewFile | None = None

    def append(self, rows: AnyArray) -> None:
        """Appends rows: any number of them, of shape (n, *shape[1:]) and the array's dtype.

        Raises StoreError when they do not fit the array or cannot be written.
        """
        self._check_open()
        rows = np.asarray(rows)
        self._check_fit(rows)
        try:
            self._append(np.ascontiguousarray(rows, dtype=self.grid.dtype))
        except BaseException:  # a part may be written: the stream cannot go on from here
            self.abandon()
            raise

    def close(self) -> None:
        """Finishes the array. Raises StoreError when rows are wanting."""
        self._check_open()
        if self.n_rows != self.grid.n_rows:
            self.abandon()
            raise StoreError(
                f"array {self.name!r} got {self.n_rows} of its {self.grid.n_rows} rows; append "
                "them all, or declare the number that there is"
            )
        check_plain(self.attributes, f"attributes of array {self.name!r}")
        node = msgspec.json.format(
            msgspec.json.encode(self.grid.to_zarr(self.attributes)), indent=2
        )
        self._record(NODE_FILE, write_file(self._folder / NODE_FILE, node + b"\n"))
        self.state = "closed"

    def abandon(self) -> None:
        """Gives the array up. Safe to call at any time."""
        if self.state == "open":
            self.state = "abandoned"
        if self._file:
            self._file.abandon()

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.abandon()
        elif self.state == "open":
            self.close()

    def _check_open(self) -> None:
        if self.state != "open":
            raise StoreError(f"array {self.name!r} is {self.state}; nothing can be added to it")

    def _check_fit(self, rows: AnyArray) -> None:
        grid = self.grid
        if rows.dtype.name != grid.dtype.name:
            raise StoreError(
                f"array {self.name!r} holds {grid.dtype.name}, and was given {rows.dtype.name}; "
                "convert the rows before appending, so that no overflow goes unseen"
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
        if grid.n_shards == 0:
            self.n_rows += len(rows)
            return
        while len(rows):
            shard_end = self._shard * grid.rows_per_shard + grid.shard_rows(self._shard)
            part, rows = np.split(rows, [shard_end - self.n_rows])
            self._write(part)
            self.n_rows += len(part)
            if self.n_rows == shard_end:
                self._finish_shard()

    def _write(self, rows: AnyArray) -> None:
        if self._file is None:
            self._file = NewFile(self._folder / self.grid.shard_name(self._shard))
        self._file.write(rows.reshape(-1).view(np.uint8).data)

    def _finish_shard(self) -> None:
        grid, shard, file = self.grid, self._shard, self._file
        assert file is not None  # a shard has rows
        padding = (grid.padding_rows(shard), *grid.row_shape)
        self._write(np.full(padding, grid.fill, dtype=grid.dtype))
        file.write(grid.index(shard))
        self._record(grid.shard_name(shard), file.close())
        self._file, self._shard = None, shard + 1


class Array:
    """An array of a published artifact. Rows are along the first axis.

    `array[i]` and `array[a:b]` are views of memory-mapped files where the rows lie in one shard,
    else copies; neither looks at digests, `read` does.
    """

    def __init__(
        self, path: str, grid: Grid, attributes: dict[str, Any], files: Mapping[str, FileRecord]
    ) -> None:
        self.path = path
        self.grid = grid
        self.attributes = attributes
        self._files = files
        self._maps: dict[int, AnyArray] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy in another process, such as a data loader's, maps the files anew.
        return Array, (self.path, self.grid, self.attributes, self._files)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.grid.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.grid.dtype

    @property
    def nbytes(self) -> int:
        return self.grid.n_rows * self.grid.row_nbytes

    def __len__(self) -> int:
        return self.grid.n_rows

    def __repr__(self) -> str:
        return f"Array({self.path!r}, shape={self.shape}, dtype={self.dtype.name})"

    def memmaps(self) -> list[AnyArray]:
        """The rows of each shard, as read-only arrays over memory-mapped files.

        Raises CorruptArtifact when a file has another size or index than it was written with.
        """
        return [self._map(shard) for shard in range(self.grid.n_shards)]

    def __getitem__(self, rows: int | slice) -> AnyArray:
        """One row, or a range of rows. Raises IndexError as numpy does."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                return self.take(np.arange(start, stop, step))
            return self._range(start, max(start, stop))
        try:
            row = operator.index(rows)
        except TypeError:
            raise TypeError(
                f"arrays are indexed by a row or a range of rows, not by {type(rows).__name__}; "
                "use take(rows) for a list of them"
            ) from None
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of an array of {len(self)} rows")
        row %= len(self)
        values: AnyArray = self._range(row, row + 1)[0]
        return values

    def take(self, rows: npt.ArrayLike) -> AnyArray:
        """A copy of the given rows, in the order given; negative ones count from the end.

        Files are read in ascending order, whatever the order asked for. Raises IndexError.
        """
        wanted = np.asarray(rows)
        if wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
            raise IndexError("take needs a one-dimensional array of row numbers")
        if wanted.size and not -len(self) <= int(wanted.min()) <= int(wanted.max()) < len(self):
            raise IndexError(f"rows {wanted.min()} to {wanted.max()} of an array of {len(self)}")
        wanted = wanted.astype(np.int64) % max(1, len(self))
        out = np.empty((len(wanted), *self.grid.row_shape), self.dtype)
        if self.grid.n_shards == 0:
            return out
        order = np.argsort(wanted, kind="stable")
        shards, local = np.divmod(wanted[order], self.grid.rows_per_shard)
        for shard in np.unique(shards):
            here = slice(*np.searchsorted(shards, [shard, shard + 1]))
            out[order[here]] = self._map(int(shard))[local[here]]
        return out

    def read(self) -> AnyArray:
        """The whole array in memory, checked against its digests. Raises CorruptArtifact."""
        out = np.empty(self.shape, self.dtype)
        start = 0
        for shard in range(self.grid.n_shards):
            stop = start + self.grid.shard_rows(shard)
            self._read_into(out[start:stop], shard)
            start = stop
        return out

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> AnyArray:
        if copy is False:
            raise ValueError("an array of an artifact is not in memory; use memmaps()")
        return self.read().astype(dtype or self.dtype, copy=False)

    def _range(self, start: int, stop: int) -> AnyArray:
        n = self.grid.rows_per_shard
        if start == stop or self.grid.n_shards == 0:
            return np.empty((stop - start, *self.grid.row_shape), self.dtype)
        parts = [
            self._map(shard)[max(start - shard * n, 0) : stop - shard * n]
            for shard in range(start // n, (stop - 1) // n + 1)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _map(self, shard: int) -> AnyArray:
        """Rows of a shard, its file mapped on first use."""
        if shard not in self._maps:
            grid, path = self.grid, self._shard_path(shard)
            with explained("map", path), open(path, "rb") as file:
                # Touching a mapped page past the end of a short file would kill the process.
                n_bytes = os.fstat(file.fileno()).st_size
                if n_bytes != grid.shard_nbytes(shard):
                    raise CorruptArtifact(
                        f"{path} has {n_bytes} bytes where {grid.shard_nbytes(shard)} were written"
                    )
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if content[-grid.index_nbytes :] != grid.index(shard):
                raise CorruptArtifact(f"{path} has a damaged index")
            shape = (grid.shard_rows(shard), *grid.row_shape)
            self._maps[shard] = np.ndarray(shape, grid.dtype, buffer=content)
        return self._maps[shard]

    def _read_into(self, rows: AnyArray, shard: int) -> None:
        path = self._shard_path(shard)
        hasher = xxhash.xxh3_128()
        payload = rows.reshape(-1).view(np.uint8).data
        with explained("read", path), open(path, "rb") as file:
            n = file.readinto(payload)
            rest = file.read()
        hasher.update(payload)
        hasher.update(rest)
        expected = self._files[self.grid.shard_name(shard)]
        if (n + len(rest), hasher.hexdigest()) != (expected.size, expected.xxh3):
            raise CorruptArtifact(f"{path} is not as it was written: its digest differs")

    def _shard_path(self, shard: int) -> str:
        return f"{self.path}/{self.grid.shard_name(shard)}"
