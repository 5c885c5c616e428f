"""Listings and content digests of files on disk: how a dataset gets a name without its path."""

import errno
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import xxhash

from .errors import DatasetError
from .site import Fingerprint, Site

RELIST_AT_MOST = 10_000
"""Up to so many files are listed at every plan; more, when the mtime of a folder changed."""

SETTLED_NS = 2_000_000_000
"""A folder changed less than this before its listing may change again within one mtime tick."""


@dataclass(frozen=True)
class Listing:
    """The files of an image set, in the order in which they are recorded."""

    root: Path
    files: tuple[str, ...]
    """Names by which the set knows its files, with forward slashes; the same on every machine."""
    paths: tuple[str, ...]
    """Where each lies, relative to root. Usually equal to `files`."""
    sizes: tuple[int, ...]
    """Bytes of each file."""
    digests: tuple[str, ...] | None = None
    """xxh3_128 of each file's bytes, for sets where reading them all is cheap."""
    folders: tuple[str, ...] = ()
    """All folders that were looked into, relative to root, for sets that take what they find."""

    def __len__(self) -> int:
        return len(self.files)

    @property
    def digest(self) -> str:
        """xxh3_128 over names, sizes and, where there are any, content digests, in order."""
        columns: list[Sequence[object]] = [self.files, self.sizes]
        if self.digests is not None:
            columns.append(self.digests)
        return digest_text("\0".join(map(str, row)) for row in zip(*columns, strict=True))


def digest_text(lines: Iterable[str]) -> str:
    """xxh3_128, in hex, of lines of text each ended by a newline."""
    state = xxhash.xxh3_128()
    for line in lines:
        state.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return state.hexdigest()


def digest_file(path: Path) -> str:
    """xxh3_128, in hex, of a file's bytes. Raises DatasetError when it cannot be read."""
    state = xxhash.xxh3_128()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                state.update(block)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    return state.hexdigest()


def stat_files(root: Path, paths: Sequence[str]) -> list[os.stat_result]:
    """The stat of each file; raises DatasetError naming up to five that are missing."""
    stats: list[os.stat_result] = []
    missing: list[str] = []
    for path in paths:
        try:
            stats.append(os.stat(os.path.join(root, path)))
        except OSError:
            missing.append(path)
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise DatasetError(
            f"{len(missing)} of {len(paths)} files are missing below {root}: {shown}; "
            "was the download or the unpacking cut short?"
        )
    return stats


class Walk(NamedTuple):
    """What lies below a folder."""

    files: tuple[str, ...]
    """Relative to it, with forward slashes, sorted."""
    folders: tuple[str, ...]
    """All that were looked into, the folder itself as "", be there files in them or not."""


def walk(root: Path, wanted: Callable[[str], bool]) -> Walk:
    """All files below `root` whose name is `wanted`.

    Hidden files and folders are passed over. Links are followed, but for those back to a folder
    that they lie in: what is there is listed already. Raises DatasetError when `root` is no folder,
    or naming all folders that cannot be read.
    """
    if not os.path.isdir(root):
        raise DatasetError(
            f"there is no folder {root}: is the dataset there, or its root set wrong?"
        )
    files: list[str] = []
    folders: list[str] = []
    faults: list[str] = []
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while waiting:
        inside, above = waiting.pop()
        path = os.path.join(root, inside)
        try:
            stat = os.stat(path)
            here = (stat.st_dev, stat.st_ino)
            if here in above:
                continue
            with os.scandir(path) as entries:
                found = [(e.name, _is_dir(e)) for e in entries if not e.name.startswith(".")]
        except OSError as error:
            faults.append(f"{error.filename or path} ({error.strerror})")
            continue
        folders.append(inside)
        prefix = f"{inside}/" if inside else ""
        waiting += [(prefix + name, above | {here}) for name, is_dir in found if is_dir]
        files += [prefix + name for name, is_dir in found if not is_dir and wanted(name)]
    if faults:
        raise DatasetError(
            f"{len(faults)} folders below {root} cannot be read: {', '.join(sorted(faults))}; "
            "allow reading them, or take them out of the set"
        )
    return Walk(tuple(sorted(files)), tuple(sorted(folders)))


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself leads nowhere, as one to nothing does
            return False
        raise


