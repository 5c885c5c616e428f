"""Evicted artifacts: collected although something needs them, as they can be made again.

The manifest of each is kept, so that tables made from it still tell where they came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from store.artifact.manifest import Manifest, decode_manifest, inputs_of
from store.artifact.reader import StoredArtifact
from store.errors import CorruptArtifact, NewerLayout
from store.gc.records import Graph
from store.io import explained, make_folders, names_in, replace_file
from store.layout import KINDS, NODE_FILE, Ref, dropped, dropped_file, home, is_key
from store.store import Store


def keep_manifest(store: Store, ref: Ref, path: Path) -> bool:
    """Keep the manifest of an artifact that is about to be evicted.

    Return False if the artifact is gone: another collection was faster.
    """
    data = _read_if_there(path / NODE_FILE)
    if data is None:
        return False
    file = dropped_file(store.root, *ref)
    make_folders(file.parent)
    replace_file(file, data)
    return True


def all_evicted(store: Store, prefix: str = "") -> list[StoredArtifact]:
    """The evicted artifacts whose keys start so, by their manifests alone.

    Their paths are where they were. Those of a newer layout are left out.
    """
    found: list[StoredArtifact] = []
    for kind, key in evicted_refs(store):
        if key.startswith(prefix):
            with suppress(NewerLayout):
                manifest = evicted_manifest(store, kind, key)
                if manifest is not None:
                    found.append(StoredArtifact(home(store.root_of(kind), kind, key), manifest))
    return found


def evicted_manifest(store: Store, kind: str, key: str) -> Manifest | None:
    """The manifest of an evicted artifact; None if there is none, or it is damaged.

    Raises StoreError if it cannot be read, NewerLayout.
    """
    file = dropped_file(store.root, kind, key)
    data = _read_if_there(file)
    with suppress(CorruptArtifact):
        return decode_manifest(data, str(file)) if data else None
    return None


def inputs_of_evicted(store: Store) -> Graph:
    """Return the evicted artifacts, and what each was made from. Raises StoreError."""
    manifests = {ref: evicted_manifest(store, *ref) for ref in evicted_refs(store)}
    return {ref: inputs_of(one) if one else () for ref, one in manifests.items()}


def evicted_refs(store: Store) -> Iterator[Ref]:
    for kind in KINDS:
        for name in names_in(dropped(store.root, kind)):
            if is_key(key := name.removesuffix(".json")):
                yield kind, key


def _read_if_there(file: Path) -> bytes | None:
    with explained("read", file):
        try:
            return file.read_bytes()
        except FileNotFoundError:
            return None
