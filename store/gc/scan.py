"""A scan of a store: its artifacts, builds, parts, leases and evicted artifacts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from store.artifact.manifest import Manifest, inputs_of
from store.artifact.staging import is_left_behind
from store.artifact.verify import ABSENT, examine
from store.errors import StoreError
from store.gc.evicted import evicted_manifest, inputs_of_evicted
from store.gc.records import Graph, roots_of
from store.io import bytes_in, explained, make_folders, names_in
from store.layout import KINDS, Ref, builds, collectors, is_key, is_prefix_folder, owner_of, works
from store.locks.lease import LeaseOwner
from store.locks.liveness import server_time
from store.locks.process import ProcessId
from store.store import Store
from store.trash.move import Identity, identity_of

SETTLED_S = 2.0
"""A folder that changed less than this ago may change again within one tick of its clock."""

UNSETTLED = -1
"""The mtime to remember for a folder that must be listed again."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """The folder of an artifact, or of its finished parts, as it was found."""

    ref: Ref
    path: Path
    identity: Identity
    n_bytes: int = 0
    type: str = ""
    version: int = 0
    inputs: tuple[Ref, ...] = ()
    """What it was made from, by its manifest and its spec."""
    fault: str | None = None
    """Why it is not a whole artifact."""

    @property
    def changed(self) -> float:
        """When it was published, or its last part was; seconds since 1970, server time."""
        # As `st_mtime` is computed, so that equal times compare as equal.
        seconds, nanoseconds = divmod(self.identity[2], 10**9)
        return seconds + 1e-9 * nanoseconds


@dataclass(frozen=True, slots=True)
class Build:
    """A folder in which an artifact is, or was, being made."""

    ref: Ref
    path: Path
    owner: ProcessId
    may_be_alive: bool


class StoreScan:
    """What is in a store. `refresh` reads only what has changed since the last scan."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.artifacts: dict[Ref, StoredEntry] = {}
        self.builds: list[Build] = []
        self.parts: list[StoredEntry] = []
        self.leases: list[LeaseOwner] = []
        self.evicted: Graph = {}
        """Evicted artifacts, and what each was made from."""
        self._mtimes: dict[Path, int] = {}
        """Mtimes in ns of the folders of artifacts when they were listed."""
        self._keys: dict[Path, set[str]] = {}
        """Keys of the artifacts in each folder."""
        self._clock: dict[Path, float] = {}
        """Server time of each root when this scan began."""

    def refresh(self, progress: Callable[[int], None] | None = None) -> bool:
        """Scan again. Return whether artifacts were added, removed or replaced.

        `progress` is called with the number of artifacts read. Raises StoreError when one cannot
        be read.
        """
        # Read the clock before anything is listed: what is published during the scan must seem
        # neither settled nor old.
        self._clock = {root: _server_time(root) for root in roots_of(self.store)}
        self.builds = [build for kind in KINDS for build in builds_of(self.store, kind)]
        self.parts = [parts for kind in KINDS for parts in parts_of(self.store, kind)]
        kinds = [kind for kind in KINDS if (self.store.root_of(kind) / kind).is_dir()]
        self.leases = [owner for kind in kinds for owner in self.store.leases(kind)]
        self.evicted = inputs_of_evicted(self.store)
        return self._scan_artifacts(progress)

    def younger_than(self, seconds: float, entries: Iterable[StoredEntry]) -> set[Ref]:
        """Those of `entries` that changed less than so many seconds before this scan."""
        limits = {kind: self._clock[self.store.root_of(kind)] - seconds for kind in KINDS}
        return {one.ref for one in entries if one.changed > limits[one.ref[0]]}

    def _scan_artifacts(self, progress: Callable[[int], None] | None) -> bool:
        changed, n_read = False, 0
        errors: list[str] = []
        for kind, folder in self._changed_folders():
            inodes = _inodes(folder)
            for key in self._keys.get(folder, set()) - inodes.keys():
                changed |= self.artifacts.pop((kind, key), None) is not None
            self._keys[folder] = set(inodes)
            for key, inode in inodes.items():
                known = self.artifacts.get((kind, key))
                if known and known.identity[1] == inode:
                    continue
                try:
                    changed |= self._read((kind, key), folder / key)
                except StoreError as error:
                    errors.append(str(error))
                    self._mtimes[folder] = UNSETTLED
                n_read += 1
                if progress:
                    progress(n_read)
        if errors:
            more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""
            raise StoreError(
                f"{len(errors)} artifacts cannot be read, so what they need is not known: "
                f"{'; '.join(errors[:3])}{more}"
            )
        return changed

    def _changed_folders(self) -> Iterator[tuple[str, Path]]:
        """The folders `<kind>/<key[:2]>` that may hold other artifacts than at the last scan."""
        found: set[Path] = set()
        for kind in KINDS:
            root = self.store.root_of(kind)
            for folder in (
                root / kind / name for name in names_in(root / kind) if is_prefix_folder(name)
            ):
                if (mtime := _mtime_ns(folder)) is None:
                    continue
                found.add(folder)
                if self._mtimes.get(folder) != mtime:
                    settled = mtime < (self._clock[root] - SETTLED_S) * 1e9
                    self._mtimes[folder] = mtime if settled else UNSETTLED
                    yield kind, folder
        for folder in self._mtimes.keys() - found:  # it was removed
            del self._mtimes[folder]
            yield folder.parent.name, folder

    def _read(self, ref: Ref, path: Path) -> bool:
        """Read one artifact. Return whether that changed what is known."""
        identity = identity_of(path)
        found = ABSENT if identity is None else examine(str(path), *ref)
        if identity is None or found == ABSENT:
            # Another process has just moved it, and may put it back with the same inode. Its
            # folder has not settled then, so the next scan reads it again.
            return self.artifacts.pop(ref, None) is not None
        if isinstance(found, Manifest):
            one = StoredEntry(
                ref, path, identity, found.n_bytes, found.type, found.version, inputs_of(found)
            )
        else:
            one = StoredEntry(ref, path, identity, bytes_in(path), fault=found)
        self.artifacts[ref] = one
        return True