def place_of(find: Callable[[], Path]) -> str:
    """Where something lies, for the name that it is remembered by."""
    try:
        return str(find())
    except DatasetError:
        return "no known place"


def fingerprint_listing(
    site: Site,
    what: str,
    find_root: Callable[[], Path],
    list_files: Callable[[], Listing],
    *,
    identity: Callable[[], str | None],
    anew: bool = False,
) -> Fingerprint:
    """The fingerprint of the image set `what`, listed anew only when it may differ.

    `list_files` gives paths relative to the root. Small sets are listed at every plan. For large
    ones the mtimes of all folders are compared, which notices files that came, went or were
    renamed; a file overwritten in place is noticed when it is recorded, which then lists `anew`:
    past what `site` has seen, so that the next plan knows better. `identity` as in
    `Site.fingerprint`.
    """

    def holds(stamp: str) -> bool:
        mtimes: dict[str, int] = json.loads(stamp)
        root = find_root()
        if not os.path.isdir(root):
            raise DatasetError(f"there is no folder {root}")
        return bool(mtimes) and all(_mtime(root, f) == mtime for f, mtime in mtimes.items())

    def take() -> tuple[Fingerprint, str]:
        root = find_root()
        began = time.time_ns()
        listing = list_files()
        mtimes: dict[str, int] = {}
        if len(listing) > RELIST_AT_MOST:
            folders = _folders(listing.paths) | set(listing.folders)
            mtimes = {folder: _mtime(root, folder) for folder in sorted(folders)}
        if mtimes and max(mtimes.values()) > began - SETTLED_NS:
            mtimes = {}
        return Fingerprint(listing.digest, len(listing)), json.dumps(mtimes)

    where = f"{what} at {place_of(find_root)}"
    if anew:
        return Site(memory=site.memory).fingerprint(where, lambda _: False, take, identity)
    return site.fingerprint(where, holds, take, identity)


def fingerprint_contents(site: Site, what: str, paths: Sequence[Path]) -> Fingerprint:
    """The fingerprint of the bytes of some files, read again only when a size or mtime differs."""
    places = ", ".join(str(path) for path in paths[:3])
    identity = digest_text(str(path) for path in paths)
    return fingerprint_found(site, f"{what} at {places} ({identity})", lambda: paths)


def fingerprint_found(
    site: Site,
    what: str,
    find: Callable[[], Sequence[Path]],
    *,
    identity: Callable[[], str | None] | None = None,
) -> Fingerprint:
    """As `fingerprint_contents`, of files that must be looked for.

    `what` names them for good, so that their fingerprint is remembered after they are gone. `find`
    raises DatasetError when they cannot be found. `identity` as in `Site.fingerprint`.
    """

    def stamp(paths: Sequence[Path]) -> str:
        stats = stat_files(Path(), [str(path) for path in paths])
        return digest_text(
            f"{path} {s.st_size} {s.st_mtime_ns}" for path, s in zip(paths, stats, strict=True)
        )

    def take() -> tuple[Fingerprint, str]:
        paths = find()
        before = stamp(paths)
        digest = digest_text(digest_file(path) for path in paths)
        return Fingerprint(digest, len(paths)), before

    return site.fingerprint(what, lambda was: was == stamp(find()), take, identity=identity)


def _mtime(root: Path, folder: str) -> int:
    try:
        return os.stat(os.path.join(root, folder)).st_mtime_ns
    except OSError:
        return -1


def _folders(paths: Iterable[str]) -> set[str]:
    """The folders of the files and all above them, so that a new sibling folder is noticed too."""
    found = {""}
    for folder in {os.path.dirname(path) for path in paths}:
        while folder and folder not in found:
            found.add(folder)
            folder = os.path.dirname(folder)
    return found
