"""Publish a draft by one rename. An existing artifact is never changed, only moved to the trash."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path

from store.artifact.manifest import Manifest
from store.artifact.verify import examine
from store.errors import StoreError
from store.io import explained, make_folders, sync_folder
from store.trash.move import move_to_trash

_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_TRIES = 10


def publish(build: Path, home: Path, root: Path, manifest: Manifest) -> Manifest:
    """Move a finished draft to its place below `root`, and return the manifest that is there now.

    That is `manifest`, or the one of a complete artifact that was there before; then the draft is
    not moved. A damaged artifact is moved to the trash. Raises StoreError.
    """
    make_folders(home.parent)
    for _ in range(_TRIES):
        if _move(build, home):
            sync_folder(home.parent)
            sync_folder(build.parent)
            # Another process may have created this folder and ended before it was durable.
            sync_folder(home.parent.parent)
            return manifest
        found = examine(str(home), manifest.kind, manifest.key)
        if isinstance(found, Manifest):
            return found
        # Should a third process publish before a whole artifact is put back, its own is as good.
        move_to_trash(root, manifest.kind, manifest.key, home, partial(_is_damaged, manifest))
    raise StoreError(
        f"cannot publish {home}: other processes replaced it {_TRIES} times meanwhile. "
        "Check which processes write there"
    )


def _is_damaged(ours: Manifest, folder: Path) -> bool:
    return not isinstance(examine(str(folder), ours.kind, ours.key), Manifest)


def _move(build: Path, home: Path) -> bool:
    """Rename a folder; return False where the target exists."""
    with explained("publish", home):
        try:
            os.rename(build, home)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
    return True
