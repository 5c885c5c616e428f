"""Images that two sets have in common, so that a test is not of what was trained on."""

from typing import NamedTuple

from spec.files.site import Site
from spec.images.base import ImageSet


class Overlap(NamedTuple):
    """The images of one set that another one has too."""

    by_content: tuple[str, ...]
    """Names of images whose bytes the other set has, under any name."""
    by_name: tuple[str, ...]
    """Names that the other set has too, for other or unknown bytes."""

    @property
    def n_images(self) -> int:
        return len(self.by_content) + len(self.by_name)


def overlap(images: ImageSet, others: ImageSet, site: Site) -> Overlap:
    """Return what of `images` is among `others` too. Sets identified by listing compare by name.

    Raises DatasetError where a set cannot be listed.
    """
    ours, theirs = images.known_listing(site), others.known_listing(site)
    digests = frozenset(theirs.digests or ())
    by_content = tuple(
        name
        for name, digest in zip(ours.files, ours.digests or (), strict=False)
        if digest in digests
    )
    return Overlap(by_content, tuple(sorted({*ours.files} & {*theirs.files} - {*by_content})))
