"""The contents of the trash: list, restore, and delete for good what was moved there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from store.artifact.manifest import Manifest
from store.artifact.verify import examine
from store.errors import MissingArtifact, StoreError
from store.io import bytes_in, explained, make_folders, names_in, sync_folder
from store.layout import DELETED, KINDS, home, trash, trashed
from store.store import Store
from store.trash.move import delete


class TrashEntry(NamedTuple):
    """One folder in the trash."""

    kind: str
    key: str
    moved: float
    """When it was moved there; seconds since 1970."""
    path: Path


def entries(store: Store, kind: str | None = None) -> Iterator[TrashEntry]:
    """What is in the trash, oldest first within a kind. Foreign files are left out."""
    for one in KINDS if kind is None else (kind,):
        folder = trash(store.root_of(one), one)
        ours = [(facts, name) for name in names_in(folder) if (facts := trashed(name))]
        for (key, moved), name in sorted(ours, key=lambda entry: entry[0][1]):
            yield TrashEntry(one, key, moved, folder / name)


def restore(store: Store, kind: str, key: str) -> Path:
    """Move an artifact back from the trash: of several, the latest that is whole.

    It counts as new, so collections keep it for the grace period. Raises StoreError if another
    artifact is in its place, MissingArtifact if the trash has no whole one.
    """
    place = home(store.root_of(kind), kind, key)
    why = "nothing of that key is in the trash"
    for entry in reversed(list(entries(store, kind))):
        if entry.key != key or entry.path.name.endswith(DELETED):
            continue
        found = examine(str(entry.path), kind, key)
        if not isinstance(found, Manifest):
            why = f"what the trash has of it is {found}"
            continue
        make_folders(place.parent)
        with explained("restore", place):
            os.utime(entry.path)  # before it is back, or a collection could take it for old
            try:
                os.rename(entry.path, place)
            except OSError as error:
                if place.exists():
                    raise StoreError(f"{place} is there already; nothing was moved") from error
                raise
        sync_folder(place.parent)
        return place
    raise MissingArtifact(kind, key, str(store.root_of(kind)), f"{why}. Run its experiment again")


def empty(which: Iterable[TrashEntry]) -> Iterator[tuple[TrashEntry, int]]:
    """Delete for good. Yield each entry once it is gone, with its bytes."""
    for entry in which:
        n_bytes = bytes_in(entry.path)
        if delete(entry.path):
            yield entry, n_bytes
