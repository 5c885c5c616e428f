"""Image sets, and trait sets over them. Their keys are apart: new labels re-record no shards."""

from pathlib import Path
from typing import Self

from pydantic import model_validator

from spec.base import Spec
from spec.files.fingerprint import fingerprint_listing, place_of, with_digests
from spec.files.listing import Listing
from spec.files.site import Fingerprint, Site
from spec.keys.identity import portable_name

PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""Suffixes of image files, in lower case."""


def is_photo(name: str) -> bool:
    """Return whether a file name has the suffix of an image, in any case."""
    return name.lower().endswith(PHOTOS)


class ImageSet(Spec, abstract=True):
    """Images in a fixed order, identified by their names and the bytes of their files.

    So a moved folder keeps its artifacts, and a changed image does not. Subclasses implement
    `folder` and `listing`.
    """

    def folder(self, site: Site) -> Path:
        """Return the folder that holds all files. Raises DatasetError when none is known."""
        raise NotImplementedError

    def listing(self, site: Site) -> Listing:
        """List the files below `folder`. Raises DatasetError when that is not possible."""
        raise NotImplementedError

    def is_identified_by_content(self) -> bool:
        """Return whether the bytes of the files count, not only their names and sizes."""
        return True

    def known_listing(self, site: Site) -> Listing:
        """List the files, with the digest of each for a set identified by content.

        Reads the files that changed since the last time.
        """
        if not self.is_identified_by_content():
            return self.listing(site)
        name = f"{self!r} at {place_of(lambda: self.folder(site))}"
        return with_digests(site, name, self.listing(site))

    def fingerprint(self, site: Site) -> Fingerprint:
        """Return the digest of the set and the number of images, cached by `site`."""
        return fingerprint_listing(
            site,
            repr(self),
            lambda: self.folder(site),
            lambda: self.listing(site),
            by_content=self.is_identified_by_content(),
            identity=lambda: portable_name(self),
        )

    def n_images(self, site: Site) -> int:
        """Return the number of images."""
        return self.fingerprint(site).n

    def fingerprints(self, site: Site) -> dict[str, str]:
        what = "images" if self.is_identified_by_content() else "listing"
        return {what: self.fingerprint(site).digest}


class TraitSet(Spec, abstract=True):
    """Binary traits over the images of an image set.

    Its key counts the images, the content of the label files and the fields that say how labels
    are read. `traits` selects traits, in the order given; None takes all.
    """

    traits: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _check_traits(self) -> Self:
        if self.traits is not None:
            twice = sorted({name for name in self.traits if self.traits.count(name) > 1})
            if twice:
                raise ValueError(
                    f"traits names {', '.join(twice)} more than once: name each trait once"
                )
            if not self.traits:
                raise ValueError("traits is empty: name at least one, or leave it None for all")
        return self

    @property
    def images(self) -> ImageSet:
        """The images alone; their key does not change with the labels."""
        raise NotImplementedError

    def label_fingerprint(self, site: Site) -> Fingerprint:
        """Return the digest of the files that hold the labels, cached by `site`."""
        raise NotImplementedError

    def fingerprints(self, site: Site) -> dict[str, str]:
        return self.images.fingerprints(site) | {"labels": self.label_fingerprint(site).digest}
