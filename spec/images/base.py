"""Image sets, and traits over them. The two are keyed apart: relabelling re-records nothing."""

from ..base import Spec
from ..fingerprint import Listing
from ..site import Fingerprint, Site


class ImageSet(Spec):
    """Some images in a fixed order, named by their listing and not by where they lie.

    A concrete set implements `listing` and `fingerprint`.
    """

    def listing(self, site: Site) -> Listing:
        """The files, listed now. Raises DatasetError when they cannot be."""
        raise NotImplementedError

    def fingerprint(self, site: Site) -> Fingerprint:
        """The digest of the listing and the number of images, remembered by `site`."""
        raise NotImplementedError

    def n_images(self, site: Site) -> int:
        """How many images the set has."""
        return self.fingerprint(site).n

    def fingerprints(self, site: Site) -> dict[str, str]:
        return {"listing": self.fingerprint(site).digest}


class TraitSet(Spec):
    """Binary traits over the images of an image set.

    Its key counts the images, the contents of the label files, and the fields that say how labels
    are read.
    """

    @property
    def images(self) -> ImageSet:
        """The images alone, which do not change when labels do."""
        raise NotImplementedError

    def label_fingerprint(self, site: Site) -> Fingerprint:
        """The digest of what the labels are read from, remembered by `site`."""
        raise NotImplementedError

    def fingerprints(self, site: Site) -> dict[str, str]:
        return self.images.fingerprints(site) | {"labels": self.label_fingerprint(site).digest}

