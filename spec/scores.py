"""Scores of whole images."""

from typing import Annotated, ClassVar, Self

from pydantic import SerializeAsAny, model_validator

from spec.base import Artifact
from spec.codec import Blosc
from spec.images.base import ImageSet
from spec.keys.markers import Since
from spec.keys.model import Kind
from spec.prototypes import Scorer
from spec.shards import Shards


class ImageScores(Artifact):
    """The highest score over the patches, for each image and prototype: (n_images, K).

    The ViT and the layer are those that the scorer was fitted on. With a `codec` the scores are
    compressed, which pays where many are 0.
    """

    kind: ClassVar[Kind] = "activations"

    scorer: SerializeAsAny[Scorer]
    images: SerializeAsAny[ImageSet]
    codec: Annotated[Blosc | None, Since(legacy=None)] = None

    @model_validator(mode="after")
    def _check_codec(self) -> Self:
        if self.codec and self.codec.delta:
            raise ValueError("scores are no integers, so Blosc(delta=True) would round them")
        return self

    @property
    def shards(self) -> Shards:
        """The scored activations: those of the scorer's ViT and layer over `images`."""
        return self.scorer.shards.model_copy(update={"images": self.images})

    def derived(self) -> dict[str, Artifact]:
        return {"shards": self.shards}
