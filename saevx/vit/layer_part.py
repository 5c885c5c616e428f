"""A part of a layer's recording: the images of one shard file. A recording joins its parts.

    patches    (n_images, n_patches, d)  patch tokens, row by row of the image
    cls        (n_images, 1, d) float32  the class token, where the ViT has one
    registers  (n_images, r, d) float32  other tokens before the patches, with prefix="all"
    images     table                     column `file`: the names of the images
    xxh3       (n_images, 16) uint8      xxh3_128 of the bytes of each image's file

Class and register tokens are kept in float32: they are few, and some are too large for float16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from saevx.errors import RecipeError
from saevx.vit.forward_pass import round_tokens
from saevx.vit.model import ViTFacts
from saevx.vit.moments import Moments
from spec import DatasetError

if TYPE_CHECKING:
    import torch

    import store

SHARD_BYTES = 256 << 20
"""Approximate size of a file of patch tokens."""

MAX_ROWS_PER_SHARD = 1 << 16
"""Most images in a file: the index has an entry for each."""

MAX_COSINE_OF_CONTROL = 0.9
"""A ViT with random weights whose first and last layers are more alike is no control."""

WHOLE_BATCHES = 64
"""A file of at least so many images holds a multiple of them, so that no batch of a usual size is
cut by its end."""


def rows_per_shard(n_images: int, facts: ViTFacts, dtype: str) -> int:
    """Return the images per shard file: about SHARD_BYTES of tokens, at most all images.

    It does not depend on the batch size, which is not part of the key.
    """
    image_bytes = facts.n_patches * facts.d_model * np.dtype(dtype).itemsize
    rows = max(1, min(SHARD_BYTES // image_bytes, MAX_ROWS_PER_SHARD))
    return min(n_images, rows if rows < WHOLE_BATCHES else rows - rows % WHOLE_BATCHES)


Prefix = Literal["cls", "all", "none"]
"""Which tokens before the patches are kept."""


def _prefix_places(facts: ViTFacts, prefix: Prefix) -> dict[str, range]:
    """Return the places of the tokens before the patches, by the array that keeps them."""
    n_cls = int(facts.has_cls)  # the class token comes first
    found = {"cls": range(n_cls), "registers": range(n_cls, facts.n_prefix)}
    kept = {"cls": ("cls",), "all": ("cls", "registers"), "none": ()}[prefix]
    return {name: places for name, places in found.items() if name in kept and places}


class LayerPart:
    """A sink that writes images of a layer into a draft, as the rows of one shard file."""

    def __init__(
        self,
        draft: store.Draft,
        layer: int,
        facts: ViTFacts,
        names: Sequence[str],
        *,
        dtype: str,
        prefix: Prefix,
        rows_per_shard: int,
    ) -> None:
        self._draft, self._layer, self._facts, self._dtype = draft, layer, facts, dtype
        n_images, d = len(names), facts.d_model
        self._names = _checked_names(names)
        options: dict[str, Any] = {"rows_per_chunk": 1, "rows_per_shard": rows_per_shard}
        self._options = options
        self._patches = draft.array("patches", (n_images, facts.n_patches, d), dtype, **options)
        self._prefix = [
            (draft.array(name, (n_images, len(places), d), "float32", **options), places)
            for name, places in _prefix_places(facts, prefix).items()
        ]
        """The writers of tokens before the patches, and the places of these tokens."""
        self._moments = Moments(d)

    def append(self, names: Sequence[str], tokens_bnd: torch.Tensor) -> None:
        """Append the tokens of the next images. Raises Overflow."""
        facts, layer = self._facts, self._layer
        if tokens_bnd.shape[1:] != (facts.n_prefix + facts.n_patches, facts.d_model):
            raise RecipeError(
                f"layer {layer} returned shape {tuple(tokens_bnd.shape)}, which does not fit "
                f"{facts}"
            )
        patches_npd = round_tokens(tokens_bnd[:, facts.n_prefix :], self._dtype, layer, names)
        self._patches.append(patches_npd)
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
        with self._draft.array("xxh3", rows.shape, "uint8", **self._options) as writer:
            writer.append(rows)
        return {
            "n_tokens": self._moments.n_tokens,
            "sum_squares": self._moments.sum_squares,
            "facts": {"grid": list(self._facts.grid), **facts},
            "computed": computed,
        }


def join(
    parts: Sequence[store.StoredArtifact], draft: store.Draft, n_images: int
) -> dict[str, Any]:
    """Write a layer from its parts, in order, and return its attributes.

    Adds the array `mean`, (d,) float64, over all stored patch tokens. Raises RecipeError when the
    parts do not belong together.
    """
    import polars as pl

    facts = parts[0].manifest.attributes["facts"]
    for part in parts:
        if (found := part.manifest.attributes["facts"]) != facts:
            raise RecipeError(
                f"{parts[0].path} was recorded with {facts}, but {part.path} with {found}: delete "
                f"{part.path.parent} and run again"
            )
    images = pl.concat([part.table("images") for part in parts])
    files = [part.array("patches") for part in parts]
    rows = {file.grid.rows_per_shard for file in files}
    if len(images) != n_images or len(rows) > 1 or any(file.grid.n_shards != 1 for file in files):
        # Another version of saevx, with files of another size, may have started this recording.
        raise RecipeError(
            f"the {len(parts)} parts in {parts[0].path.parent} hold "
            f"{', '.join(str(len(file)) for file in files)} images, instead of one file each of "
            f"{n_images} images: delete that folder and run again"
        )
    draft.table("images", images)
    arrays_of = {
        name: [part.array(name) for part in parts] for name in parts[0].arrays() if name != "sum"
    }
    for name, arrays in arrays_of.items():
        draft.join(name, arrays)
    _, n_patches, d = arrays_of["patches"][0].shape
    moments = Moments(d)
    for part in parts:
        moments.merge(_moments_of(part, d))
    draft.write("mean", moments.mean)
    computed = _unique([part.manifest.attributes["computed"] for part in parts])
    return {
        "n_images": len(images),
        "n_patches": n_patches,
        "computed": computed,
        "warnings": [*_warnings_of_differences(computed), *_warnings_of_control(computed[0])],
        "d_model": d,
        "n_tokens": moments.n_tokens,
        "variance": moments.variance,
        "mean_square": moments.mean_square,
        **facts,
    }


def _warnings_of_differences(computed: Sequence[dict[str, Any]]) -> list[str]:
    """Return a warning if parts were computed by different hardware or packages."""
    found = []
    for name in ("device_name", "torch", "timm", "pillow"):
        values = sorted({each[name] for each in computed})
        if len(values) > 1:
            found.append(f"{name} {' and '.join(values)}")
    if not found:
        return []
    return [
        f"its images were recorded with different {', '.join(found)}, between which the last bits "
        "of activations may differ"
    ]


def _warnings_of_control(computed: dict[str, Any]) -> list[str]:
    """Return a warning if random weights hardly change the patch embedding."""
    cosine = computed.get("first_last_cosine") or 0.0
    if cosine <= MAX_COSINE_OF_CONTROL:
        return []
    return [
        f"random weights hardly change the patch embedding: the cosine of tokens between the first "
        f"and the last block is {cosine}. As a control for a trained ViT, use "
        "RandomInit(branch_ratio=0.7)"
    ]


def _unique(values: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each value once, in order."""
    return [value for i, value in enumerate(values) if value not in values[:i]]


def _moments_of(part: store.StoredArtifact, d: int) -> Moments:
    found = Moments(d)
    found.n_tokens = part.manifest.attributes["n_tokens"]
    found.sum_d = part.array("sum").read()
    found.sum_squares = part.manifest.attributes["sum_squares"]
    return found


def _checked_names(names: Sequence[str]) -> list[str]:
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DatasetError(
                f"the file name {name!r} is not valid UTF-8: rename the file"
            ) from error
    return list(names)
