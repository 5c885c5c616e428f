"""Decoded images of an image set, in the order of its listing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import singledispatch
from pathlib import Path

import xxhash
from PIL import Image

from saevx.datasets.photos import decode_photo
from spec import DatasetError, ImageSet, Site, Spec, SpecError
from spec.files.listing import Listing

_BUFFER = re.compile(r" ?<_io\.BytesIO object at \w+>")
"""Pillow's name for a file passed as bytes."""

Decode = Callable[[bytes], Image.Image]
"""Converts the bytes of a file to an RGB image. May raise any error."""


@dataclass(frozen=True)
class ImageSource:
    """Decodes the images of a listing. Can be pickled, for worker processes."""

    listing: Listing
    decode: Decode
    digests: dict[int, str] = field(default_factory=dict)
    """xxh3_128 of the bytes of each image read so far."""

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the images, in the order in which they are recorded."""
        return self.listing.files

    def __len__(self) -> int:
        return len(self.listing)

    def path(self, i: int) -> Path:
        """Return the path of image i."""
        return self.listing.root / self.listing.paths[i]

    def read(self, i: int) -> bytes:
        """Return the bytes of image i, and keep their digest.

        Raises DatasetError if they changed since the listing.
        """
        path, size = self.path(i), self.listing.stats[i].size
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DatasetError(
                f"cannot read {path}: {error.strerror}; it was there when the set was listed, so "
                "restore it, or run again"
            ) from error
        if len(data) != size:
            raise DatasetError(
                f"{path} has {len(data):,} bytes, but had {size:,} when the set was listed: run "
                "again when no process writes to it"
            )
        known, digest = self.listing.digests, xxhash.xxh3_128_hexdigest(data)
        if known is not None and digest != known[i]:
            raise DatasetError(
                f"{path} does not hold the bytes that it had when the set was identified or "
                "first recorded: restore the file, or run again to use the set as it is now"
            )
        self.digests[i] = digest
        return data

    def load(self, i: int) -> Image.Image:
        """Return image i in RGB.

        Raises DatasetError when the file changed since the listing or cannot be decoded.
        """
        data = self.read(i)
        try:
            return self.decode(data)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise all sorts of errors for broken files
            reason = _BUFFER.sub("", str(error))
            raise DatasetError(
                f"cannot decode {self.path(i)} ({len(data):,} bytes): {reason}; download or copy "
                "it again, or remove it from the set"
            ) from error


def check_reads_fields(images: ImageSet) -> None:
    """Raise SpecError if a subclass adds a field, and neither lists nor decodes files by it.

    Two values of the field would be two keys of the same images.
    """
    spec_type = type(images)
    lists = next(base for base in spec_type.__mro__ if "listing" in vars(base))
    added = unread_fields(spec_type, lists)
    if added and spec_type not in decoder.registry:
        raise SpecError(
            f"{spec_type.__name__} adds {', '.join(added)} to {lists.__name__}, which does not "
            f"read them: define `listing` in {spec_type.__name__}, or register a decoder for it"
        )


def unread_fields(spec_type: type[Spec], base: type) -> list[str]:
    """Return the fields that a type adds to a base, which knows nothing of them."""
    return sorted(spec_type.model_fields.keys() - getattr(base, "model_fields", {}).keys())


def open_images(images: ImageSet, site: Site) -> ImageSource:
    """Return the images of a set. Raises DatasetError if they are not those of its key."""
    return ImageSource(current_listing(images, site), decoder(images))


def current_listing(images: ImageSet, site: Site) -> Listing:
    """List the images of a set. Raises DatasetError if they are not those of its key."""
    listing = images.known_listing(site)
    if listing.digest != images.fingerprint(site).digest:
        # The next plan must not use the cached fingerprint, or it would fail here again.
        images.fingerprint(site.refreshing())
        raise DatasetError(
            f"the files below {listing.root} changed since the key of {type(images).__name__} was "
            f"computed: run again to use the {len(listing):,} images that are there now"
        )
    return listing


@singledispatch
def decoder(images: ImageSet) -> Decode:
    """Return the function that decodes files of a set: `decode_photo` unless one is registered.

    The function must be importable by name, or be a `functools.partial` of such a function.
    """
    return decode_photo
