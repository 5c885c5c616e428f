"""Scorers, and those that need no training: vectors taken from the activations."""

from typing import ClassVar

from pydantic import Field

from spec.base import Artifact
from spec.images.base import ImageSet
from spec.keys.model import Kind
from spec.shards import Shards


class Scorer(Artifact, abstract=True):
    """Maps activations (B, d) to scores (B, K), fitted on `shards`."""

    kind: ClassVar[Kind] = "checkpoints"
    uses_labels: ClassVar[bool] = False
    """Whether fitting, or choosing among fits, uses labels. Such a scorer is not tested on images
    that it was fitted on."""

    shards: Shards

    def fit_images(self) -> tuple[ImageSet, ...]:
        """Return the image sets that fitting reads."""
        return (self.shards.images,)


class RandomPrototypes(Scorer):
    """`n` patch tokens of `shards`, drawn uniformly without replacement; scores are dot products.

    Draws with the same seed are nested: the first 128 of n=512 are those of n=128.
    """

    n: int = Field(ge=1)
    seed: int = Field(0, ge=0)
