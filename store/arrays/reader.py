"""Read arrays of a published artifact."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from store.arrays.grid import Grid
from store.arrays.shard_file import ShardFile
from store.errors import StoreError

AnyArray = npt.NDArray[Any]


class Piece(NamedTuple):
    """An array on disk, or one of several that are read as one."""

    grid: Grid
    shards: tuple[ShardFile, ...]


class Array:
    """An array of a published artifact. Rows are along the first axis.

    `array[i]` and `array[a:b]` return views of memory-mapped files where the rows are in one file
    that is not compressed, else copies. They do not compare digests; `read` does. No descriptor
    stays open, however many files there are.
    """

    def __init__(self, path: str, pieces: Sequence[Piece], attributes: dict[str, Any]) -> None:
        self.path = path
        self.pieces = tuple(pieces)
        self.attributes = attributes
        first = self.pieces[0].grid
        self.shape = (sum(piece.grid.n_rows for piece in self.pieces), *first.row_shape)
        self.dtype = first.dtype
        self.shards = [shard for piece in self.pieces for shard in piece.shards]
        """Its files, in the order of their rows."""
        self._latest = 0
        """The file that was read last."""

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy in another process, such as a data loader, maps the files itself.
        return Array, (self.path, self.pieces, self.attributes)

    @property
    def grid(self) -> Grid:
        """Its geometry on disk. Raises StoreError for an array in pieces, which have one each."""
        if len(self.pieces) > 1:
            raise StoreError(f"{self!r} is in pieces, each with a grid of its own; see `pieces`")
        return self.pieces[0].grid

    @cached_property
    def file_starts(self) -> npt.NDArray[np.int64]:
        """The first row in each file, and the number of rows: (n_files + 1,)."""
        return np.cumsum([0, *(shard.n_rows for shard in self.shards)], dtype=np.int64)

    def grouped(self, n: int) -> Array:
        """Return the same rows in groups of `n`: (n_rows / n, n, ...).

        Raises StoreError where chunks do not consist of whole groups.
        """
        try:
            pieces = [
                Piece(piece.grid.grouped(n), tuple(shard.grouped(n) for shard in piece.shards))
                for piece in self.pieces
            ]
        except ValueError as error:
            raise StoreError(f"{self!r}: {error}") from error
        return Array(self.path, pieces, self.attributes)

    @property
    def nbytes(self) -> int:
        """Size of all rows in memory."""
        return sum(piece.grid.n_rows * piece.grid.row_nbytes for piece in self.pieces)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Array({self.path!r}, shape={self.shape}, dtype={self.dtype.name})"

    def memmaps(self) -> list[AnyArray]:
        """Return the rows of each file as read-only arrays over memory-mapped files.

        Raises CorruptArtifact where a file does not have the size or index that was written, and
        StoreError where the array is compressed.
        """
        return [shard.mapped for shard in self.shards]

    def __getitem__(self, rows: int | slice) -> AnyArray:
        """Return one row, or a range of rows. Raises IndexError as numpy does."""
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
        """Return a copy of the given rows in that order; negative ones count from the end.

        Files are read in ascending order of rows. Raises IndexError.
        """
        wanted = np.asarray(rows)
        if wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
            raise IndexError("take needs a one-dimensional array of row numbers")
        if wanted.size and not -len(self) <= int(wanted.min()) <= int(wanted.max()) < len(self):
            raise IndexError(f"rows {wanted.min()} to {wanted.max()} of an array of {len(self)}")
        wanted = wanted.astype(np.int64) % max(1, len(self))
        out = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        if not self.shards:
            return out
        order = np.argsort(wanted, kind="stable")
        ordered = wanted[order]
        files = np.searchsorted(self.file_starts, ordered, side="right") - 1
        for file in np.unique(files).tolist():
            here = slice(*np.searchsorted(files, [file, file + 1]))
            within: npt.NDArray[np.int64] = ordered[here] - self.file_starts[file]
            out[order[here]] = self._shard(file).take(within)
        return out

    def read(self) -> AnyArray:
        """Read the whole array and compare it with its digests. Raises CorruptArtifact."""
        out = np.empty(self.shape, self.dtype)
        for shard, start in zip(self.shards, self.file_starts.tolist(), strict=False):
            shard.read_into(out[start : start + shard.n_rows])
        return out

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> AnyArray:
        if copy is False:
            raise ValueError("a stored array must be copied to memory; use memmaps() for views")
        return self.read().astype(dtype or self.dtype, copy=False)

    def _range(self, start: int, stop: int) -> AnyArray:
        if start == stop or not self.shards:
            return np.empty((stop - start, *self.shape[1:]), self.dtype)
        starts = self.file_starts
        first, last = (np.searchsorted(starts, [start, stop - 1], side="right") - 1).tolist()
        if first == last:
            return self._shard(first).rows(start - int(starts[first]), stop - int(starts[first]))
        parts = []
        for file in range(first, last + 1):
            shard, skipped = self._shard(file), int(starts[file])
            parts.append(shard.rows(max(start - skipped, 0), min(stop - skipped, shard.n_rows)))
        return np.concatenate(parts)

    def _shard(self, file: int) -> ShardFile:
        """Return a file to read from; only the latest one keeps a decompressed chunk."""
        if file != self._latest:
            self.shards[self._latest].forget()
            self._latest = file
        return self.shards[file]
