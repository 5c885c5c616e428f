"""The geometry of an array on disk: rows, chunks and shards, and its Zarr metadata.

An array is cut along its first axis only. A shard file is its chunks one after another in plain C
order from offset 0, so that its rows can be memory-mapped, then an index of the chunks. Nothing is
compressed, so the index follows from the geometry, and any other index is damage.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import google_crc32c
import numpy as np

from store.errors import StoreError

DTYPES = (
    *("float16", "float32", "float64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)

_MISSING = (1 << 64) - 1
_ENTRY = np.dtype([("offset", "<u8"), ("nbytes", "<u8")])
_CRC_NBYTES = 4


@dataclass(frozen=True)
class Grid:
    """Rows of shape `shape[1:]`, in chunks of `rows_per_chunk`, in shards of `rows_per_shard`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows_per_chunk: int
    rows_per_shard: int

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        dtype: object,
        *,
        rows_per_chunk: int = 1,
        rows_per_shard: int | None = None,
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
            rows_per_shard = max(1, -(-shape[0] // rows_per_chunk)) * rows_per_chunk
        if rows_per_shard < 1 or rows_per_shard % rows_per_chunk:
            raise StoreError(
                f"a shard of {rows_per_shard} rows does not hold whole chunks of {rows_per_chunk}; "
                "make rows_per_shard a multiple of rows_per_chunk"
            )
        return cls(tuple(map(int, shape)), plain, int(rows_per_chunk), int(rows_per_shard))

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

    def padding_rows(self, shard: int) -> int:
        """Return the number of rows that fill up the last chunk of a shard."""
        return -self.shard_rows(shard) % self.rows_per_chunk

    def shard_nbytes(self, shard: int) -> int:
        """Return the size of a shard file in bytes."""
        rows = self.shard_rows(shard) + self.padding_rows(shard)
        return rows * self.row_nbytes + self.index_nbytes

    @property
    def index_nbytes(self) -> int:
        return self.rows_per_shard // self.rows_per_chunk * _ENTRY.itemsize + _CRC_NBYTES

    def index(self, shard: int) -> bytes:
        """Return the end of a shard file: offset and size of every chunk, then their crc32c."""
        n_chunks = -(-self.shard_rows(shard) // self.rows_per_chunk)
        chunk_nbytes = self.rows_per_chunk * self.row_nbytes
        entries = np.full(self.rows_per_shard // self.rows_per_chunk, _MISSING, dtype=_ENTRY)
        entries["offset"][:n_chunks] = np.arange(n_chunks, dtype="<u8") * np.uint64(chunk_nbytes)
        entries["nbytes"][:n_chunks] = chunk_nbytes
        body = entries.tobytes()
        return body + struct.pack("<I", google_crc32c.value(body))

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
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        sharding = {
            "chunk_shape": [self.rows_per_chunk, *row_shape],
            "codecs": [little],
            "index_codecs": [little, {"name": "crc32c"}],
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
            inner = node["codecs"][0]["configuration"]["chunk_shape"]
            outer = node["chunk_grid"]["configuration"]["chunk_shape"]
            grid = cls(
                tuple(node["shape"]),
                np.dtype(node["data_type"]).newbyteorder("<"),
                inner[0],
                outer[0],
            )
            if grid.to_zarr(node["attributes"]) == node:
                return grid
        except (LookupError, TypeError):
            pass
        raise ValueError("its metadata is not that of an array written by saevx")
