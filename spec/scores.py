"""Scores of whole images."""

from typing import ClassVar

from pydantic import SerializeAsAny

from spec.base import Artifact
from spec.images.base import ImageSet
from spec.keys.model import Kind
from spec.prototypes import Scorer
from spec.shards import Shards


class ImageScores(Artifact):
    """The highest score over the patches, for each image and prototype: (n_images, K).

    The ViT and the layer are those that the scorer was fitted on.
    """

    kind: ClassVar[Kind] = "activations"

    scorer: SerializeAsAny[Scorer]
    images: SerializeAsAny[ImageSet]

    @property
    def shards(self) -> Shards:
        """The scored activations: those of the scorer's ViT and layer over `images`."""
        return self.scorer.shards.model_copy(update={"images": self.images})

    def derived(self) -> dict[str, Artifact]:
        return {"shards": self.shards}
