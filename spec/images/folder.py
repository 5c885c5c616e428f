"""All images below a folder."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from ..errors import DatasetError
from ..fingerprint import Listing, stat_files, walk
from ..markers import Exec
from ..site import Site
from .base import PHOTOS, ImageSet, is_photo


class ImageFolder(ImageSet):
    """All images below `root`, or below `root/split`, sorted by name.

    Images are files ending in .jpg, .jpeg, .png, .webp, .bmp, .tif, .tiff or .gif, in whatever
    case. Hidden files are passed over.
    """

    root: Annotated[str, Exec(), Field(min_length=1)]
    split: Annotated[str, Field(min_length=1)] | None = None

    def folder(self, site: Site) -> Path:
        root = site.data_root("images", self.root)
        return root if self.split is None else root / self.split

    def listing(self, site: Site) -> Listing:
        return list_folder(self.folder(site))


def list_folder(folder: Path) -> Listing:
    """The images below a folder; raises DatasetError when there is no folder, or no image."""
    files = tuple(walk(folder, is_photo))
    if not files:
        raise DatasetError(f"no image lies below {folder}: images end in {', '.join(PHOTOS)}")
    sizes = tuple(stat.st_size for stat in stat_files(folder, files))
    return Listing(root=folder, files=files, paths=files, sizes=sizes)
