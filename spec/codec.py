"""Compression of stored arrays."""

from typing import Literal

from pydantic import Field

from spec.base import Spec


class Blosc(Spec):
    """Blosc, which compresses what repeats: sparse codes, labels, scores with many zeros.

    `shuffle` groups the bits, or bytes, of equal significance first. `delta` stores the differences
    between neighbouring integers: for sorted ones. `clevel` is from 0, no compression, to 9, the
    slowest.
    """

    cname: Literal["zstd", "lz4", "lz4hc", "zlib", "blosclz"] = "zstd"
    clevel: int = Field(default=5, ge=0, le=9)
    shuffle: Literal["noshuffle", "shuffle", "bitshuffle"] = "bitshuffle"
    delta: bool = False
