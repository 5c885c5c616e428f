"""Recorded activations of one layer."""

from typing import ClassVar, Literal

from pydantic import Field, SerializeAsAny

from spec.base import Artifact
from spec.images.base import ImageSet
from spec.keys.model import Kind
from spec.vit import ViT


class Shards(Artifact):
    """The residual stream of `vit` after block `layer` (from 0), for every image of `images`.

    Holds patch tokens (n_images, n_patches, d) and, if the ViT has one, the class token
    (n_images, 1, d). `batch_size`, the images per forward pass, is part of the key because it
    changes the last bits of floating-point sums.
    """

    kind: ClassVar[Kind] = "shards"

    images: SerializeAsAny[ImageSet]
    vit: ViT
    layer: int = Field(ge=0)
    dtype: Literal["float16", "float32"] = "float16"
    batch_size: int = Field(32, ge=1)
