"""All images below a folder."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from spec.errors import DatasetError
from spec.files.listing import Listing, list_files
from spec.files.site import Site
from spec.images.base import PHOTOS, ImageSet, is_photo
from spec.keys.markers import Exec


class ImageFolder(ImageSet):
    """All images below `root`, or below `root/split`, sorted by name.

    Images are files ending in .jpg, .jpeg, .png, .webp, .bmp, .tif, .tiff or .gif, in any case.
    Hidden files and folders are skipped; links are followed.

    Every file is read once, and again when its size or times change, since its bytes count in keys.
    `identity="listing"` counts names and sizes alone, for sets too large to read. Then an image
    replaced by one of equal size keeps its key; a recording that meets another content than earlier
    recordings of the set fails.

    Any folder may hold any images, so the fingerprint of a set is cached by its root. Once the
    folder is deleted, its artifacts are found only by a spec with the same root.
    """

    root: Annotated[str, Exec(), Field(min_length=1)]
    split: Annotated[str, Field(min_length=1)] | None = None
    identity: Literal["content", "listing"] = "content"

    @field_validator("split")
    @classmethod
    def _is_below_root(cls, split: str | None) -> str | None:
        if split is not None:
            parts = [part for part in split.split("/") if part not in ("", ".")]
            if split.startswith("/") or ".." in parts or not parts:
                raise ValueError(
                    f'{split!r} is not the name of a folder in root: use a name such as "train", '
                    "and pass the path as root=..."
                )
            if split != "/".join(parts):  # one folder, one key
                raise ValueError(f"write {split!r} as {'/'.join(parts)!r}")
        return split

    def folder(self, site: Site) -> Path:
        root = site.data_root("images", self.root)
        return root if self.split is None else root / self.split

    def listing(self, site: Site) -> Listing:
        return list_photos(self.folder(site))

    def is_identified_by_content(self) -> bool:
        return self.identity == "content"


def list_photos(folder: Path) -> Listing:
    """Return the images below a folder. Raises DatasetError without a folder or an image."""
    found = list_files(folder, is_photo)
    if not found.files:
        raise DatasetError(f"there is no image below {folder}: images end in {', '.join(PHOTOS)}")
    return found
