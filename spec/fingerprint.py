"""Listings and content digests of files on disk: how a dataset gets a name without its path."""

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

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


def walk(root: Path, wanted: Callable[[str], bool]) -> list[str]:
    """All files below `root` whose name is `wanted`, relative and sorted.

    Hidden files and folders are passed over; links are followed. Raises DatasetError when `root` is
    no folder.
    """
    if not root.is_dir():
        raise DatasetError(
            f"there is no folder {root}: is the dataset there, or its root set wrong?"
        )
    files: list[str] = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        inside = os.path.relpath(folder, root)
        prefix = "" if inside == "." else inside.replace(os.sep, "/") + "/"
        files.extend(prefix + n for n in names if not n.startswith(".") and wanted(n))
    return sorted(files)


def fingerprint_listing(
    site: Site, what: str, root: Path, list_files: Callable[[], Listing], *, anew: bool = False
) -> Fingerprint:
    """The fingerprint of the image set `what` below `root`, listed anew only when it may differ.

    `list_files` gives paths relative to `root`. Small sets are listed at every plan. For large ones
    the mtimes of the folders that hold files are compared, which notices files that came, went or
    were renamed; a file overwritten in place is noticed when it is recorded, which then lists
    `anew`: past what `site` has seen, so that the next plan knows better.
    """

    def holds(stamp: str) -> bool:
        mtimes: dict[str, int] = json.loads(stamp)
        if not root.is_dir():
            raise DatasetError(f"there is no folder {root}")
        return bool(mtimes) and all(_mtime(root, f) == mtime for f, mtime in mtimes.items())

    def take() -> tuple[Fingerprint, str]:
        began = time.time_ns()
        listing = list_files()
        mtimes: dict[str, int] = {}
        if len(listing) > RELIST_AT_MOST:
            mtimes = {folder: _mtime(root, folder) for folder in _folders(listing.paths)}
        if mtimes and max(mtimes.values()) > began - SETTLED_NS:
            mtimes = {}
        return Fingerprint(listing.digest, len(listing)), json.dumps(mtimes)

    if anew:
        return Site(memory=site.memory).fingerprint(f"{what} at {root}", lambda _: False, take)
    return site.fingerprint(f"{what} at {root}", holds, take)


def fingerprint_contents(site: Site, what: str, paths: Sequence[Path]) -> Fingerprint:
    """The fingerprint of the bytes of some files, read again only when a size or mtime differs."""
    places = ", ".join(str(path) for path in paths[:3])
    identity = digest_text(str(path) for path in paths)
    return fingerprint_found(site, f"{what} at {places} ({identity})", lambda: paths)


def fingerprint_found(site: Site, what: str, find: Callable[[], Sequence[Path]]) -> Fingerprint:
    """As `fingerprint_contents`, of files that must be looked for.

    `what` names them for good, so that their fingerprint is remembered after they are gone. `find`
    raises DatasetError when they cannot be found.
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

    return site.fingerprint(what, lambda was: was == stamp(find()), take)


def _mtime(root: Path, folder: str) -> int:
    try:
        return os.stat(os.path.join(root, folder)).st_mtime_ns
    except OSError:
        return -1


def _folders(paths: Iterable[str]) -> list[str]:
    """The folders of the files and all above them, so that a new sibling folder is noticed too."""
    found = {"."}
    for folder in {os.path.dirname(path) for path in paths}:
        while folder and folder not in found:
            found.add(folder)
            folder = os.path.dirname(folder)
    return sorted(found)
