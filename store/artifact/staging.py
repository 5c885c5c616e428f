"""What nobody needs any more: builds whose processes are gone, parts of what is whole."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from store.errors import StoreError
from store.layout import builds, owner_of, work
from store.locks.liveness import age_of, may_be_alive
from store.locks.process import ProcessId
from store.trash.move import delete, move_to_trash


def remove_dead_builds(root: Path, kind: str, key: str) -> None:
    """Removes drafts of a key whose processes are dead; never one that may be alive."""
    try:
        names = os.listdir(builds(root, kind))
    except OSError:
        return
    for build in (builds(root, kind) / name for name in names if name.startswith(f"{key}.")):
        if is_left_behind(build):
            # Moved first: should its owner live after all, it fails to publish instead of
            # publishing a folder that is half deleted.
            _remove(root, kind, key, build)


def remove_parts(root: Path, kind: str, key: str) -> None:
    """Removes the finished parts of an artifact, as far as it can be: the artifact is there."""
    if os.path.lexists(work(root, kind, key)):
        # Moved first: nobody must take what is half deleted for a part.
        _remove(root, kind, key, work(root, kind, key))


def _remove(root: Path, kind: str, key: str, folder: Path) -> None:
    with suppress(StoreError):  # it is not ours to move
        target = move_to_trash(root, kind, key, folder, lambda moved: True)
        if target is not None:
            delete(target)


def is_left_behind(build: Path) -> bool:
    """Whether the process that made a draft in this folder is dead."""
    owner = ProcessId.parse(owner_of(build.name))
    return owner is not None and not may_be_alive(owner, lambda: age_of(build))
