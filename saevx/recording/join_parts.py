"""Join the parts of a layer's recording."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from saevx.errors import RecipeError
from saevx.recording.layer_part import chunking
from saevx.recording.moments import Moments

if TYPE_CHECKING:
    import store
    from store.arrays.reader import Array

MAX_COSINE_OF_CONTROL = 0.9
"""A ViT with random weights whose first and last layers are more alike is no control."""


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
    sizes = {file.grid.rows_per_shard for file in files} if facts["grid"] else set()
    if len(images) != n_images or len(sizes) > 1 or any(len(file.shards) != 1 for file in files):
        # Another version of saevx, with files of another size, may have started this recording.
        held = ", ".join(str(len(part.table("images"))) for part in parts)
        raise RecipeError(
            f"the {len(parts)} parts in {parts[0].path.parent} hold {held} images, instead of one "
            f"file each of {n_images} images: delete that folder and run again"
        )
    draft.table("images", images)
    if facts["grid"]:
        draft.join("patches", files)
    else:
        draft.join_pieces("patches", files)
    for name in parts[0].arrays():
        if name not in ("patches", "sum"):
            _copy(draft, name, [part.array(name) for part in parts])
    grids = np.concatenate([part.array("grids").read() for part in parts])
    draft.write("indptr", np.cumsum([0, *grids.prod(axis=1, dtype=np.int64)], dtype=np.int64))
    d = files[0].shape[1]
    moments = Moments(d)
    for part in parts:
        moments.merge(_moments_of(part, d))
    draft.write("mean", moments.mean)
    computed = _unique([part.manifest.attributes["computed"] for part in parts])
    return {
        "n_images": len(images),
        "n_patches": math.prod(facts["grid"]) if facts["grid"] else None,
        "computed": computed,
        "warnings": [*_warnings_of_differences(computed), *_warnings_of_control(computed[0])],
        "d_model": d,
        "n_tokens": moments.n_tokens,
        "variance": moments.variance,
        "mean_square": moments.mean_square,
        **facts,
    }


def _copy(draft: store.Draft, name: str, arrays: Sequence[Array]) -> None:
    """Write the concatenation of arrays, with files of its own size."""
    shape = (sum(map(len, arrays)), *arrays[0].shape[1:])
    dtype = arrays[0].dtype
    with draft.array(name, shape, dtype, **chunking(shape, dtype)) as writer:
        for array in arrays:
            writer.append(array.read())


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
