"""Decoding of images: every mode becomes RGB, and broken files are refused."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from saevx.datasets import decoder, open_images
from saevx.datasets.photos import check_whole, decode_photo
from spec import DatasetError, ImageSet, Site
from spec.files import digests as digests_module
from spec.files import fingerprint as fingerprint_module
from spec.files.listing import Listing
from spec.images.cub200 import CUB200Images
from spec.images.folder import ImageFolder, list_photos

from .cub_tree import make_cub


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def picture(seed: int = 0, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Smooth with some noise, so that no format compresses it to almost nothing."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize(size)
    return Image.fromarray(
        (np.asarray(coarse) + rng.normal(0, 6, (size[1], size[0], 3))).clip(0, 255).astype(np.uint8)
    )


def decoded(data: bytes) -> np.ndarray:
    image = decode_photo(data)
    assert image.mode == "RGB"
    return np.asarray(image)


class TestModes:
    """Pixels that a mode stores exactly are decoded exactly."""

    rgb = np.asarray(picture())

    def test_rgb(self) -> None:
        assert np.array_equal(decoded(encode(picture(), "PNG")), self.rgb)

    def test_grey(self) -> None:
        grey = picture().convert("L")
        expected = np.repeat(np.asarray(grey)[..., None], 3, axis=2)
        assert np.array_equal(decoded(encode(grey, "PNG")), expected)

    def test_one_bit(self) -> None:
        bits = picture().convert("1")
        assert np.array_equal(decoded(encode(bits, "PNG"))[..., 0] > 0, np.asarray(bits))

    def test_palette(self) -> None:
        palette = picture().quantize(32)
        assert np.array_equal(decoded(encode(palette, "PNG")), np.asarray(palette.convert("RGB")))

    def test_transparent_shows_white(self) -> None:
        alpha = np.zeros(self.rgb.shape[:2], np.uint8)
        alpha[:, 30:] = 255
        rgba = picture()
        rgba.putalpha(Image.fromarray(alpha))
        expected = np.where(alpha[..., None] > 0, self.rgb, 255)
        assert np.array_equal(decoded(encode(rgba, "PNG")), expected)

    def test_half_transparent_blends_with_white(self) -> None:
        rgba = Image.new("RGBA", (2, 2), (100, 0, 200, 51))
        assert decoded(encode(rgba, "PNG"))[0, 0].tolist() == [224, 204, 244]

    def test_transparent_colour_of_a_palette(self) -> None:
        palette = Image.new("P", (2, 1))
        palette.putpalette([10, 20, 30, 40, 50, 60])
        palette.putpixel((1, 0), 1)
        data = encode(palette, "PNG", transparency=0)
        assert decoded(data)[0].tolist() == [[255, 255, 255], [40, 50, 60]]

    def test_transparent_colour_of_rgb(self) -> None:
        rgb = Image.new("RGB", (2, 1), (1, 2, 3))
        rgb.putpixel((1, 0), (9, 9, 9))
        data = encode(rgb, "PNG", transparency=(1, 2, 3))
        assert decoded(data)[0].tolist() == [[255, 255, 255], [9, 9, 9]]

    def test_grey_with_alpha(self) -> None:
        image = Image.new("LA", (2, 1), (50, 255))
        image.putpixel((1, 0), (50, 0))
        assert decoded(encode(image, "PNG"))[0].tolist() == [[50] * 3, [255] * 3]

    @pytest.mark.parametrize("format", ["PNG", "TIFF"])
    def test_sixteen_bits_lose_the_low_byte(self, format: str) -> None:
        values = np.array([[0, 255, 256, 0x1234, 0xFFFF]], np.uint16)
        found = decoded(encode(Image.fromarray(values), format))
        assert found[0, :, 0].tolist() == [0, 0, 1, 0x12, 0xFF]

    @pytest.mark.parametrize("dtype", [np.int32, np.float32])
    def test_numbers_of_unknown_range_are_refused(self, dtype: type) -> None:
        image = Image.fromarray(np.full((2, 2), 7, dtype))
        with pytest.raises(ValueError, match="unknown range"):
            decode_photo(encode(image, "TIFF"))

    def test_cmyk_jpeg_is_near_its_rgb(self) -> None:
        flat = Image.new("RGB", (32, 32), (200, 120, 40))
        found = decoded(encode(flat.convert("CMYK"), "JPEG", quality=95))
        assert np.abs(found.astype(int) - [200, 120, 40]).max() <= 6

    def test_first_frame_of_an_animation(self) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
        assert decoded(data)[0, 0].tolist() == [255, 0, 0]

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation(self, orientation: int) -> None:
        # Where row 0 and column 0 of the stored image are in the upright one, by the EXIF standard.
        upright = np.asarray(picture(size=(20, 12)))
        stored = {
            1: upright,
            2: upright[:, ::-1],
            3: upright[::-1, ::-1],
            4: upright[::-1],
            5: upright.transpose(1, 0, 2),
            6: upright.transpose(1, 0, 2)[::-1],
            7: upright.transpose(1, 0, 2)[::-1, ::-1],
            8: upright.transpose(1, 0, 2)[:, ::-1],
        }[orientation]
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif.tobytes())
        assert np.array_equal(decoded(data), upright)

    def test_exif_that_cannot_be_read_changes_nothing(self) -> None:
        data = encode(picture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
        assert decoded(data).shape == self.rgb.shape


FORMATS: dict[str, bytes] = {
    "baseline.jpg": encode(picture(), "JPEG"),
    "progressive.jpg": encode(picture(), "JPEG", progressive=True),
    "restarts.jpg": encode(picture(), "JPEG", restart_marker_blocks=2),
    "cmyk.jpg": encode(picture().convert("CMYK"), "JPEG"),
    "rgb.png": encode(picture(), "PNG"),
    "palette.png": encode(picture().quantize(), "PNG"),
    "lossy.webp": encode(picture(), "WEBP"),
    "lossless.webp": encode(picture(), "WEBP", lossless=True),
    "raw.bmp": encode(picture(), "BMP"),
    "raw.tif": encode(picture(), "TIFF"),
    "lzw.tif": encode(picture(), "TIFF", compression="tiff_lzw"),
    "palette.gif": encode(picture().quantize(), "GIF"),
}
WHOLE = {name: decoded(data) for name, data in FORMATS.items()}
MARKED = [name for name in FORMATS if name.endswith(("jpg", "png"))]
"""Formats with a recognisable end, so that zeros in its place are detected too."""


@given(st.sampled_from(sorted(FORMATS)), st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused_or_complete(name: str, share: float) -> None:
    data = FORMATS[name]
    try:
        found = decoded(data[: int(len(data) * share)])
    except Exception:
        return
    assert np.array_equal(found, WHOLE[name])


@given(st.sampled_from(MARKED), st.floats(0.02, 1, exclude_max=True))
def test_a_file_that_ends_in_zeros_is_refused(name: str, share: float) -> None:
    data = FORMATS[name]
    kept = min(int(len(data) * share), len(data) - 12)
    with pytest.raises(Exception):  # noqa: B017, PT011 - Pillow has no error of its own for this
        decode_photo(data[:kept] + bytes(len(data) - kept))


@given(st.integers(0, 1000))
def test_bytes_after_the_end_are_ignored(n: int) -> None:
    for name in MARKED:
        assert np.array_equal(decoded(FORMATS[name] + bytes(n)), WHOLE[name])


def test_the_end_of_a_thumbnail_is_not_that_of_the_photo() -> None:
    thumbnail = encode(picture(size=(16, 16)), "JPEG")
    exif = Image.Exif()
    exif[0x010E] = "x"
    header = b"Exif\0\0" + exif.tobytes()[6:] + thumbnail
    data = encode(picture(), "JPEG", exif=header)
    assert data.count(b"\xff\xd9") == 2
    check_whole(data, "JPEG")
    with pytest.raises(ValueError, match="cut short"):
        check_whole(data[:-2] + bytes(2), "JPEG")


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    root = tmp_path / "photos"
    for i, name in enumerate(("b/0.jpg", "a/1.png", "a/2.JPEG")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(root / name, "PNG" if name.endswith("png") else "JPEG")
    return ImageFolder(root=str(root))


class TestSource:
    def test_images_come_in_the_order_of_the_listing(self, folder: ImageFolder) -> None:
        source = open_images(folder, Site())
        assert source.files == ("a/1.png", "a/2.JPEG", "b/0.jpg")
        assert len(source) == 3
        assert np.array_equal(np.asarray(source.load(0)), np.asarray(picture(1)))
        again = pickle.loads(pickle.dumps(source))
        assert np.array_equal(np.asarray(again.load(2)), np.asarray(source.load(2)))

    def test_cub_with_grey_and_cmyk(self, tmp_path: Path) -> None:
        cub = make_cub(tmp_path)
        modes = {Image.open(cub.image(name)).mode for name in cub.names}
        assert modes == {"RGB", "L", "CMYK"}
        for split in ("train", "test"):
            source = open_images(CUB200Images(split=split, root=str(tmp_path)), Site())
            assert {source.load(i).mode for i in range(len(source))} == {"RGB"}
            assert {source.load(i).size for i in range(len(source))} == {(48, 40)}

    def test_a_broken_file_is_named_with_its_size(self, folder: ImageFolder) -> None:
        path = Path(folder.root) / "b/0.jpg"
        path.write_bytes(path.read_bytes()[:700])
        message = r"cannot decode .*b/0\.jpg \(700 bytes\): .*download or copy it again"
        with pytest.raises(DatasetError, match=message):
            open_images(folder, Site()).load(2)

    def test_files_that_are_not_images_are_named(self, folder: ImageFolder) -> None:
        (Path(folder.root) / "b/0.jpg").write_text("<html>404</html>")
        with pytest.raises(DatasetError, match=r"cannot decode .*b/0\.jpg \(16 bytes\)"):
            open_images(folder, Site()).load(2)

    def test_a_file_that_changed_since_it_was_listed_is_refused(self, folder: ImageFolder) -> None:
        source = open_images(folder, Site())
        path = source.path(1)
        size = path.stat().st_size
        path.write_bytes(path.read_bytes() + b"\0")
        with pytest.raises(DatasetError, match=rf"has {size + 1:,} bytes, but had {size:,}"):
            source.load(1)
        path.unlink()
        with pytest.raises(DatasetError, match="cannot read"):
            source.load(1)

    def test_a_set_that_changed_since_the_plan_is_refused(self, folder: ImageFolder) -> None:
        site = Site().frozen()
        folder.fingerprint(site)
        picture(9).save(Path(folder.root) / "a/new.png")
        with pytest.raises(DatasetError, match=r"changed since .* run again to use the 4 images"):
            open_images(folder, site)
        assert len(open_images(folder, Site())) == 4

    def test_a_change_in_place_is_refused_once(
        self, folder: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Large sets are not listed at every plan; a second run must still succeed.
        monkeypatch.setattr(fingerprint_module, "STAT_AT_MOST", 0)
        monkeypatch.setattr(digests_module, "SETTLED_NS", -(10**12))
        folder.fingerprint(Site(cache=tmp_path / "cache"))
        path = Path(folder.root) / "a/1.png"
        with path.open("ab") as file:
            file.write(b"\0")
        with pytest.raises(DatasetError, match="run again"):
            open_images(folder, Site(cache=tmp_path / "cache"))
        assert len(open_images(folder, Site(cache=tmp_path / "cache"))) == 3

    def test_users_can_register_their_own_image_sets(self, tmp_path: Path) -> None:
        (tmp_path / "1.png").write_bytes(b"\x07")

        class Shades(ImageSet):
            def folder(self, site: Site) -> Path:
                return tmp_path

            def listing(self, site: Site) -> Listing:
                return list_photos(tmp_path)

        decoder.register(Shades, lambda images: _shade)
        source = open_images(Shades(), Site())
        assert np.asarray(source.load(0)).tolist() == [[[7, 7, 7]]]


def _shade(data: bytes) -> Image.Image:
    return Image.new("RGB", (1, 1), (data[0],) * 3)
