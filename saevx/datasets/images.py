"""From an image set to decoded images, in the order of its listing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path

import xxhash
from PIL import Image

from spec import DatasetError, ImageSet, Site
from spec.fingerprint import Listing

from .photos import decode_photo

_BUFFER = re.compile(r" ?<_io\.BytesIO object at \w+>")
"""What Pillow calls a file that it was given as bytes."""

Decode = Callable[[bytes], Image.Image]
"""The bytes of a file to an RGB image. May raise anything when they cannot be decoded."""


@dataclass(frozen=True)
class ImageSource:
    """The images of a listing, decoded one at a time. Can be pickled, for worker processes."""

    listing: Listing
    decode: Decode

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the images, in the order in which they are recorded."""
        return self.listing.files

    def __len__(self) -> int:
        return len(self.listing)

    def path(self, i: int) -> Path:
        """Where image i lies."""
        return self.listing.root / self.listing.paths[i]

    def read(self, i: int) -> bytes:
        """The bytes of image i. Raises DatasetError when they are not those that were listed."""
        path, size = self.path(i), self.listing.sizes[i]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DatasetError(
                f"cannot read {path}: {error.strerror}; it was there when the set was listed"
            ) from error
        if len(data) != size:
            raise DatasetError(
                f"{path} has {len(data):,} bytes, and had {size:,} when the set was listed: it "
                "changed meanwhile; run again once nothing writes there"
            )
        digests = self.listing.digests
        if digests is not None and xxhash.xxh3_128_hexdigest(data) != digests[i]:
            raise DatasetError(f"{path} was changed since the set was listed; run again")
        return data

    def load(self, i: int) -> Image.Image:
        """Image i in RGB.

        Raises DatasetError when the file changed since it was listed, is cut short, or cannot be
        decoded.
        """
        data = self.read(i)
        try:
            return self.decode(data)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise whatever they please over a broken file
            reason = _BUFFER.sub("", str(error))
            raise DatasetError(
                f"cannot decode {self.path(i)} ({len(data):,} bytes): {reason}; download or copy "
                "it again, or take it out of the set"
            ) from error


def open_images(images: ImageSet, site: Site) -> ImageSource:
    """The images of a set. Raises DatasetError when they are not those that its key counts."""
    return ImageSource(current_listing(images, site), decoder(images))


def current_listing(images: ImageSet, site: Site) -> Listing:
    """The listing of a set, now; raises DatasetError when it is not the one that its key counts."""
    listing = images.listing(site)
    if listing.digest != images.fingerprint(site).digest:
        # The next plan must not trust what is remembered, or it would end here again.
        images.fingerprint(site.refreshing())
        raise DatasetError(
            f"the files below {listing.root} are not those that the key of "
            f"{type(images).__name__} was made from: they changed; run again, which plans with "
            f"the {len(listing):,} images that are there now"
        )
    return listing


@singledispatch
def decoder(images: ImageSet) -> Decode:
    """How the files of a set are decoded: as photos, unless its type registers something else.

    The function given back must be importable by name, or a `functools.partial` of such a one.
    """
    return decode_photo