def _inodes(folder: Path) -> dict[str, int]:
    """The keys of the artifacts in a folder, sorted, and the inodes of theirs."""
    with explained("list", folder):
        try:
            with os.scandir(folder) as items:
                found = {item.name: item.inode() for item in items if is_key(item.name)}
        except FileNotFoundError:
            return {}
    return {key: found[key] for key in sorted(found) if key[:2] == folder.name}


def below(store: Store, ref: Ref) -> list[Ref]:
    """An artifact and all that it was made from, as far as the store knows, itself first."""
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
    """The builds of a kind. Raises StoreError where they cannot be listed."""
    folder = builds(store.root_of(kind), kind)
    for name in names_in(folder):
        key, owner, path = name.partition(".")[0], ProcessId.parse(owner_of(name)), folder / name
        if is_key(key) and owner:  # else it is not ours
            yield Build((kind, key), path, owner, not is_left_behind(path))


def parts_of(store: Store, kind: str) -> Iterator[StoredEntry]:
    """The folders of finished parts of a kind. Raises StoreError where they cannot be listed."""
    folder = works(store.root_of(kind), kind)
    for key in names_in(folder):
        if is_key(key) and (identity := identity_of(folder / key)):
            yield StoredEntry((kind, key), folder / key, identity)


def _mtime_ns(folder: Path) -> int | None:
    with explained("look at", folder):
        try:
            return os.stat(folder).st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return None


def _server_time(root: Path) -> float:
    """The time of the server that a root lies on; the time of this host if that is not known."""
    if root.is_dir():
        with suppress(StoreError):
            make_folders(collectors(root))
            return server_time(collectors(root)) or time.time()
    return time.time()
