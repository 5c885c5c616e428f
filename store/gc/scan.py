"""The inventory of a store: all that stands in it, is being made, or was given up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from store.artifact.manifest import ABSENT, Manifest, examine, inputs_of
from store.artifact.staging import is_left_behind
from store.errors import StoreError
from store.gc.evicted import evicted_manifest, inputs_of_evicted
from store.gc.records import Graph
from store.io import bytes_in, explained, make_folders, names_in
from store.layout import KINDS, Ref, builds, collectors, is_key, is_prefix_folder, owner_of, works
from store.locks.lease import LeaseOwner
from store.locks.liveness import server_time
from store.locks.process import ProcessId
from store.store import Store
from store.trash.move import Identity, identity_of

SETTLED_S = 2.0
"""A folder that changed less than this ago may change again within one tick of its clock."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """What stands in the place of an artifact."""

    ref: Ref
    path: Path
    identity: Identity
    n_bytes: int = 0
    type: str = ""
    version: int = 0
    inputs: tuple[Ref, ...] = ()
    """What it was made from, as its manifest and its spec say."""
    fault: str | None = None
    """Why it is no whole artifact."""

    @property
    def changed(self) -> float:
        """When it was published, by the file server's clock; seconds since 1970."""
        return self.identity[2] / 1e9


@dataclass(frozen=True, slots=True)
class Build:
    """A folder in which an artifact is, or was, being made."""

    ref: Ref
    path: Path
    owner: ProcessId
    may_be_alive: bool


@dataclass(frozen=True, slots=True)
class Parts:
    """The finished parts of an artifact that is, or was, being made."""

    ref: Ref
    path: Path
    identity: Identity


class StoreScan:
    """What is in a store, brought up to date by `refresh`, which looks only at what changed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.standing: dict[Ref, StoredEntry] = {}
        self.builds: list[Build] = []
        self.parts: list[Parts] = []
        self.leases: list[LeaseOwner] = []
        self.dropped: Graph = {}
        """What was given up although something needs it, and what it was made from."""
        self._shelves: dict[Path, int] = {}
        """Folder of artifacts -> its time when we listed it; -1 if it had not settled."""
        self._names: dict[Path, set[str]] = {}
        self._clock: dict[Path, float] = {}

    def refresh(self, progress: Callable[[int], None] | None = None) -> bool:
        """Says whether an artifact came, went or was replaced. `progress` hears how many were read.

        Raises StoreError when an artifact cannot be read.
        """
        # Before anything is listed, so that nothing that comes meanwhile looks settled, or old.
        self._clock = {root: _now(root) for root in map(self.store.root_of, KINDS)}
        self.look_at_work()
        self.dropped = inputs_of_evicted(self.store)
        return self._look(progress)

    def look_at_work(self) -> None:
        """Brings up to date what is being made."""
        self.builds = [build for kind in KINDS for build in builds_of(self.store, kind)]
        self.parts = [parts for kind in KINDS for parts in parts_of(self.store, kind)]
        self.leases = [
            holder
            for kind in KINDS
            if (self.store.root_of(kind) / kind).is_dir()
            for holder in self.store.leases(kind)
        ]

    def published_since(self, seconds: float) -> list[Ref]:
        """What was published less than so many seconds ago, by the file servers' clocks."""
        begin = {kind: self._clock[self.store.root_of(kind)] - seconds for kind in KINDS}
        return [ref for ref, one in self.standing.items() if one.changed > begin[ref[0]]]

    def parts_since(self, seconds: float) -> set[Ref]:
        """Of what parts were finished less than so many seconds ago."""
        begin = {kind: self._clock[self.store.root_of(kind)] - seconds for kind in KINDS}
        return {one.ref for one in self.parts if one.identity[2] / 1e9 > begin[one.ref[0]]}

    def _look(self, progress: Callable[[int], None] | None) -> bool:
        changed, n_read = False, 0
        unreadable: list[str] = []
        for kind, shelf in self._changed_shelves():
            inodes = _inodes(shelf)
            for key in self._names.get(shelf, set()) - inodes.keys():
                changed |= self.standing.pop((kind, key), None) is not None
            self._names[shelf] = set(inodes)
            for key, inode in inodes.items():
                known = self.standing.get((kind, key))
                if known and known.identity[1] == inode:
                    continue
                try:
                    changed |= self._look_at((kind, key), shelf / key)
                except StoreError as error:
                    unreadable.append(str(error))
                n_read += 1
                if progress:
                    progress(n_read)
        if unreadable:
            more = f"; and {len(unreadable) - 3} more" if len(unreadable) > 3 else ""
            raise StoreError(
                f"{len(unreadable)} artifacts cannot be read, so it is not known what they need: "
                f"{'; '.join(unreadable[:3])}{more}"
            )
        return changed

    def _changed_shelves(self) -> Iterator[tuple[str, Path]]:
        there: set[Path] = set()
        for kind in KINDS:
            root = self.store.root_of(kind)
            for name in names_in(root / kind):
                shelf = root / kind / name
                if not is_prefix_folder(name) or (mtime := _mtime_ns(shelf)) is None:
                    continue
                there.add(shelf)
                if self._shelves.get(shelf) != mtime:
                    settled = mtime < (self._clock[root] - SETTLED_S) * 1e9
                    self._shelves[shelf] = mtime if settled else -1
                    yield kind, shelf
        for shelf in self._shelves.keys() - there:  # someone removed it
            del self._shelves[shelf]
            yield shelf.parent.name, shelf

    def _look_at(self, ref: Ref, path: Path) -> bool:
        identity = identity_of(path)
        if identity is None:
            return self.standing.pop(ref, None) is not None
        found = _read(ref, path, identity)
        if found.fault == ABSENT:
            # Another process has just moved it, and may put it back as the same inode: the folder
            # it lay in has not settled, so the next look reads it anew.
            return self.standing.pop(ref, None) is not None
        self.standing[ref] = found
        return True


