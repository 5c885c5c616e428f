"""Conversion of images to the input of a ViT, and of patches back to image regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spec import CenterCrop, Resize, SpecError, Squash

if TYPE_CHECKING:
    from PIL import Image

    from saevx.vit.model import ViTFacts

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels of the original image."""


def visible_box(resize: Resize, width: int, height: int) -> Box:
    """Return the part of an image that the ViT sees. Raises SpecError for an unknown policy."""
    if isinstance(resize, Squash):
        return (0.0, 0.0, float(width), float(height))
    if isinstance(resize, CenterCrop):
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return (left, top, left + side, top + side)
    raise SpecError(
        f"{type(resize).__name__} is not implemented as a resize policy: use CenterCrop or Squash"
    )


def patch_boxes(
    resize: Resize, grid: tuple[int, int], width: int, height: int
) -> NDArray[np.float64]:
    """Return the region of each patch in an image of `width` x `height` px: (rows, columns, 4).

    Patch (r, c) is token r * columns + c. Edges are left, top, right, bottom in pixels of the
    original image; they may lie between pixels. The patches tile what the ViT sees.
    """
    rows, columns = grid
    left, top, right, bottom = visible_box(resize, width, height)
    x = np.linspace(left, right, columns + 1)
    y = np.linspace(top, bottom, rows + 1)
    boxes = np.empty((rows, columns, 4))
    boxes[..., 0], boxes[..., 1] = x[None, :-1], y[:-1, None]
    boxes[..., 2], boxes[..., 3] = x[None, 1:], y[1:, None]
    return boxes


@dataclass(frozen=True)
class Preprocess:
    """Resizes by `resize`, then normalises by timm's data config of the ViT.

    timm's `crop_pct` is ignored: the resize policy alone decides what is cropped. Pillow resamples
    in 8-bit integers, which gives the same bytes on every machine.
    """

    resize: Resize
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str

    @classmethod
    def of(cls, resize: Resize, facts: ViTFacts) -> Preprocess:
        return cls(resize, facts.mean, facts.std, facts.interpolation)

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """Return the normalised image: (3, size, size), channels red, green, blue."""
        from PIL import Image

        try:
            resampling = Image.Resampling[self.interpolation.upper()]
        except KeyError:
            raise SpecError(f"Pillow has no interpolation {self.interpolation!r}") from None
        size = self.resize.size
        box = visible_box(self.resize, *image.size)
        square = image.convert("RGB").resize((size, size), resampling, box=box)
        levels = np.arange(256) / 255
        pixels_hwc = np.asarray(square)
        out = np.empty((3, size, size), np.float32)
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            table = ((levels - mean) / std).astype(np.float32)
            np.take(table, pixels_hwc[..., channel], out=out[channel])
        return out
