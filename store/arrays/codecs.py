"""Compression of chunks, for arrays that compress: sparse codes, labels, scores with many zeros."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from store.errors import StoreError

AnyArray = npt.NDArray[Any]
Node = dict[str, Any]

BYTES: Node = {"name": "bytes", "configuration": {"endian": "little"}}
"""The codec that turns the elements of a chunk into bytes."""

_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
_MAX_NBYTES = (1 << 31) - 1
"""Blosc does not compress more than this at once."""


@dataclass(frozen=True)
class Blosc:
    """Blosc, with a filter that groups the bytes or bits of equal significance.

    `delta` stores the differences between neighbouring elements, in C order: for sorted integers,
    such as row pointers. Not for floats, which it would round.
    """

    cname: Literal["zstd", "lz4", "lz4hc", "zlib", "blosclz"] = "zstd"
    clevel: int = 5
    """From 0 (none) to 9 (slowest and smallest)."""
    shuffle: Literal["noshuffle", "shuffle", "bitshuffle"] = "bitshuffle"
    delta: bool = False

    def check(self, dtype: np.dtype[Any], chunk_nbytes: int) -> None:
        """Raise StoreError where chunks of this dtype and size cannot be compressed."""
        if self.cname not in ("zstd", "lz4", "lz4hc", "zlib", "blosclz"):
            raise StoreError(f"Blosc has no compressor {self.cname!r}; use zstd or lz4")
        if self.shuffle not in _SHUFFLES:
            raise StoreError(f"Blosc cannot {self.shuffle!r}; use one of {', '.join(_SHUFFLES)}")
        if self.clevel not in range(10):
            raise StoreError(f"Blosc has no level {self.clevel!r}; use one from 0 to 9")
        if self.delta and dtype.kind not in "iu":
            raise StoreError(f"delta does not keep {dtype.name} to the bit; use it for integers")
        if chunk_nbytes > _MAX_NBYTES:
            raise StoreError(
                f"Blosc cannot compress a chunk of {chunk_nbytes} bytes; use less rows"
            )

    def encode(self, chunk: AnyArray) -> bytes:
        """Return the compressed chunk: the same bytes wherever it is compressed."""
        import numcodecs
        import numcodecs.blosc

        flat = chunk.reshape(-1)
        if self.delta:
            flat = numcodecs.Delta(dtype=flat.dtype).encode(flat)
        # Threads of Blosc write its blocks in the order in which they finish.
        before, numcodecs.blosc.use_threads = numcodecs.blosc.use_threads, False
        try:
            codec = numcodecs.Blosc(self.cname, self.clevel, _SHUFFLES[self.shuffle])
            return bytes(codec.encode(flat))
        finally:
            numcodecs.blosc.use_threads = before

    def decode(self, data: bytes, out: AnyArray) -> None:
        """Decompress a chunk into `out`. Raises ValueError where it does not fit."""
        import numcodecs

        try:
            payload = numcodecs.Blosc().decode(data)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        flat = np.frombuffer(payload, out.dtype)
        if flat.size != out.size:
            raise ValueError(f"it has {flat.size} elements instead of {out.size}")
        if self.delta:
            flat = numcodecs.Delta(dtype=out.dtype).decode(flat)
        out[...] = flat.reshape(out.shape)

    def to_zarr(self, dtype: np.dtype[Any]) -> list[Node]:
        """Return the codecs of a chunk, as in a zarr.json."""
        difference = {"name": "numcodecs.delta", "configuration": {"dtype": dtype.str}}
        settings: Node = {**asdict(self), "typesize": dtype.itemsize, "blocksize": 0}
        del settings["delta"]
        blosc = {"name": "blosc", "configuration": settings}
        return [*([difference] if self.delta else []), BYTES, blosc]

    @classmethod
    def from_zarr(cls, codecs: Sequence[Node]) -> Blosc:
        """Invert `to_zarr`. Raises LookupError or TypeError for other codecs."""
        settings = cast(Node, codecs[-1]["configuration"])
        names = ("cname", "clevel", "shuffle")
        delta = codecs[0]["name"] == "numcodecs.delta"
        return cls(**{name: settings[name] for name in names}, delta=delta)
