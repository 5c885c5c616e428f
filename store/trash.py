"""The trash: what was moved out of the way by a rename, and may be brought back for a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from store.errors import MissingArtifact, StoreError
from store.files import explained, make_folders, remove_tree, sync_folder
from store.layout import KINDS, home, trash, trash_name, trashed
from store.manifest import Manifest, examine
from store.records import names_in
from store.store import Store

Identity = tuple[int, int, int]
"""Device, inode, and time of change: inodes are used again."""


DELETED = ".deleted"
"""Ends the name of what is being deleted for good, and may be half gone."""


class Entry(NamedTuple):
    """One folder in the trash."""

    kind: str
    key: str
    moved: float
    """Seconds since 1970."""
    path: Path


def entries(store: Store, kind: str | None = None) -> Iterator[Entry]:
    """What lies in the trash, oldest first within a kind; names that are not ours are left out."""
    for one in KINDS if kind is None else (kind,):
        folder = trash(store.root_of(one), one)
        found = [(name, trashed(name)) for name in names_in(folder)]
        ours = [Entry(one, facts[0], facts[1], folder / name) for name, facts in found if facts]
        yield from sorted(ours, key=lambda entry: entry.moved)


def move(root: Path, kind: str, key: str, path: Path, identity: Identity) -> Path | None:
    """Renames `path` into the trash. Returns where it lies there.

    None when it is gone, or when what stood there was not what `identity` says: another process
    has replaced it, and it is put back. Raises StoreError.
    """
    target = trash(root, kind) / trash_name(key)
    make_folders(target.parent)
    with explained("move to the trash", path):
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return None
    if identity_of(target) != identity:
        put_back(target, path)
        return None
    return target


def put_back(target: Path, path: Path) -> bool:
    """Undoes `move`; False when something else stands there by now, which is as good."""
    with suppress(OSError):
        os.rename(target, path)
        sync_folder(path.parent)
        return True
    return False


def identity_of(path: Path) -> Identity | None:
    """By what a folder is known, also after a rename; None when there is none."""
    with explained("look at", path):
        try:
            stat = os.lstat(path)
        except FileNotFoundError:
            return None
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns


def restore(store: Store, kind: str, key: str) -> Path:
    """Brings an artifact back from the trash: of several, the latest that is whole.

    It counts as new, so that a collection leaves it alone for the grace time. Raises StoreError
    when something stands in its place, and MissingArtifact when the trash has no whole one.
    """
    place = home(store.root_of(kind), kind, key)
    why = "nothing of that key is in the trash"
    ours = [e for e in entries(store, kind) if e.key == key and not e.path.name.endswith(DELETED)]
    for entry in reversed(ours):
        found = examine(str(entry.path), kind, key)
        if not isinstance(found, Manifest):
            why = f"what the trash has of it is {found}"
            continue
        make_folders(place.parent)
        with explained("restore", place):
            os.utime(entry.path)  # before it is back: a collection must not take it for old
            try:
                os.rename(entry.path, place)
            except OSError as error:
                if place.exists():
                    raise StoreError(f"{place} is there already; nothing was moved") from error
                raise
        sync_folder(place.parent)
        return place
    raise MissingArtifact(kind, key, str(store.root_of(kind)), f"{why}. Run its experiment again")


def empty(which: Iterable[Entry]) -> Iterator[tuple[Entry, int]]:
    """Deletes for good. Yields each entry once it is gone, and its bytes."""
    for entry in which:
        path = entry.path
        if not path.name.endswith(DELETED):
            # Renamed first: who brings it back meanwhile gets the whole or nothing, and not a
            # folder in which this goes on deleting.
            path = path.with_name(path.name + DELETED)
            try:
                os.rename(entry.path, path)
            except OSError:
                continue  # brought back, deleted by another, or not ours to delete
        n_bytes = bytes_in(path)
        if path.is_dir():
            remove_tree(path)
        else:
            with suppress(OSError):
                path.unlink()
        if not os.path.lexists(path):
            yield entry, n_bytes


def bytes_in(path: Path) -> int:
    """Sizes of all files in a folder, as far as they can be seen."""
    n_bytes = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                n_bytes += os.lstat(os.path.join(folder, name)).st_size
    return n_bytes
