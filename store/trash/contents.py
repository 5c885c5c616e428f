"""The trash: what was moved out of the way by a rename, and may be brought back for a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from store.artifact.manifest import Manifest, examine
from store.errors import MissingArtifact, StoreError
from store.io import bytes_in, explained, make_folders, names_in, sync_folder
from store.layout import DELETED, KINDS, home, trash, trashed
from store.store import Store
from store.trash.move import delete


class Entry(NamedTuple):
    """One folder in the trash."""

    kind: str
    key: str
    moved: float
    """Seconds since 1970."""
    path: Path


def entries(store: Store, kind: str | None = None) -> Iterator[Entry]:
    """What lies in the trash, oldest first within a kind; names that are not ours are left out."""
    for one in KINDS if kind is None else (kind,):
        folder = trash(store.root_of(one), one)
        found = [(name, trashed(name)) for name in names_in(folder)]
        ours = [Entry(one, facts[0], facts[1], folder / name) for name, facts in found if facts]
        yield from sorted(ours, key=lambda entry: entry.moved)


def restore(store: Store, kind: str, key: str) -> Path:
    """Brings an artifact back from the trash: of several, the latest that is whole.

    It counts as new, so that a collection leaves it alone for the grace time. Raises StoreError
    when something stands in its place, and MissingArtifact when the trash has no whole one.
    """
    place = home(store.root_of(kind), kind, key)
    why = "nothing of that key is in the trash"
    ours = [e for e in entries(store, kind) if e.key == key and not e.path.name.endswith(DELETED)]
    for entry in reversed(ours):
        found = examine(str(entry.path), kind, key)
        if not isinstance(found, Manifest):
            why = f"what the trash has of it is {found}"
            continue
        make_folders(place.parent)
        with explained("restore", place):
            os.utime(entry.path)  # before it is back: a collection must not take it for old
            try:
                os.rename(entry.path, place)
            except OSError as error:
                if place.exists():
                    raise StoreError(f"{place} is there already; nothing was moved") from error
                raise
        sync_folder(place.parent)
        return place
    raise MissingArtifact(kind, key, str(store.root_of(kind)), f"{why}. Run its experiment again")


def empty(which: Iterable[Entry]) -> Iterator[tuple[Entry, int]]:
    """Deletes for good. Yields each entry once it is gone, and its bytes."""
    for entry in which:
        n_bytes = bytes_in(entry.path)
        if delete(entry.path):
            yield entry, n_bytes
