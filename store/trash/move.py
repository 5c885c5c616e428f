"""Moves to the trash: one rename, then a check that the right thing was moved.

Between looking at a path and the rename, another process may replace what is there. In the trash
nothing replaces it, so it is checked there, and put back if it is not what was meant.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from store.io import explained, make_folders, remove_tree, sync_folder
from store.layout import DELETED, trash, trash_name

Identity = tuple[int, int, int]
"""Device, inode and mtime of a folder: inodes are used again."""


def identity_of(path: Path) -> Identity | None:
    """What identifies a folder, also after a rename; None if there is none."""
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
    """Rename `path` into the trash of a kind, to a name that begins with `key`.

    If `is_meant` returns False for what was moved, it is put back. Return its path in the trash;
    None if it is not there, or was gone before. Raises StoreError.
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
    """Like `move_to_trash`, for the folder of this identity. Return None for any other."""

    def is_meant(target: Path) -> bool:
        return identity_of(target) == identity

    target = move_to_trash(root, kind, key, path, is_meant)
    return target if target and is_meant(target) else None


def put_back(target: Path, path: Path) -> bool:
    """Undo `move_to_trash`. Return False if another folder has taken its place, which is fine."""
    with suppress(OSError):
        os.rename(target, path)
        sync_folder(path.parent)
        return True
    return False


def delete(entry: Path) -> bool:
    """Delete from the trash for good. Return False if something of it is left.

    It is renamed first, so that a process that restores it meanwhile gets all of it or nothing.
    """
    if not entry.name.endswith(DELETED):
        doomed = entry.with_name(entry.name + DELETED)
        try:
            os.rename(entry, doomed)
        except OSError:
            return False  # restored, or deleted by another process
        entry = doomed
    if entry.is_dir() and not entry.is_symlink():
        remove_tree(entry)
    else:
        with suppress(OSError):
            entry.unlink()
    return not os.path.lexists(entry)
