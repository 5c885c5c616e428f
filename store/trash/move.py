"""Moving out of the way: one rename into the trash, a look at what was moved, and back if it is not
what was meant. Between a look at a place and the rename another process may have replaced what is
there; only in the trash does it stand still.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from store.io import explained, make_folders, remove_tree, sync_folder
from store.layout import DELETED, trash, trash_name

Identity = tuple[int, int, int]
"""Device, inode, and time of change: inodes are used again."""


def identity_of(path: Path) -> Identity | None:
    """By what a folder is known, also after a rename; None when there is none."""
    with explained("look at", path):
        try:
            stat = os.lstat(path)
        except FileNotFoundError:
            return None
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns


def move_to_trash(
    root: Path,
    kind: str,
    key: str,
    path: Path,
    is_meant: Callable[[Path], bool],
    action: str = "move to the trash",
) -> Path | None:
    """Renames `path` into the trash of a kind, under a name that begins with `key`.

    Where `is_meant` says of what was moved that it is another, it is put back. Returns where it
    lies in the trash; None when it does not, or was gone. Raises StoreError.
    """
    target = trash(root, kind) / trash_name(key)
    make_folders(target.parent)
    with explained(action, path):
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return None  # another process was faster
    if not is_meant(target) and put_back(target, path):
        return None
    return target


def move_to_trash_if_same(
    root: Path, kind: str, key: str, path: Path, identity: Identity
) -> Path | None:
    """As `move_to_trash`, of what `identity_of` has told; None for anything else."""

    def is_meant(target: Path) -> bool:
        return identity_of(target) == identity

    target = move_to_trash(root, kind, key, path, is_meant)
    return target if target and is_meant(target) else None


def put_back(target: Path, path: Path) -> bool:
    """Undoes `move_to_trash`; False when something else stands there by now, which is as good."""
    with suppress(OSError):
        os.rename(target, path)
        sync_folder(path.parent)
        return True
    return False


def delete(entry: Path) -> bool:
    """Deletes what lies in the trash for good, as far as it can be; False when it is not ours to.

    Renamed first: who brings it back meanwhile gets the whole or nothing, and not a folder in which
    this goes on deleting.
    """
    if not entry.name.endswith(DELETED):
        doomed = entry.with_name(entry.name + DELETED)
        try:
            os.rename(entry, doomed)
        except OSError:
            return False  # brought back, or deleted by another
        entry = doomed
    if entry.is_dir() and not entry.is_symlink():
        remove_tree(entry)
    else:
        with suppress(OSError):
            entry.unlink()
    return not os.path.lexists(entry)
