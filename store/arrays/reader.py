"""Read arrays of a published artifact through memory maps."""

from __future__ import annotations

import mmap
import operator
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from store.arrays.grid import Grid
from store.errors import CorruptArtifact
from store.io import FileRecord, explained

AnyArray = npt.NDArray[Any]


class Array:
    """An array of a published artifact. Rows are along the first axis.

    `array[i]` and `array[a:b]` return views of memory-mapped files where the rows are in one
    shard, else copies. They do not compare digests; `read` does.
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
        # A copy in another process, such as a data loader, maps the files itself.
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

    def shard_files(self) -> Iterator[tuple[str, FileRecord]]:
        """Yield the path of each shard file in order, and its expected content."""
        for shard in range(self.grid.n_shards):
            yield self._shard_path(shard), self._files[self.grid.shard_name(shard)]

    def memmaps(self) -> list[AnyArray]:
        """Return the rows of each shard as read-only arrays over memory-mapped files.

        Raises CorruptArtifact where a file does not have the size or index that was written.
        """
        return [self._map(shard) for shard in range(self.grid.n_shards)]

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
        """Read the whole array and compare it with its digests. Raises CorruptArtifact."""
        out = np.empty(self.shape, self.dtype)
        start = 0
        for shard in range(self.grid.n_shards):
            stop = start + self.grid.shard_rows(shard)
            self._read_into(out[start:stop], shard)
            start = stop
        return out

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> AnyArray:
        if copy is False:
            raise ValueError("a stored array must be copied to memory; use memmaps() for views")
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
        """Return the rows of a shard; its file is mapped on first use."""
        if shard not in self._maps:
            grid, path = self.grid, self._shard_path(shard)
            with explained("map", path), open(path, "rb") as file:
                # Access to a mapped page past the end of a short file would kill the process.
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
