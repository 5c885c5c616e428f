"""What collections gave up although something needs it: of each the manifest is kept."""

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
    """Keeps what an artifact was, so that tables made from it still tell where they came from.

    False when it is no longer there: another collection was faster.
    """
    data = _read_if_there(path / NODE_FILE)
    if data is None:
        return False
    file = dropped_file(store.root, *ref)
    make_folders(file.parent)
    replace_file(file, data)
    return True


def all_evicted(store: Store, prefix: str = "") -> list[StoredArtifact]:
    """What collections gave up that could be made again, by manifests alone.

    The path of each is where it was, and would be again. What a later saevx gave up is left out.
    """
    found: list[StoredArtifact] = []
    for kind, key in _dropped(store):
        if key.startswith(prefix):
            with suppress(NewerLayout):
                manifest = evicted_manifest(store, kind, key)
                if manifest is not None:
                    found.append(StoredArtifact(home(store.root_of(kind), kind, key), manifest))
    return found


def evicted_manifest(store: Store, kind: str, key: str) -> Manifest | None:
    """The manifest of an artifact that a collection gave up; None where there is none.

    Raises StoreError where it cannot be read, NewerLayout.
    """
    file = dropped_file(store.root, kind, key)
    data = _read_if_there(file)
    if data is None:
        return None
    try:
        return decode_manifest(data, str(file))
    except CorruptArtifact:
        return None


def inputs_of_evicted(store: Store) -> Graph:
    """Return the evicted artifacts, and what each was made from. Raises StoreError."""
    graph: Graph = {}
    for kind, key in _dropped(store):
        manifest = evicted_manifest(store, kind, key)
        graph[kind, key] = inputs_of(manifest) if manifest else ()
    return graph


def _dropped(store: Store) -> Iterator[Ref]:
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
