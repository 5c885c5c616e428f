"""Listings and content digests of files on disk, which identify a dataset without its path."""

import errno
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import xxhash

from spec.errors import DatasetError
from spec.files.site import Fingerprint, Site

RELIST_AT_MOST = 10_000
"""Larger sets are listed only when the mtime of a folder changed, others at every plan."""

SETTLED_NS = 2_000_000_000
"""A folder that changed less than this before it was listed may change again at the same mtime."""


@dataclass(frozen=True)
class Listing:
    """The files of an image set, in the order in which they are recorded."""

    root: Path
    files: tuple[str, ...]
    """Names of the files within the set, with forward slashes; the same on every machine."""
    paths: tuple[str, ...]
    """Path of each file relative to root. Usually equal to `files`."""
    sizes: tuple[int, ...]
    """Size of each file in bytes."""
    digests: tuple[str, ...] | None = None
    """xxh3_128 of each file's bytes, for sets that are cheap to read."""
    folders: tuple[str, ...] = ()
    """Folders that were searched, relative to root, for sets defined by what a folder holds."""

    def __len__(self) -> int:
        return len(self.files)

    @property
    def digest(self) -> str:
        """xxh3_128 over names, sizes and content digests, if any, in order."""
        columns: list[Sequence[object]] = [self.files, self.sizes]
        if self.digests is not None:
            columns.append(self.digests)
        return digest_text("\0".join(map(str, row)) for row in zip(*columns, strict=True))


def digest_text(lines: Iterable[str]) -> str:
    """Return the xxh3_128, in hex, of lines of text, each ended by a newline."""
    state = xxhash.xxh3_128()
    for line in lines:
        state.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return state.hexdigest()


def digest_file(path: Path) -> str:
    """Return the xxh3_128, in hex, of a file. Raises DatasetError when it cannot be read."""
    state = xxhash.xxh3_128()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                state.update(block)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    return state.hexdigest()


def stat_files(root: Path, paths: Sequence[str]) -> list[os.stat_result]:
    """Return the stat of each file. Raises DatasetError naming up to five that are missing."""
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
            "download or unpack the dataset again"
        )
    return stats


class Walk(NamedTuple):
    """The files and folders below a folder."""

    files: tuple[str, ...]
    """Relative paths with forward slashes, sorted."""
    folders: tuple[str, ...]
    """All folders that were searched, empty ones too; the top folder is ""."""


def walk(root: Path, accept: Callable[[str], bool]) -> Walk:
    """Return all files below `root` whose name `accept` takes.

    Hidden files and folders are skipped. Links are followed, except to a folder that contains the
    link. Raises DatasetError when `root` is not a folder, or naming all folders that cannot be
    read.
    """
    if not os.path.isdir(root):
        raise DatasetError(f"there is no folder {root}: put the dataset there, or set another root")
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
        files += [prefix + name for name, is_dir in found if not is_dir and accept(name)]
    if faults:
        raise DatasetError(
            f"{len(faults)} folders below {root} cannot be read: {', '.join(sorted(faults))}; "
            "make them readable, or move them out of the set"
        )
    return Walk(tuple(sorted(files)), tuple(sorted(folders)))


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself, like a dangling one, is no folder
            return False
        raise


def place_of(find: Callable[[], Path]) -> str:
    """Return the path of files, for the name under which their fingerprint is cached."""
    try:
        return str(find())
    except DatasetError:
        return "no known place"


def fingerprint_listing(
    site: Site,
    name: str,
    find_root: Callable[[], Path],
    list_files: Callable[[], Listing],
    *,
    identity: Callable[[], str | None],
) -> Fingerprint:
    """Return the fingerprint of an image set, listed only when the listing may have changed.

    Small sets are listed every time. For large ones the mtimes of all folders are compared, which
    notices files that were added, removed or renamed. A file overwritten in place is noticed when
    it is recorded; then the set is listed again on a refreshing site. `identity` as in
    `Site.fingerprint`.
    """

    def is_current(stamp: str) -> bool:
        mtimes: dict[str, int] = json.loads(stamp)
        root = find_root()
        if not os.path.isdir(root):
            raise DatasetError(f"there is no folder {root}")
        return bool(mtimes) and all(_mtime(root, f) == mtime for f, mtime in mtimes.items())

    def compute() -> tuple[Fingerprint, str]:
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

    place = place_of(find_root)
    return site.fingerprint(f"{name} at {place}", is_current, compute, identity, place=place)


def fingerprint_contents(site: Site, name: str, paths: Sequence[Path]) -> Fingerprint:
    """Return the fingerprint of the bytes of files, read only when a size or mtime changed."""
    places = ", ".join(str(path) for path in paths[:3])
    digest = digest_text(str(path) for path in paths)
    return fingerprint_found(
        site, f"{name} at {places} ({digest})", lambda: paths, place=str(paths[0])
    )


def fingerprint_found(
    site: Site,
    name: str,
    find: Callable[[], Sequence[Path]],
    *,
    identity: Callable[[], str | None] | None = None,
    place: str | None = None,
) -> Fingerprint:
    """Return the fingerprint of the bytes of the files that `find` returns.

    It is cached under `name` and used when the files are missing. `find` raises DatasetError when
    they cannot be found. `identity` and `place` as in `Site.fingerprint`.
    """

    def stamp(paths: Sequence[Path]) -> str:
        stats = stat_files(Path(), [str(path) for path in paths])
        return digest_text(
            f"{path} {s.st_size} {s.st_mtime_ns}" for path, s in zip(paths, stats, strict=True)
        )

    def compute() -> tuple[Fingerprint, str]:
        paths = find()
        before = stamp(paths)
        digest = digest_text(digest_file(path) for path in paths)
        return Fingerprint(digest, len(paths)), before

    return site.fingerprint(name, lambda old: old == stamp(find()), compute, identity, place=place)


def _mtime(root: Path, folder: str) -> int:
    try:
        return os.stat(os.path.join(root, folder)).st_mtime_ns
    except OSError:
        return -1


def _folders(paths: Iterable[str]) -> set[str]:
    """Return the files' folders and all above them, so that a new sibling folder is noticed."""
    found = {""}
    for folder in {os.path.dirname(path) for path in paths}:
        while folder and folder not in found:
            found.add(folder)
            folder = os.path.dirname(folder)
    return found
