"""CUB-200-2011 on disk: 11,788 photos of birds in a fixed split, with 312 binary attributes.

Two layouts are read and give the same listing. The official archive:

    CUB_200_2011/                     root, or a folder in root
        images.txt                    <image id> <class>/<file>
        train_test_split.txt          <image id> <1 when for training>
        images/<class>/<file>.jpg
        attributes/image_attribute_labels.txt
    attributes.txt                    beside CUB_200_2011, as unpacked, or in its attributes/

A folder for each split, with the label files copied beside them:

    root/train/<class>/<file>.jpg
    root/test/<class>/<file>.jpg
    root/{images,attributes,image_attribute_labels}.txt

Text files are searched in `root`, `root/CUB_200_2011` and the parent of `root`, and in attributes/
and metadata/ of each.
"""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from spec.errors import DatasetError
from spec.files.fingerprint import fingerprint_found, place_of
from spec.files.listing import Listing, stat_files
from spec.files.site import Fingerprint, Site
from spec.images.base import ImageSet, TraitSet
from spec.images.folder import list_photos
from spec.keys.markers import Exec

Split = Literal["train", "test"]

LABEL_FILES = ("images.txt", "attributes.txt", "image_attribute_labels.txt")

_ID = re.compile("[0-9]{1,9}")


class CUB200Images(ImageSet):
    """The photos of one split, named "<class>/<file>" and sorted.

    `root` is the folder of the dataset, by default [data] cub200 in saevx.toml.
    """

    split: Split
    root: Annotated[str | None, Exec()] = None

    def folder(self, site: Site) -> Path:
        return site.data_root("cub200", self.root)

    def listing(self, site: Site) -> Listing:
        root = self.folder(site)
        if not root.is_dir():
            raise DatasetError(f"there is no folder {root}, where CUB-200-2011 should be")
        home = official_home(root)
        if home is not None:
            return _list_official(root, home, self.split)
        if (root / self.split).is_dir():
            return _list_tree(root, self.split)
        raise DatasetError(
            f"{root} has no known layout of CUB-200-2011: neither the official archive "
            f"(images.txt and images/, here or in CUB_200_2011/) nor a folder {self.split}/"
        )


class CUB200(TraitSet):
    """The attributes of the photos of one split.

    An attribute counts as present when a labeller marked it so with a certainty of at least
    `min_certainty`: 1 not visible, 2 guessing, 3 probably, 4 definitely.
    """

    split: Split
    root: Annotated[str | None, Exec()] = None
    min_certainty: int = Field(3, ge=1, le=4)

    @property
    def images(self) -> CUB200Images:
        return CUB200Images(split=self.split, root=self.root)

    def label_fingerprint(self, site: Site) -> Fingerprint:
        name = "labels of CUB200"
        place = place_of(lambda: site.data_root("cub200", self.root))
        return fingerprint_found(
            site,
            f"{name} at {place}",
            lambda: find_labels(site.data_root("cub200", self.root)),
            identity=lambda: name,
            place=place,
        )


class LabelFiles(NamedTuple):
    """Paths of the files that labels are read from."""

    images: Path
    attributes: Path
    labels: Path


def official_home(root: Path) -> Path | None:
    """Return CUB_200_2011 of the official archive, which may be `root`; None in other layouts."""
    for home in (root, root / "CUB_200_2011"):
        if (home / "images.txt").is_file() and (home / "images").is_dir():
            return home
    return None


def find_labels(root: Path) -> LabelFiles:
    """Return the label files of a dataset. Raises DatasetError naming all that are missing."""
    return LabelFiles(*_find(root, LABEL_FILES))


def read_image_names(path: Path) -> dict[int, str]:
    """Read images.txt: image id -> "<class>/<file>". Raises DatasetError for a malformed file."""
    names = read_pairs(path)
    wrong = [name for name in names.values() if not _is_image_name(name)]
    if wrong:
        raise DatasetError(f"{path}: names must be <class>/<file>, not {', '.join(wrong[:5])}")
    twice = len(names) - len(set(names.values()))
    if twice:
        raise DatasetError(f"{path}: {twice} names occur more than once")
    return names


def read_pairs(path: Path) -> dict[int, str]:
    """Read a file of lines "<id> <value>". Raises DatasetError naming the malformed lines."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read {path}: {error}") from error
    pairs: dict[int, str] = {}
    faults: list[str] = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not _ID.fullmatch(words[0]):
            faults.append(f"line {number} is not '<id> <value>': {line[:60]!r}")
        elif int(words[0]) in pairs:
            faults.append(f"line {number} repeats the id {words[0]}")
        else:
            pairs[int(words[0])] = words[1]
    if not pairs and not faults:
        faults.append("the file is empty")
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise DatasetError(f"{path}: {'; '.join(faults[:5])}{more}")
    return pairs


def _list_official(root: Path, home: Path, split: Split) -> Listing:
    images, splits = _find(home, ("images.txt", "train_test_split.txt"))
    names, sides = read_image_names(images), read_pairs(splits)
    strange = sorted(set(sides.values()) - {"0", "1"})
    if strange or names.keys() != sides.keys():
        raise DatasetError(
            f"{splits} must have one line with 0 or 1 for each image of {images}: "
            f"{len(names.keys() - sides.keys())} images have no line, "
            f"{len(sides.keys() - names.keys())} lines have an unknown image id, "
            f"other values than 0 and 1: {', '.join(strange[:5]) or 'none'}"
        )
    wanted = "1" if split == "train" else "0"
    files = tuple(sorted(name for number, name in names.items() if sides[number] == wanted))
    if not files:
        raise DatasetError(f"{splits} has no image in the split {split!r}")
    inside = "" if home == root else f"{home.relative_to(root).as_posix()}/"
    paths = tuple(f"{inside}images/{name}" for name in files)
    return Listing(root, files, paths, stat_files(root, paths))


def _list_tree(root: Path, split: Split) -> Listing:
    found = list_photos(root / split)
    wrong = [name for name in found.files if not _is_image_name(name)]
    if wrong:
        raise DatasetError(
            f"images must be at {root / split}/<class>/<file>; "
            f"{len(wrong)} are elsewhere: {', '.join(wrong[:5])}"
        )
    paths = tuple(f"{split}/{name}" for name in found.files)
    folders = tuple(f"{split}/{folder}" if folder else split for folder in found.folders)
    return replace(found, root=root, paths=paths, folders=folders)


def _is_image_name(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(part not in ("", ".", "..") for part in parts)


def _find(root: Path, names: tuple[str, ...]) -> list[Path]:
    """Return the path of each named file. Raises DatasetError listing all that are missing."""
    places = [
        base / inside
        for base in (root, root / "CUB_200_2011", root.parent)
        for inside in ("", "attributes", "metadata")
    ]
    found = {
        name: next((path for place in places if (path := place / name).is_file()), None)
        for name in names
    }
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise DatasetError(
            f"{', '.join(missing)} of CUB-200-2011 cannot be found; searched "
            f"{', '.join(os.path.join(place, '') for place in places)}"
        )
    return [path for path in found.values() if path is not None]
