"""Find an artifact by its key, or by the beginning of its key."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, NoReturn

from store import KINDS, Manifest, NewerLayout, Store, StoredArtifact
from store.artifact.manifest import read_manifest
from store.artifact.verify import examine
from store.errors import CorruptArtifact, StoreError
from store.gc.evicted import all_evicted
from store.layout import DELETED, Ref, check_prefix, home
from store.trash.contents import TrashEntry, entries

AGAIN = "the next run that needs it makes it again"


class Match(NamedTuple):
    """An artifact in the store, valid or damaged."""

    artifact: StoredArtifact
    fault: str | None
    """Why it counts as absent, as in `damaged: x/c.0 is missing`; None if it is valid."""


def find_by_prefix(store: Store, key: str, *, evicted: bool = False) -> Match:
    """Return the artifact whose key begins with `key`. Raises StoreError unless there is one.

    `evicted` includes artifacts of which only the manifest was kept: their path does not exist.
    """
    check_prefix(key)
    refs = [(kind, found) for kind in KINDS for found in store.keys(kind, key)]
    if evicted and not refs:
        manifests = {(a.kind, a.key): a for a in all_evicted(store, key)}
        return Match(manifests[only_match(store, key, manifests)], None)
    ref = only_match(store, key, refs)
    found = store.lookup(*ref)
    if not isinstance(found, str):
        return Match(found, None)
    manifest = readable_manifest(store, *ref)
    if manifest is None:
        raise StoreError(f"{ref[0]} {ref[1]} in {store.root} is {found}; {AGAIN}")
    return Match(StoredArtifact(home(store.root_of(ref[0]), *ref), manifest), found)


def only_match(store: Store, key: str, refs: Collection[Ref]) -> Ref:
    """Return the only one of `refs`, whose keys begin with `key`. Raises StoreError otherwise."""
    if len(refs) > 1:
        found = sorted(refs, key=lambda ref: ref[1])[:5]
        names = ", ".join(f"{full} ({kind})" for kind, full in found)
        raise StoreError(
            f"{len(refs)} artifacts have keys that begin with {key!r}: {names}; give more digits"
        )
    if not refs:
        _raise_absent(store, key)
    return next(iter(refs))


def readable_manifest(store: Store, kind: str, key: str) -> Manifest | None:
    """Return the manifest of an artifact that may be damaged; None if it is damaged itself."""
    try:
        found = read_manifest(str(home(store.root_of(kind), kind, key)))
    except CorruptArtifact:
        return None
    return found if found and (found.kind, found.key) == (kind, key) else None


def _raise_absent(store: Store, key: str) -> NoReturn:
    """Raise StoreError, saying whether the artifact can be restored from the trash."""
    faults = [_fault(entry) for entry in entries(store) if entry.key.startswith(key)]
    if None in faults:
        raise StoreError(f"{key} is in the trash; `saevx restore {key}` brings it back")
    if faults:
        raise StoreError(f"{key} is in the trash and {faults[-1]}; {AGAIN}")
    raise StoreError(
        f"no artifact in {store.root} has a key that begins with {key!r}; `saevx ls` lists them"
    )


def _fault(entry: TrashEntry) -> str | None:
    """Return why an entry of the trash cannot be restored; None if it can."""
    if entry.path.name.endswith(DELETED):
        return "half deleted"
    try:
        found = examine(str(entry.path), entry.kind, entry.key)
    except NewerLayout as error:
        return str(error)
    return None if isinstance(found, Manifest) else found
