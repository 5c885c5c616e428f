"""One shard file of an array: written row by row, and read through a memory map or by chunks."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from store.arrays.grid import ENTRY, Entries, Grid
from store.arrays.memory_map import map_file
from store.errors import CorruptArtifact, StoreError
from store.io import FileRecord, NewFile, explained

AnyArray = npt.NDArray[Any]


class NewShard:
    """A shard file that is being written. Only chunks that are compressed are buffered."""

    def __init__(self, path: Path, grid: Grid) -> None:
        self.n_rows = 0
        self._grid = grid
        self._file = NewFile(path)
        self._sizes: list[int] = []
        """Compressed sizes of the chunks so far, with a codec."""
        buffered = grid.rows_per_chunk if grid.codec else 0
        self._chunk: AnyArray = np.empty((buffered, *grid.row_shape), grid.dtype)

    def append(self, rows: AnyArray) -> None:
        """Append rows that are contiguous and of the array's dtype."""
        if self._grid.codec is None:
            self._file.write(_bytes_of(rows))
            self.n_rows += len(rows)
            return
        while len(rows):
            filled = self.n_rows % self._grid.rows_per_chunk
            part = rows[: self._grid.rows_per_chunk - filled]
            self._chunk[filled : filled + len(part)] = part
            self.n_rows += len(part)
            rows = rows[len(part) :]
            if self.n_rows % self._grid.rows_per_chunk == 0:
                data = self._grid.codec.encode(self._chunk)
                self._file.write(data)
                self._sizes.append(len(data))

    def close(self, grid: Grid) -> FileRecord:
        """Fill up the last chunk, write the index and flush the file.

        `grid` is that of the finished array, whose number of rows may have been unknown before.
        """
        missing = -self.n_rows % grid.rows_per_chunk
        self.append(np.full((missing, *grid.row_shape), grid.fill, dtype=grid.dtype))
        if grid.codec is None:
            entries = grid.raw_entries(self.n_rows // grid.rows_per_chunk)
        else:
            entries = np.empty(len(self._sizes), ENTRY)
            entries["nbytes"] = self._sizes
            entries["offset"] = np.cumsum([0, *self._sizes])[:-1]
        self._file.write(grid.encode_index(entries))
        return self._file.close()

    def abandon(self) -> None:
        """Stop writing. Safe to call at any time."""
        self._file.abandon()


@dataclass
class ShardFile:
    """A shard file of a published array. It holds no descriptor open."""

    path: str
    record: FileRecord
    """Its expected content."""
    grid: Grid
    """That of its array, or of its piece of one."""
    shard: int
    """Its number in that grid."""
    source: ShardFile | None = None
    """The same file with another grid, whose map is used."""
    _latest: tuple[int, AnyArray] | None = field(default=None, init=False, repr=False)
    """Number and rows of the chunk that was decompressed last."""

    def __reduce__(self) -> tuple[Any, ...]:  # without the map
        return ShardFile, (self.path, self.record, self.grid, self.shard, self.source)

    def grouped(self, n: int) -> ShardFile:
        """Return the same rows in groups of `n`."""
        return ShardFile(self.path, self.record, self.grid.grouped(n), self.shard, self)

    @property
    def n_rows(self) -> int:
        return self.grid.shard_rows(self.shard)

    @cached_property
    def mapped(self) -> AnyArray:
        """All rows, as a read-only array over a memory map of the file.

        Raises StoreError for a compressed array, and CorruptArtifact where the file does not have
        the size or index that was written.
        """
        grid = self.grid
        if self.source:
            return self.source.mapped.reshape(self.n_rows, *grid.row_shape)
        if grid.codec:
            raise StoreError(
                f"{self.path} is compressed and cannot be mapped; index the array, or use read()"
            )
        with explained("map", self.path), open(self.path, "rb", buffering=0) as file:
            self._check_size(os.fstat(file.fileno()).st_size)
            content = map_file(file.fileno(), self.record.size)
        self._check_index(content[-grid.index_nbytes :].tobytes())
        n_elements = self.n_rows * grid.row_nbytes // grid.dtype.itemsize
        rows = content[: n_elements * grid.dtype.itemsize].view(grid.dtype)
        return rows.reshape(self.n_rows, *grid.row_shape)

    def rows(self, start: int, stop: int) -> AnyArray:
        """Return a range of rows: a view if the array is not compressed, else a copy."""
        if self.grid.codec is None:
            view: AnyArray = self.mapped[start:stop]
            return view
        c = self.grid.rows_per_chunk
        first = start // c
        chunks = [self._chunk(chunk) for chunk in range(first, -(-stop // c))]
        return np.concatenate(chunks)[start - first * c : stop - first * c]

    def take(self, rows: npt.NDArray[np.int64]) -> AnyArray:
        """Return a copy of rows, given in ascending order."""
        if self.grid.codec is None:
            copied: AnyArray = self.mapped[rows]
            return copied
        out = np.empty((len(rows), *self.grid.row_shape), self.grid.dtype)
        chunks, within = np.divmod(rows, self.grid.rows_per_chunk)
        for chunk in np.unique(chunks).tolist():
            here = slice(*np.searchsorted(chunks, [chunk, chunk + 1]))
            out[here] = self._chunk(chunk)[within[here]]
        return out

    def read_into(self, rows: AnyArray) -> None:
        """Read all rows and compare the file with its digest. Raises CorruptArtifact."""
        hasher = xxhash.xxh3_128()
        with explained("read", self.path), open(self.path, "rb", buffering=0) as file:
            payload = _bytes_of(rows) if self.grid.codec is None else memoryview(b"")
            n = 0
            while n < len(payload) and (got := file.readinto(payload[n:])):
                n += got
            rest = file.readall()
        hasher.update(payload)
        hasher.update(rest)
        if (n + len(rest), hasher.hexdigest()) != (self.record.size, self.record.xxh3):
            raise CorruptArtifact(f"{self.path} is not as it was written: its digest differs")
        if self.grid.codec:
            c = self.grid.rows_per_chunk
            for chunk, (offset, nbytes) in enumerate(self._entries.tolist()):
                part = rows[chunk * c : (chunk + 1) * c]
                part[...] = self._decode(rest[offset : offset + nbytes], chunk)[: len(part)]

    @cached_property
    def _entries(self) -> Entries:
        """Offset and size of each chunk of a compressed file."""
        n = self.grid.index_nbytes
        with explained("read", self.path), open(self.path, "rb", buffering=0) as file:
            self._check_size(os.fstat(file.fileno()).st_size)
            return self._check_index(os.pread(file.fileno(), n, self.record.size - n))

    def _chunk(self, chunk: int) -> AnyArray:
        """Return the rows of a compressed chunk. The latest one is kept until `forget`."""
        kept = self._latest
        if kept is None or kept[0] != chunk:
            offset, nbytes = self._entries[chunk].tolist()
            with explained("read", self.path), open(self.path, "rb", buffering=0) as file:
                data = os.pread(file.fileno(), nbytes, offset)
            self._latest = kept = chunk, self._decode(data, chunk)
        return kept[1]

    def forget(self) -> None:
        """Drop the decompressed chunk."""
        self._latest = None

    def _decode(self, data: bytes, chunk: int) -> AnyArray:
        assert self.grid.codec is not None
        rows = np.empty((self.grid.rows_per_chunk, *self.grid.row_shape), self.grid.dtype)
        try:
            self.grid.codec.decode(data, rows)
        except ValueError as error:
            raise CorruptArtifact(f"{self.path}: chunk {chunk} is damaged: {error}") from error
        rows.flags.writeable = False
        return rows

    def _check_size(self, n_bytes: int) -> None:
        # Access to a mapped page past the end of a short file would kill the process.
        if n_bytes != self.record.size:
            raise CorruptArtifact(
                f"{self.path} has {n_bytes} bytes where {self.record.size} were written"
            )

    def _check_index(self, data: bytes) -> Entries:
        n_chunks = self.grid.shard_chunks(self.shard)
        try:
            entries = self.grid.decode_index(data, n_chunks)
        except ValueError as error:
            raise CorruptArtifact(f"{self.path} {error}") from error
        # Any other index of an array that is not compressed is damage, its size included.
        if self.grid.codec is None and not (
            np.array_equal(entries, self.grid.raw_entries(n_chunks))
            and self.record.size == entries["nbytes"].sum() + len(data)
        ):
            raise CorruptArtifact(f"{self.path} has a damaged index")
        return entries


def _bytes_of(rows: AnyArray) -> memoryview:
    return rows.reshape(-1).view(np.uint8).data
