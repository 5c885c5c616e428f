"""Fingerprints: what identifies the files of a dataset or of weights, wherever they lie."""

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from spec.errors import DatasetError
from spec.files.digests import digest_file, digest_files, is_settled, is_settled_at
from spec.files.listing import Listing, digest_text, stat_files
from spec.files.site import Fingerprint, Site

STAT_AT_MOST = 1_000_000
"""Of larger sets a plan compares the mtimes of all folders only, not each file."""


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
    by_content: bool,
    identity: Callable[[], str | None],
) -> Fingerprint:
    """Return the fingerprint of an image set, by the content of its files or by its listing.

    Every file is listed, and those whose stat has changed are read again. Of sets with more than
    STAT_AT_MOST files the mtimes of all folders are compared, which notices files that were added,
    removed or renamed; a file overwritten in place is noticed when it is recorded, and then the set
    is listed again on a refreshing site. `identity` as in `Site.fingerprint`.
    """
    found: list[Listing] = []

    def is_current(stamp: str) -> bool:
        root = find_root()
        if not os.path.isdir(root):
            raise DatasetError(f"there is no folder {root}")
        known = json.loads(stamp)
        if isinstance(known, dict):
            return bool(known) and all(_mtime(root, f) == mtime for f, mtime in known.items())
        found.append(list_files())
        return bool(known == found[0].stamp)

    def compute() -> tuple[Fingerprint, str]:
        root, began = find_root(), time.time_ns()
        listing = found[0] if found else list_files()
        stamp = _stamp(root, listing, began)
        if by_content:
            listing = with_digests(site, name_at, listing)
        return Fingerprint(listing.digest, len(listing)), json.dumps(stamp)

    place = place_of(find_root)
    name_at = f"{name} at {place}"
    return site.fingerprint(name_at, is_current, compute, identity, place=place)


def with_digests(site: Site, name: str, listing: Listing) -> Listing:
    """Return a listing with the digest of every file. Files whose stat is known are not read."""
    known = site.digests(name)
    digests, remembered = digest_files(
        listing.root, listing.paths, listing.stats, known, site.show_progress
    )
    if remembered != known:
        site.remember_digests(name, remembered)
    return replace(listing, digests=tuple(digests))


def _stamp(root: Path, listing: Listing, began_ns: int) -> str | dict[str, int]:
    """Return what a later plan compares; empty when a later change might not show in it."""
    if len(listing) <= STAT_AT_MOST:
        return listing.stamp if is_settled(listing.stats, began_ns) else ""
    folders = _folders(listing.paths) | set(listing.folders)
    mtimes = {folder: _mtime(root, folder) for folder in sorted(folders)}
    return mtimes if is_settled_at(max(mtimes.values()), began_ns) else {}


def fingerprint_contents(site: Site, name: str, paths: Sequence[Path]) -> Fingerprint:
    """Return the fingerprint of the bytes of files, read only when their stat has changed."""
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

    def compute() -> tuple[Fingerprint, str]:
        paths = find()
        began = time.time_ns()
        listing = _listing(paths)
        digest = digest_text(digest_file(path) for path in paths)
        stamp = listing.stamp if is_settled(listing.stats, began) else ""
        return Fingerprint(digest, len(paths)), stamp

    def is_current(stamp: str) -> bool:
        return stamp == _listing(find()).stamp

    return site.fingerprint(name, is_current, compute, identity, place=place)


def _listing(paths: Sequence[Path]) -> Listing:
    names = tuple(str(path) for path in paths)
    return Listing(Path(), names, names, stat_files(Path(), names))


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
