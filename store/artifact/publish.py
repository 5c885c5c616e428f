"""Publishing is one rename: what stands in an artifact's place is never touched, only moved."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path

from store.artifact.manifest import Manifest, examine
from store.errors import StoreError
from store.io import explained, make_folders, sync_folder
from store.trash.move import move_to_trash

_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_TRIES = 10


def publish(build: Path, home: Path, root: Path, manifest: Manifest) -> Manifest:
    """Moves a finished build to its home, which lies below `root`.

    Returns the manifest that stands there after: ours, or that of a whole artifact which was
    there first; then the build is left where it is. What is not whole is moved to the trash.
    """
    make_folders(home.parent)
    for _ in range(_TRIES):
        if _move(build, home):
            sync_folder(home.parent)
            sync_folder(build.parent)
            # Another process may have made this folder, and died before it was durable.
            sync_folder(home.parent.parent)
            return manifest
        found = examine(str(home), manifest.kind, manifest.key)
        if isinstance(found, Manifest):
            return found
        # Should a third publish while a repair is put back, its own is as good.
        move_to_trash(root, manifest.kind, manifest.key, home, partial(_is_damaged, manifest))
    raise StoreError(
        f"cannot publish {home}: other processes have replaced it {_TRIES} times meanwhile. "
        "Look at what is running there"
    )


def _is_damaged(ours: Manifest, folder: Path) -> bool:
    return not isinstance(examine(str(folder), ours.kind, ours.key), Manifest)


def _move(build: Path, home: Path) -> bool:
    """Renames; False when something stands in the way."""
    with explained("publish", home):
        try:
            os.rename(build, home)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
    return True
