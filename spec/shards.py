"""Recorded activations of one layer."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, SerializeAsAny

from spec.base import Artifact
from spec.images.base import ImageSet
from spec.keys.markers import Exec
from spec.keys.model import Kind
from spec.vit import ViT


class Shards(Artifact):
    """The residual stream of `vit` after block `layer` (from 0), for every image of `images`.

    Holds patch tokens (n_images, n_patches, d) in `dtype`. `prefix` says which of the tokens before
    the patches it holds too, in float32: "cls", the class token (n_images, 1, d) if the ViT has
    one; "all", also its registers; or "none".

    `batch_size`, the images per forward pass, does not count in the key. Like the device it may
    change the last bits of activations; artifacts record both.
    """

    kind: ClassVar[Kind] = "shards"

    images: SerializeAsAny[ImageSet]
    vit: ViT
    layer: int = Field(ge=0)
    dtype: Literal["float16", "float32"] = "float16"
    prefix: Literal["cls", "all", "none"] = "cls"
    batch_size: Annotated[int, Exec(), Field(ge=1)] = 32
