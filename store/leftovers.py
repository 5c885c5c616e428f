"""What nobody needs any more: builds whose processes are gone, parts of what is whole."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from store.errors import StoreError
from store.files import make_folders, remove_tree
from store.layout import builds, owner_of, trash, trash_name, work
from store.owner import Life, Owner


def remove_leftovers(root: Path, kind: str, key: str) -> None:
    """Removes drafts of a key whose processes died on this host; never one that may live."""
    try:
        names = os.listdir(builds(root, kind))
    except OSError:
        return
    for name in names:
        if name.startswith(f"{key}.") and _is_dead(name):
            # Moved first: should its owner live after all, it fails to publish instead of
            # publishing a folder that is half deleted.
            _remove(root, kind, key, builds(root, kind) / name)


def remove_work(root: Path, kind: str, key: str) -> None:
    """Removes the finished parts of an artifact, as far as it can be: the artifact is there."""
    if os.path.lexists(work(root, kind, key)):
        # Moved first: nobody must take what is half deleted for a part.
        with suppress(StoreError):
            _remove(root, kind, key, work(root, kind, key))


def _remove(root: Path, kind: str, key: str, folder: Path) -> None:
    target = trash(root, kind) / trash_name(key)
    make_folders(target.parent)
    try:
        os.rename(folder, target)
    except OSError:
        return  # another process was faster, or it is not ours to move
    remove_tree(target)


def _is_dead(build: str) -> bool:
    try:
        return Owner.parse(owner_of(build)).life() is Life.DEAD
    except ValueError:
        return False  # not named by us
