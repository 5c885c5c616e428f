"""Image sets, and traits over them. The two are keyed apart: relabelling re-records nothing."""

from pathlib import Path
from typing import Self

from pydantic import model_validator

from ..base import Spec
from ..fingerprint import Listing, fingerprint_listing
from ..identity import path_free
from ..site import Fingerprint, Site

PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""Endings of image files, in lower case."""


def is_photo(name: str) -> bool:
    """Whether a file's name ends as an image's does, in whatever case."""
    return name.lower().endswith(PHOTOS)


class ImageSet(Spec, abstract=True):
    """Some images in a fixed order, named by their listing and not by where they lie.

    A concrete set implements `folder` and `listing`.
    """

    def folder(self, site: Site) -> Path:
        """The folder that all files lie below. Raises DatasetError when none is known."""
        raise NotImplementedError

    def listing(self, site: Site) -> Listing:
        """The files, listed now, below `folder`. Raises DatasetError when they cannot be."""
        raise NotImplementedError

    def fingerprint(self, site: Site, *, anew: bool = False) -> Fingerprint:
        """The digest of the listing and the number of images, remembered by `site`.

        `anew` lists whatever is remembered, and remembers the outcome for later sites.
        """
        return fingerprint_listing(
            site,
            repr(self),
            lambda: self.folder(site),
            lambda: self.listing(site),
            identity=lambda: path_free(self),
            anew=anew,
        )

    def n_images(self, site: Site) -> int:
        """How many images the set has."""
        return self.fingerprint(site).n

    def fingerprints(self, site: Site) -> dict[str, str]:
        return {"listing": self.fingerprint(site).digest}


class TraitSet(Spec, abstract=True):
    """Binary traits over the images of an image set.

    Its key counts the images, the contents of the label files, and the fields that say how labels
    are read. `traits` chooses some of the traits, in that order; None takes all.
    """

    traits: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _some_traits_each_once(self) -> Self:
        if self.traits is not None:
            twice = sorted({name for name in self.traits if self.traits.count(name) > 1})
            if twice:
                raise ValueError(f"traits names {', '.join(twice)} more than once")
            if not self.traits:
                raise ValueError("traits is empty: name at least one, or leave it None for all")
        return self

    @property
    def images(self) -> ImageSet:
        """The images alone, which do not change when labels do."""
        raise NotImplementedError

    def label_fingerprint(self, site: Site) -> Fingerprint:
        """The digest of what the labels are read from, remembered by `site`."""
        raise NotImplementedError

    def fingerprints(self, site: Site) -> dict[str, str]:
        return self.images.fingerprints(site) | {"labels": self.label_fingerprint(site).digest}
