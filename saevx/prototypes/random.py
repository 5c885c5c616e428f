"""The recipe of RandomPrototypes: vectors drawn from recorded patch tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from saevx.prototypes.scorer import load_prototypes
from saevx.resolve.batch import Batch
from saevx.resolve.recipe import recipe
from spec import RandomPrototypes, Site, SpecError, ViT


def draw(n_tokens: int, n: int, seed: int) -> NDArray[np.int64]:
    """Draw `n` different token indices below `n_tokens`, uniformly: (n,), in the order drawn.

    A longer draw with the same seed begins with the shorter one. It uses the raw stream of PCG64,
    which numpy keeps stable across versions, unlike that of `Generator`.
    """
    if n > n_tokens:
        raise SpecError(
            f"cannot draw {n} prototypes from {n_tokens} tokens: use n of at most {n_tokens}"
        )
    stream = np.random.PCG64(seed)
    drawn: dict[int, None] = {}  # an ordered set
    while len(drawn) < n:
        raw = stream.random_raw(4096)
        uniform = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
        for token in (uniform * n_tokens).astype(np.int64).tolist():
            drawn.setdefault(token)
    return np.fromiter(drawn, np.int64, len(drawn))[:n]


def check(specs: Sequence[RandomPrototypes], site: Site) -> None:
    """Refuse draws of more prototypes than there are tokens."""
    faults = []
    for spec in specs:
        try:
            n_tokens = spec.shards.images.n_images(site) * _n_patches(spec.shards.vit)
        except SpecError as error:
            faults.append(str(error))
            continue
        if spec.n > n_tokens:
            faults.append(
                f"RandomPrototypes(n={spec.n}) is more than the {n_tokens} patch tokens of its "
                f"shards: use n of at most {n_tokens}"
            )
    if faults:
        raise SpecError("\n".join(dict.fromkeys(faults)))


def _n_patches(vit: ViT) -> int:
    """Return the patch tokens per image, from timm if the ViT's name does not include it."""
    if vit.n_patches is not None:
        return vit.n_patches
    from saevx.vit.model import inspect_vit

    return inspect_vit(vit).n_patches


@recipe(RandomPrototypes, batch_by=lambda spec: spec.shards, preflight=check, load=load_prototypes)
def random_prototypes(batch: Batch[RandomPrototypes]) -> None:
    """Copy the drawn tokens of one layer's shards, for every n and seed of the batch."""
    from saevx.recording.tokens import Tokens

    tokens_nd = Tokens(batch.input(batch.specs[0].shards)).tokens()
    for done, spec in enumerate(batch.specs, start=1):
        tokens = draw(len(tokens_nd), spec.n, spec.seed)
        vectors = tokens_nd.take(tokens).astype(np.float32)
        draft = batch.draft(spec)
        draft.write("prototypes", vectors)
        draft.write("tokens", tokens)
        batch.publish(spec)
        batch.progress(done, len(batch.specs), "checkpoints")
