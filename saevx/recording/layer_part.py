"""A part of a layer's recording: the images of one file of patch tokens. `join_parts` joins them.

    patches    (n_tokens, d)             patch tokens, image after image, row by row of the image
    indptr     (n_images + 1,) int64     image i has the tokens indptr[i] to indptr[i + 1]
    grids      (n_images, 2) int32       rows and columns of patches of each image
    cls        (n_images, 1, d) float32  the class token, where the ViT has one
    registers  (n_images, r, d) float32  other tokens before the patches, with prefix="all"
    images     table                     column `file`: the names of the images
    xxh3       (n_images, 16) uint8      xxh3_128 of the bytes of each image's file

Class and register tokens are kept in float32: they are few, and some are too large for float16.
Parts lack `indptr`, and have the sum of their tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from saevx.errors import RecipeError
from saevx.recording.forward_pass import round_tokens
from saevx.recording.moments import Moments
from saevx.vit.model import ViTFacts
from spec import DatasetError

if TYPE_CHECKING:
    import torch

    import store
    from store.arrays.writer import ArrayWriter

SHARD_BYTES = 1 << 30
"""A file of patch tokens has at least this size, where there are enough images. It is also the
approximate size of the files of other arrays."""

CHUNK_BYTES = 1 << 20
"""Approximate size of a chunk of other arrays than patch tokens of images of one grid, whose chunks
are images."""

WHOLE_BATCHES = 64
"""A file of at least so many images holds a multiple of them, so that no batch of a usual size is
cut by its end."""


def images_per_file(n_images: int, facts: ViTFacts, dtype: str) -> int:
    """Return the images per file: SHARD_BYTES of patch tokens or a little more, at most all images.

    It does not depend on the batch size, which is not part of the key.
    """
    image_bytes = facts.n_patches * facts.d_model * np.dtype(dtype).itemsize
    n = -(-SHARD_BYTES // image_bytes)
    return max(1, min(n_images, n if n < WHOLE_BATCHES else n + -n % WHOLE_BATCHES))


def chunking(shape: tuple[int, ...], dtype: npt.DTypeLike) -> dict[str, Any]:
    """Return rows per chunk and per file of an array that is cut by size alone."""
    n_rows, row_bytes = shape[0], math.prod(shape[1:]) * np.dtype(dtype).itemsize
    rows_per_chunk = max(1, min(n_rows, CHUNK_BYTES // row_bytes))
    chunks_per_shard = max(1, SHARD_BYTES // (rows_per_chunk * row_bytes))
    return {
        "rows_per_chunk": rows_per_chunk,
        "rows_per_shard": rows_per_chunk * min(chunks_per_shard, -(-n_rows // rows_per_chunk) or 1),
    }


Prefix = Literal["cls", "all", "none"]
"""Which tokens before the patches are kept."""


def _prefix_places(facts: ViTFacts, prefix: Prefix) -> dict[str, range]:
    """Return the places of the tokens before the patches, by the array that keeps them."""
    n_cls = int(facts.has_cls)  # the class token comes first
    found = {"cls": range(n_cls), "registers": range(n_cls, facts.n_prefix)}
    kept = {"cls": ("cls",), "all": ("cls", "registers"), "none": ()}[prefix]
    return {name: places for name, places in found.items() if name in kept and places}


class LayerPart:
    """A sink that writes images of a layer into a draft, their patch tokens into one file.

    The images have the grid of the ViT; with `ragged`, each batch has its own.
    """

    def __init__(
        self,
        draft: store.Draft,
        layer: int,
        facts: ViTFacts,
        names: Sequence[str],
        *,
        dtype: str,
        prefix: Prefix,
        images_per_file: int,
        ragged: bool = False,
    ) -> None:
        self._draft, self._layer, self._facts, self._dtype = draft, layer, facts, dtype
        n_images, d = len(names), facts.d_model
        self._names = _checked_names(names)
        self._ragged = ragged
        cut: dict[str, Any] = {}
        if ragged:  # images of different sizes cannot be chunks
            cut["rows_per_chunk"] = max(1, CHUNK_BYTES // (d * np.dtype(dtype).itemsize))
        else:
            cut["rows_per_chunk"] = facts.n_patches
            cut["rows_per_shard"] = images_per_file * facts.n_patches
        self._patches = draft.array("patches", (None, d), dtype, **cut)
        self._prefix: list[tuple[ArrayWriter, range]] = []
        """The writers of tokens before the patches, and the places of these tokens."""
        for name, places in _prefix_places(facts, prefix).items():
            shape = (n_images, len(places), d)
            writer = draft.array(name, shape, "float32", **chunking(shape, "float32"))
            self._prefix.append((writer, places))
        self._grids: list[tuple[int, int]] = []
        self._moments = Moments(d)

    def append(self, names: Sequence[str], tokens_bnd: torch.Tensor, grid: tuple[int, int]) -> None:
        """Append the tokens of the next images, which have the same grid. Raises Overflow."""
        facts, layer = self._facts, self._layer
        n_patches = grid[0] * grid[1]
        fits = tokens_bnd.shape[1:] == (facts.n_prefix + n_patches, facts.d_model)
        if not fits or (grid != facts.grid and not self._ragged):
            raise RecipeError(
                f"layer {layer} returned shape {tuple(tokens_bnd.shape)} for a grid of {grid}, "
                f"which does not fit {facts}"
            )
        patches_npd = round_tokens(tokens_bnd[:, facts.n_prefix :], self._dtype, layer, names)
        self._patches.append(patches_npd.reshape(-1, facts.d_model))
        self._grids += [grid] * len(tokens_bnd)
        for writer, places in self._prefix:
            tokens = tokens_bnd[:, places.start : places.stop]
            writer.append(round_tokens(tokens, "float32", layer, names))
        for tokens_pd in patches_npd:
            self._moments.add_image(tokens_pd)

    def abandon(self) -> None:
        """Drop the layer; its draft can no longer be published."""
        self._patches.abandon()
        for writer, _ in self._prefix:
            writer.abandon()

    def finish(
        self, digests: Sequence[str], facts: dict[str, Any], computed: dict[str, Any]
    ) -> dict[str, Any]:
        """Close the arrays and return the attributes that `join` needs.

        `digests` are those of the images' bytes, in hexadecimal. `facts` must be the same for all
        parts of a layer. `computed` says on what the tokens were computed, which may change their
        last bits.
        """
        import polars as pl

        self._patches.close()
        for writer, _ in self._prefix:
            writer.close()
        self._draft.write("sum", self._moments.sum_d)
        self._draft.table("images", pl.DataFrame({"file": self._names}))
        rows = np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(-1, 16)
        self._draft.write("xxh3", rows)
        self._draft.write("grids", np.array(self._grids, np.int32))
        return {
            "n_tokens": self._moments.n_tokens,
            "sum_squares": self._moments.sum_squares,
            "facts": {"grid": None if self._ragged else list(self._facts.grid), **facts},
            "computed": computed,
        }


def _checked_names(names: Sequence[str]) -> list[str]:
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DatasetError(
                f"the file name {name!r} is not valid UTF-8: rename the file"
            ) from error
    return list(names)
