"""Remove drafts of dead processes, and the parts of published artifacts."""

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
    """Remove the drafts of a key whose processes are dead."""
    try:
        names = os.listdir(builds(root, kind))
    except OSError:
        return
    for build in (builds(root, kind) / name for name in names if name.startswith(f"{key}.")):
        if is_left_behind(build):
            # Moved first: should its owner be alive after all, publishing fails and does not
            # publish a partly deleted folder.
            _remove(root, kind, key, build)


def remove_parts(root: Path, kind: str, key: str) -> None:
    """Remove the finished parts of a published artifact, as far as possible."""
    if os.path.lexists(work(root, kind, key)):
        # Moved first: a partly deleted folder must not be taken for a part.
        _remove(root, kind, key, work(root, kind, key))


def _remove(root: Path, kind: str, key: str, folder: Path) -> None:
    with suppress(StoreError):  # without permission to move it
        target = move_to_trash(root, kind, key, folder, lambda moved: True)
        if target is not None:
            delete(target)


def is_left_behind(build: Path) -> bool:
    """Return whether the process that wrote the draft in this folder is dead."""
    owner = ProcessId.parse(owner_of(build.name))
    return owner is not None and not may_be_alive(owner, lambda: age_of(build))
