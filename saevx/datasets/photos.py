"""Image files in the usual formats, decoded to 8-bit RGB by Pillow."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image
from PIL.Image import Transpose

_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112


def decode_photo(data: bytes) -> Image.Image:
    """Decode an image file to RGB, upright.

    The EXIF orientation is applied. Transparent areas become white. 16-bit values lose their low
    byte. Colour profiles are ignored; animations yield their first frame.

    Raises ValueError for truncated files and pixels of unknown range, and Pillow's errors for
    broken files.
    """
    image = Image.open(BytesIO(data))
    image.load()
    check_whole(data, image.format or "")
    method = _UPRIGHT.get(_orientation(image))
    rgb = to_rgb(image)
    return rgb if method is None else rgb.transpose(method)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB, on white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers of unknown range: convert it to 8 bits")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return on_white(image.convert("RGBA"))
    return image.convert("RGB")


def on_white(image: Image.Image) -> Image.Image:
    """Blend an RGBA image over white and return it as RGB."""
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image).convert("RGB")


def check_whole(data: bytes, format: str) -> None:
    """Raise ValueError for a truncated file.

    Pillow detects files that end early. It does not detect a JPEG, PNG or WebP that a downloader
    allocated at full length and left ending in zeros: it fills the rest with grey or black.
    """
    whole = True
    if format in ("JPEG", "MPO"):
        whole = data.find(b"\xff\xd9", _start_of_scan(data)) >= 0
    elif format == "PNG":
        whole = b"IEND" in data
    elif format == "WEBP":
        whole = any(data[-64:])
    if not whole:
        raise ValueError("the file is cut short: its end is missing")


def _start_of_scan(data: bytes) -> int:
    """Return the offset of a JPEG's pixels, after thumbnails in its headers."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] == 0xFF:  # fill bytes may precede a marker
            at += 1
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # unreadable EXIF does not invalidate the photo
        return 1
