"""The one artifact that a command is about, named by its key or the beginning of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:
    from store import Manifest, Store, StoredArtifact
    from store.layout import Ref
    from store.trash.contents import Entry

AGAIN = "the next run that needs it makes it again"


class Chosen(NamedTuple):
    """An artifact that stands in the store, whole or not."""

    artifact: StoredArtifact
    fault: str | None
    """Why it counts as absent, as in `damaged: x/c.0 is missing`; None where it is whole."""


def find_by_prefix(store: Store, key: str, *, evicted_manifest: bool = False) -> Chosen:
    """The artifact whose key begins with `key`; raises StoreError for none, or several.

    With `evicted_manifest`, also one of which only the manifest was kept; its path is missing then.
    """
    from saevx.errors import StoreError
    from store import KINDS
    from store.layout import check_prefix

    check_prefix(key)
    ref = only_match(key, [(kind, found) for kind in KINDS for found in store.keys(kind, key)])
    if ref is None:
        if evicted_manifest:
            from store.gc.evicted import all_evicted

            found = {(a.kind, a.key): a for a in all_evicted(store, key)}
            ref = only_match(key, found)
            if ref is not None:
                return Chosen(found[ref], None)
        raise_absent(store, key)
    looked = store.look(*ref)
    if not isinstance(looked, str):
        return Chosen(looked, None)
    manifest = manifest_of_damaged(store, *ref)
    if manifest is None:
        raise StoreError(f"{ref[0]} {ref[1]} in {store.root} is {looked}; {AGAIN}")
    from store import StoredArtifact
    from store.layout import home

    return Chosen(StoredArtifact(home(store.root_of(ref[0]), *ref), manifest), looked)


def only_match(key: str, found: Iterable[Ref]) -> Ref | None:
    """The only one of them; None where there is none. Raises StoreError for several."""
    from saevx.errors import StoreError

    refs = sorted(found, key=lambda ref: ref[1])
    if len(refs) > 1:
        names = ", ".join(f"{k} ({kind})" for kind, k in refs[:5])
        raise StoreError(
            f"{len(refs)} artifacts have keys that begin with {key!r}: {names}; give more digits"
        )
    return refs[0] if refs else None


def raise_absent(store: Store, key: str) -> NoReturn:
    """Says that there is no such artifact, and whether it can be had from the trash."""
    from saevx.errors import StoreError
    from store.trash.contents import entries

    faults = [_fault(entry) for entry in entries(store) if entry.key.startswith(key)]
    if None in faults:
        raise StoreError(f"{key} is in the trash; `saevx restore {key}` brings it back")
    if faults:
        raise StoreError(f"{key} is in the trash and {faults[-1]}; {AGAIN}")
    raise StoreError(
        f"no artifact in {store.root} has a key that begins with {key!r}; `saevx ls` lists them"
    )


def _fault(entry: Entry) -> str | None:
    """Why something in the trash cannot be brought back; None where it can."""
    from store import Manifest, NewerLayout
    from store.artifact.manifest import examine
    from store.layout import DELETED

    if entry.path.name.endswith(DELETED):
        return "half deleted"
    try:
        found = examine(str(entry.path), entry.kind, entry.key)
    except NewerLayout as error:
        return str(error)
    return None if isinstance(found, Manifest) else found


def manifest_of_damaged(store: Store, kind: str, key: str) -> Manifest | None:
    """The manifest of an artifact that is not whole; None where that is not whole either."""
    from store import CorruptArtifact
    from store.artifact.manifest import read_manifest
    from store.layout import home

    try:
        found = read_manifest(str(home(store.root_of(kind), kind, key)))
    except CorruptArtifact:
        return None
    return found if found and (found.kind, found.key) == (kind, key) else None
