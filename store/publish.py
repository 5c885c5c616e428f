"""Publishing is one rename: what stands in an artifact's place is never touched, only moved."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from store.errors import StoreError
from store.files import explained, make_folders, sync_folder
from store.layout import trash_name
from store.manifest import Manifest, examine

_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_TRIES = 10


def publish(build: Path, home: Path, trash: Path, manifest: Manifest) -> Manifest:
    """Moves a finished build to its home.

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
        set_aside(home, trash, manifest.kind, manifest.key)
    raise StoreError(
        f"cannot publish {home}: other processes have replaced it {_TRIES} times meanwhile. "
        "Look at what is running there"
    )


def set_aside(home: Path, trash: Path, kind: str, key: str) -> None:
    """Moves a damaged artifact into the trash."""
    make_folders(trash)
    target = trash / trash_name(key)
    with explained("move to the trash", home):
        try:
            os.rename(home, target)
        except FileNotFoundError:
            return  # another process was faster
    # Between our look and our rename another process may have put a whole artifact there: put it
    # back. Should a third have published since, its own is as good, and ours stays in the trash.
    if isinstance(examine(str(target), kind, key), Manifest):
        with suppress(OSError):
            os.rename(target, home)


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
