"""Preprocessing, compared with torchvision and Pillow, and the geometry of patches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from saevx.errors import SpecError
from saevx.vit.preprocess import Preprocess, patch_boxes, visible_box
from spec import CenterCrop, Resize, Squash

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDES = st.integers(1, 2000)
POLICIES = st.sampled_from([CenterCrop(size=56), Squash(size=56)])


def noise(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


def reference(*steps) -> transforms.Compose:
    return transforms.Compose(
        [*steps, transforms.ToTensor(), transforms.Normalize(mean=MEAN, std=STD)]
    )


@pytest.mark.parametrize("shape", [(112, 112), (200, 90), (91, 300), (30, 20)])
def test_squash_equals_torchvision(shape):
    theirs = reference(transforms.Resize((56, 56), transforms.InterpolationMode.BICUBIC))
    ours = Preprocess(Squash(size=56), MEAN, STD, "bicubic")(noise(*shape))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs(noise(*shape)).numpy(), atol=1e-6)


@pytest.mark.parametrize("shape", [(112, 112), (224, 112), (112, 448), (56, 56)])
def test_center_crop_equals_torchvision_where_sides_are_whole(shape):
    """Except at the crop: torchvision resizes first, so its filter reaches beyond the crop."""
    theirs = reference(
        transforms.Resize(56, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(56)
    )
    ours = Preprocess(CenterCrop(size=56), MEAN, STD, "bicubic")(noise(*shape))
    inner = (slice(None), slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(ours[inner], theirs(noise(*shape)).numpy()[inner], atol=1e-6)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_requested_interpolation_is_used(interpolation):
    ours = Preprocess(Squash(size=8), (0, 0, 0), (1, 1, 1), interpolation)(noise(50, 40))
    theirs = noise(50, 40).resize((8, 8), Image.Resampling[interpolation.upper()])
    np.testing.assert_array_equal(np.rint(ours * 255), np.asarray(theirs).transpose(2, 0, 1))


@given(POLICIES, SIDES, SIDES, st.integers(1, 9), st.integers(1, 9))
def test_patches_tile_what_is_seen(resize, width, height, rows, columns):
    boxes = patch_boxes(resize, (rows, columns), width, height)
    assert boxes.shape == (rows, columns, 4)
    left, top, right, bottom = visible_box(resize, width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    np.testing.assert_array_equal(boxes[:, 1:, 0], boxes[:, :-1, 2])
    np.testing.assert_array_equal(boxes[1:, :, 1], boxes[:-1, :, 3])
    areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    np.testing.assert_allclose(areas.sum(), (right - left) * (bottom - top))
    if isinstance(resize, CenterCrop):
        np.testing.assert_allclose(right - left, min(width, height))
        np.testing.assert_allclose(left, width - right)
        np.testing.assert_allclose(top, height - bottom)


@pytest.mark.parametrize("resize", [CenterCrop(size=56), Squash(size=56)])
@pytest.mark.parametrize("shape", [(400, 200), (150, 300)])
def test_a_patch_shows_the_pixels_of_its_box(resize, shape):
    """Paint one box of the original white: only its patch becomes bright."""
    width, height = shape
    boxes = patch_boxes(resize, (4, 4), width, height)
    for r, c in [(0, 0), (1, 2), (3, 3)]:
        left, top, right, bottom = np.rint(boxes[r, c]).astype(int)
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[top:bottom, left:right] = 255
        square = Preprocess(resize, (0, 0, 0), (1, 1, 1), "bilinear")(Image.fromarray(canvas))
        light = square[0].reshape(4, 14, 4, 14).mean(axis=(1, 3))
        assert light[r, c] > 0.85
        assert np.delete(light.ravel(), 4 * r + c).max() < 0.1


def test_unknown_choices_are_refused():
    with pytest.raises(SpecError, match="interpolation 'magic'"):
        Preprocess(Squash(size=8), MEAN, STD, "magic")(noise(9, 9))

    class Fisheye(Resize):
        pass

    with pytest.raises(SpecError, match="Fisheye"):
        visible_box(Fisheye(size=8), 9, 9)


def test_every_mode_becomes_rgb():
    preprocess = Preprocess(Squash(size=8), MEAN, STD, "bicubic")
    for mode in ("L", "CMYK", "RGBA", "P"):
        assert preprocess(noise(20, 20).convert(mode)).shape == (3, 8, 8)