def _inodes(shelf: Path) -> dict[str, int]:
    """The keys in a folder of artifacts, in order, and the inodes of what stands there."""
    with explained("list", shelf):
        try:
            with os.scandir(shelf) as items:
                found = {item.name: item.inode() for item in items if is_key(item.name)}
        except FileNotFoundError:
            return {}
    return {key: found[key] for key in sorted(found) if key[:2] == shelf.name}


def _read(ref: Ref, path: Path, identity: Identity) -> StoredEntry:
    found = examine(str(path), *ref)
    if not isinstance(found, Manifest):
        return StoredEntry(ref, path, identity, bytes_in(path), fault=found)
    return StoredEntry(
        ref, path, identity, found.n_bytes, found.type, found.version, inputs_of(found)
    )


def below(store: Store, ref: Ref) -> list[Ref]:
    """An artifact and all that it was made from, as far as the store can tell, itself first."""
    found: dict[Ref, None] = {}
    waiting = [ref]
    while waiting:
        kind, key = waiting.pop()
        if (kind, key) not in found:
            found[kind, key] = None
            artifact = store.find(kind, key)
            manifest = artifact.manifest if artifact else evicted_manifest(store, kind, key)
            waiting += inputs_of(manifest) if manifest else ()
    return list(found)


def builds_of(store: Store, kind: str) -> Iterator[Build]:
    """What is, or was, being made. Raises StoreError where that cannot be looked at."""
    folder = builds(store.root_of(kind), kind)
    for name in names_in(folder):
        key, owner, path = name.partition(".")[0], ProcessId.parse(owner_of(name)), folder / name
        if is_key(key) and owner:  # or not named by us
            yield Build((kind, key), path, owner, not is_left_behind(path))


def parts_of(store: Store, kind: str) -> Iterator[Parts]:
    """Of what parts are finished. Raises StoreError where that cannot be looked at."""
    folder = works(store.root_of(kind), kind)
    for key in names_in(folder):
        if is_key(key) and (identity := identity_of(folder / key)):
            yield Parts((kind, key), folder / key, identity)


def _mtime_ns(folder: Path) -> int | None:
    with explained("look at", folder):
        try:
            return os.stat(folder).st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return None


def _now(root: Path) -> float:
    """The time of the server that a root lies on; this host's where it cannot be had."""
    if root.is_dir():
        with suppress(StoreError):
            make_folders(collectors(root))
            return server_time(collectors(root)) or time.time()
    return time.time()
