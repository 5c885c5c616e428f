"""The recipe of ImageScores: the score of an image is the highest score of its patches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saevx.compute.device import device
from saevx.compute.numerics import exact_float32
from saevx.errors import RecipeError
from saevx.prototypes.scorer import FittedScorer
from saevx.recording.tokens import Tokens
from saevx.resolve.batch import Batch
from saevx.resolve.recipe import recipe
from spec import ImageScores, Site

if TYPE_CHECKING:
    from store.arrays.writer import ArrayWriter

TOKENS_PER_BLOCK = 8192
"""Patches per matrix product. Fixed, since the last bits of a product depend on its shape."""

SHARD_BYTES = 256 << 20
"""Approximate size limit of a file of scores."""

CHUNK_BYTES = 1 << 20
"""Approximate size of scores that are compressed together."""

MAX_ROWS_PER_SHARD = 1 << 16
"""Most rows in a file of scores: its index has an entry for each."""


def check(specs: Sequence[ImageScores], site: Site) -> None:
    """Refuse an unusable device."""
    device()


@recipe(ImageScores, batch_by=lambda spec: spec.shards, preflight=check)
def image_scores(batch: Batch[ImageScores]) -> None:
    """Read the activations once and score them with all scorers of the batch."""
    shards = batch.input(batch.specs[0].shards)
    tokens = Tokens(shards)
    n_images, indptr = tokens.n_images, tokens.indptr
    writers: list[tuple[ImageScores, FittedScorer, ArrayWriter]] = []
    for spec in batch.specs:
        scorer = batch.load(spec.scorer)
        k = scorer.n_prototypes
        draft = batch.draft(spec)
        draft.table("images", shards.table("images"))
        writer = draft.array("scores", (n_images, k), "float32", **_storage(spec, n_images, k))
        writers.append((spec, scorer, writer))
    for start, stop in blocks(indptr):
        # A copy: torch warns about read-only memory such as a memory map's.
        block_nd = np.array(tokens.flat[int(indptr[start]) : int(indptr[stop])], dtype=np.float32)
        lengths = np.diff(indptr[start : stop + 1])
        for spec, scorer, writer in writers:
            try:
                if writer.is_open:
                    writer.append(max_over_patches(scorer, block_nd, lengths))
            except RecipeError as error:
                writer.abandon()
                batch.fail(spec, error)
        batch.progress(stop, n_images, "images")
    for spec, _, writer in writers:
        if writer.is_open:
            writer.close()
            batch.publish(spec)


def _storage(spec: ImageScores, n_images: int, k: int) -> dict[str, Any]:
    """Return how the scores are cut into chunks and files, and compressed."""
    from store.arrays.codecs import Blosc

    per_chunk, codec = 1, None
    if spec.codec:
        per_chunk = max(1, min(n_images, CHUNK_BYTES // (4 * k)))
        codec = Blosc(**spec.codec.model_dump())
    rows = max(1, min(n_images, MAX_ROWS_PER_SHARD, SHARD_BYTES // (4 * k)))
    per_shard = -(-rows // per_chunk) * per_chunk
    return {"rows_per_chunk": per_chunk, "rows_per_shard": per_shard, "codec": codec}


def blocks(indptr: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield ranges of images with at most TOKENS_PER_BLOCK tokens, or one image with more."""
    start, n_images = 0, len(indptr) - 1
    while start < n_images:
        end = np.searchsorted(indptr, indptr[start] + TOKENS_PER_BLOCK, side="right") - 1
        stop = max(start + 1, int(end))
        yield start, stop
        start = stop


def max_over_patches(
    scorer: FittedScorer, acts_nd: NDArray[np.float32], lengths: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return each image's highest score over its patches: (len(lengths), K).

    `acts_nd` are the activations of image after image, which has `lengths` of them. Raises
    RecipeError when a score is not finite.
    """
    import torch

    acts = torch.from_numpy(acts_nd).to(device())
    with torch.inference_mode(), exact_float32():
        scores_nk = scorer(acts)
        if (lengths == lengths[0]).all():
            highest = scores_nk.reshape(len(lengths), int(lengths[0]), -1).amax(dim=1)
        else:
            segments = torch.from_numpy(lengths).to(scores_nk.device)
            highest = torch.segment_reduce(scores_nk.float(), "max", lengths=segments)
    found: NDArray[np.float32] = highest.float().cpu().numpy()
    if not np.isfinite(found).all():
        raise RecipeError(f"{scorer!r} returned scores that are not finite: check its training")
    return found
