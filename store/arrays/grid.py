"""The geometry of an array on disk: rows, chunks and shards, and its Zarr metadata.

An array is cut along its first axis only. A shard file is its chunks one after another from offset
0, then an index of the chunks. Without a codec, chunks are in plain C order, so that rows can be
memory-mapped; the index then follows from the geometry, and any other index is damage.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from store.arrays.codecs import BYTES, Blosc
from store.errors import StoreError

DTYPES = (
    *("float16", "float32", "float64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)

_MISSING = (1 << 64) - 1
_CRC_NBYTES = 4

ENTRY = np.dtype([("offset", "<u8"), ("nbytes", "<u8")])
Entries = npt.NDArray[Any]
"""Offset and size of the chunks in a shard file: an array of ENTRY."""


@dataclass(frozen=True)
class Grid:
    """Rows of shape `shape[1:]`, in chunks of `rows_per_chunk`, in shards of `rows_per_shard`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows_per_chunk: int
    rows_per_shard: int
    codec: Blosc | None = None

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        dtype: object,
        *,
        rows_per_chunk: int = 1,
        rows_per_shard: int | None = None,
        codec: Blosc | None = None,
    ) -> Grid:
        """Return the grid of a new array. Without `rows_per_shard`, all rows are in one shard.

        Raises StoreError.
        """
        if len(shape) == 0:
            raise StoreError("an array needs rows; put a single value in the attributes")
        if min(shape) < 0 or rows_per_chunk < 1:
            raise StoreError(f"no array has shape {shape} in chunks of {rows_per_chunk} rows")
        try:
            plain = np.dtype(dtype).newbyteorder("<")  # type: ignore[call-overload]
        except TypeError:
            plain = None
        if plain is None or plain.name not in DTYPES:
            raise StoreError(f"arrays of {dtype} cannot be stored; use one of {', '.join(DTYPES)}")
        if rows_per_shard is None:
            rows_per_shard = _whole_chunks(shape[0], rows_per_chunk)
        if rows_per_shard < 1 or rows_per_shard % rows_per_chunk:
            raise StoreError(
                f"a shard of {rows_per_shard} rows does not hold whole chunks of {rows_per_chunk}; "
                "make rows_per_shard a multiple of rows_per_chunk"
            )
        grid = cls(tuple(map(int, shape)), plain, int(rows_per_chunk), int(rows_per_shard), codec)
        if codec:
            codec.check(plain, grid.rows_per_chunk * grid.row_nbytes)
        return grid

    def with_rows(self, n_rows: int) -> Grid:
        """Return the grid for another number of rows."""
        return replace(self, shape=(n_rows, *self.row_shape))

    def in_one_shard(self, n_rows: int, rows_per_chunk: int) -> Grid:
        """Return the grid for another number of rows, in one shard."""
        return replace(
            self.with_rows(n_rows),
            rows_per_chunk=rows_per_chunk,
            rows_per_shard=_whole_chunks(n_rows, rows_per_chunk),
        )

    def grouped(self, n: int) -> Grid:
        """Return the grid of the same bytes as rows of `n` rows each.

        Raises ValueError where a chunk or the whole does not consist of such groups.
        """
        if n < 1 or self.rows_per_chunk % n or self.n_rows % n:
            raise ValueError(f"an array of shape {self.shape} has no groups of {n} rows")
        return replace(
            self,
            shape=(self.n_rows // n, n, *self.row_shape),
            rows_per_chunk=self.rows_per_chunk // n,
            rows_per_shard=self.rows_per_shard // n,
        )

    @property
    def n_rows(self) -> int:
        return self.shape[0]

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self.shape[1:]

    @cached_property
    def row_nbytes(self) -> int:
        return math.prod(self.row_shape) * self.dtype.itemsize

    @cached_property
    def n_shards(self) -> int:
        """Number of shard files; 0 for an array without elements."""
        return -(-self.n_rows // self.rows_per_shard) if self.row_nbytes else 0

    def shard_name(self, shard: int) -> str:
        """Return the file name of a shard within the folder of the array."""
        return ".".join(["c", str(shard), *("0" for _ in self.row_shape)])

    def shard_rows(self, shard: int) -> int:
        """Return the number of rows in a shard: the last may have fewer than `rows_per_shard`."""
        return min(self.rows_per_shard, self.n_rows - shard * self.rows_per_shard)

    def shard_chunks(self, shard: int) -> int:
        """Return the number of chunks in a shard."""
        return -(-self.shard_rows(shard) // self.rows_per_chunk)

    @property
    def index_nbytes(self) -> int:
        return self.rows_per_shard // self.rows_per_chunk * ENTRY.itemsize + _CRC_NBYTES

    def raw_entries(self, n_chunks: int) -> Entries:
        """Return offset and size of each chunk in a shard that is not compressed."""
        entries = np.empty(n_chunks, ENTRY)
        nbytes = self.rows_per_chunk * self.row_nbytes
        entries["offset"] = np.arange(n_chunks, dtype="<u8") * np.uint64(nbytes)
        entries["nbytes"] = nbytes
        return entries

    def encode_index(self, entries: Entries) -> bytes:
        """Return the end of a shard file: offset and size of every chunk, then their crc32c."""
        found = np.full(self.rows_per_shard // self.rows_per_chunk, _MISSING, dtype=ENTRY)
        found[: len(entries)] = entries
        body = found.tobytes()
        return body + struct.pack("<I", google_crc32c.value(body))

    def decode_index(self, data: bytes, n_chunks: int) -> Entries:
        """Invert `encode_index`. Raises ValueError where the bytes are no index of `n_chunks`."""
        entries = np.frombuffer(data[:-_CRC_NBYTES], ENTRY)[:n_chunks]
        if self.encode_index(entries) != data:
            raise ValueError("has a damaged index")
        return entries

    @property
    def fill(self) -> float | bool:
        """Value that fills up chunks, and that other Zarr readers show for a lost chunk."""
        if self.dtype.kind == "f":
            return math.nan
        return False if self.dtype.kind == "b" else 0

    def to_zarr(self, attributes: Mapping[str, object]) -> dict[str, Any]:
        """Return the zarr.json of the array."""
        # Zarr requires chunks of at least one element, even for an array without elements.
        row_shape = [max(1, n) for n in self.row_shape]
        sharding = {
            "chunk_shape": [self.rows_per_chunk, *row_shape],
            "codecs": self.codec.to_zarr(self.dtype) if self.codec else [BYTES],
            "index_codecs": [BYTES, {"name": "crc32c"}],
            "index_location": "end",
        }
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype.name,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [self.rows_per_shard, *row_shape]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": "NaN" if self.dtype.kind == "f" else self.fill,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": dict(attributes),
        }

    @classmethod
    def from_zarr(cls, node: Mapping[str, Any]) -> Grid:
        """Invert `to_zarr`. Raises ValueError for metadata that `to_zarr` does not produce."""
        try:
            sharding = node["codecs"][0]["configuration"]
            inner, codecs = sharding["chunk_shape"], sharding["codecs"]
            outer = node["chunk_grid"]["configuration"]["chunk_shape"]
            grid = cls(
                tuple(node["shape"]),
                np.dtype(node["data_type"]).newbyteorder("<"),
                inner[0],
                outer[0],
                None if codecs == [BYTES] else Blosc.from_zarr(codecs),
            )
            if grid.to_zarr(node["attributes"]) == node:
                return grid
        except (LookupError, TypeError):
            pass
        raise ValueError("its metadata is not that of an array written by saevx")


def _whole_chunks(n_rows: int, rows_per_chunk: int) -> int:
    """Return the rows of the fewest chunks, at least one, that hold `n_rows`."""
    return max(1, -(-n_rows // rows_per_chunk)) * rows_per_chunk
