"""The recipe of ImageScores: every patch is scored, an image gets the highest of its patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spec import ImageScores

from ..errors import RecipeError
from ..resolve.batch import Batch
from ..resolve.recipe import recipe

if TYPE_CHECKING:
    from store.arrays import ArrayWriter

TOKENS_PER_BLOCK = 8192
"""Patches scored at once. Fixed, since a matrix product's last bits depend on its shape."""

SHARD_BYTES = 256 << 20
"""About how large a file of scores may be."""

MAX_ROWS_PER_SHARD = 1 << 16
"""Rows in a file of scores: its index has an entry for each."""


@recipe(ImageScores, batch_by=lambda spec: spec.shards)
def image_scores(batch: Batch[ImageScores]) -> None:
    """Read the activations once, and score them with every scorer of the batch."""
    from ..notebook import read
    from ..recipes import find_recipe

    shards = batch.input(batch.specs[0].shards)
    patches_npd = shards.array("patches")
    n_images, n_patches, _ = patches_npd.shape
    writers: list[tuple[ImageScores, Any, ArrayWriter]] = []
    for spec in batch.specs:
        scorer = read(batch.input(spec.scorer), find_recipe(type(spec.scorer)))
        k = scorer.n_prototypes
        rows = max(1, min(n_images, MAX_ROWS_PER_SHARD, SHARD_BYTES // (4 * k)))
        draft = batch.draft(spec)
        draft.table("images", shards.table("images"))
        writer = draft.array(
            "scores", (n_images, k), "float32", rows_per_chunk=1, rows_per_shard=rows
        )
        writers.append((spec, scorer, writer))
    step = max(1, TOKENS_PER_BLOCK // n_patches)
    for start in range(0, n_images, step):
        block_npd = np.asarray(patches_npd[start : start + step], dtype=np.float32)
        for spec, scorer, writer in writers:
            try:
                if writer.state == "open":
                    writer.append(highest(scorer, block_npd))
            except RecipeError as error:
                writer.abandon()
                batch.fail(spec, error)
        batch.progress(min(start + step, n_images), n_images, "images")
    for spec, _, writer in writers:
        if writer.state == "open":
            writer.close()
            batch.publish(spec)


def highest(scorer: Any, acts_npd: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each image's highest score over its patches, (n, K), from activations (n, p, d).

    Raises RecipeError when a score is not a number.
    """
    import torch

    from ..device import device

    n, p, d = acts_npd.shape
    acts = torch.from_numpy(acts_npd.reshape(n * p, d)).to(device())
    with torch.inference_mode():
        scores_nk = scorer(acts).reshape(n, p, -1).amax(dim=1)
    found: NDArray[np.float32] = scores_nk.float().cpu().numpy()
    if not np.isfinite(found).all():
        raise RecipeError(f"{scorer!r} gave scores that are not finite")
    return found
