"""Builds that their processes left behind: killed, or gone with a reboot."""

from __future__ import annotations

import os
from pathlib import Path

from store.files import make_folders, remove_tree
from store.layout import builds, owner_of, trash, trash_name
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
            target = trash(root, kind) / trash_name(key)
            make_folders(target.parent)
            try:
                os.rename(builds(root, kind) / name, target)
            except OSError:
                continue  # another process was faster, or it is not ours to move
            remove_tree(target)


def _is_dead(build: str) -> bool:
    try:
        return Owner.parse(owner_of(build)).life() is Life.DEAD
    except ValueError:
        return False  # not named by us
