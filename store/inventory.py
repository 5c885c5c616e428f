"""The inventory of a store: all that stands in it, is being made, or was given up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.artifact import Artifact
from store.errors import CorruptArtifact, NewerLayout, StoreError
from store.files import explained, make_folders
from store.holder import Holder, server_time
from store.layout import KINDS, builds, collectors, dropped, home, is_key, owner_of
from store.manifest import Manifest, decode_manifest, examine
from store.owner import Life, Owner
from store.records import LOST_S, Graph, Ref, names_in
from store.store import Store
from store.trash import Identity, bytes_in, identity_of

SETTLED_S = 2.0
"""A folder that changed less than this ago may change again within one tick of its clock."""


@dataclass(frozen=True, slots=True)
class Standing:
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
    owner: str
    life: Life


class Inventory:
    """What is in a store, brought up to date by `refresh`, which looks only at what changed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.standing: dict[Ref, Standing] = {}
        self.builds: list[Build] = []
        self.leases: list[Holder] = []
        self.dropped: Graph = {}
        """What was given up although something needs it, and what it was made from."""
        self._shelves: dict[Path, int] = {}
        """Folder of artifacts -> its time when we listed it; -1 if it had not settled."""
        self._names: dict[Path, set[str]] = {}
        self._clock: dict[Path, float] = {}

    def refresh(self, progress: Callable[[int], None] | None = None) -> bool:
        """Says whether an artifact came, went or was replaced. `progress` hears how many were read.

        Raises StoreError when an artifact cannot be read, and NewerLayout.
        """
        # Before anything is listed, so that nothing that comes meanwhile looks settled, or old.
        self._clock = {root: _now(root) for root in map(self.store.root_of, KINDS)}
        self.look_at_work()
        self.dropped = {(a.kind, a.key): inputs_of(a.manifest) for a in all_given_up(self.store)}
        return self._look(progress)

    def look_at_work(self) -> None:
        """Brings up to date what is being made."""
        self.builds = [build for kind in KINDS for build in _builds(self.store, kind)]
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
                except NewerLayout:
                    raise
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
                if len(name) != 2 or (mtime := _mtime_ns(shelf)) is None:
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
        self.standing[ref] = _read(ref, path, identity)
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


def _read(ref: Ref, path: Path, identity: Identity) -> Standing:
    found = examine(str(path), *ref)
    if not isinstance(found, Manifest):
        return Standing(ref, path, identity, bytes_in(path), fault=found)
    n_bytes = sum(record.size for record in found.files.values())
    return Standing(ref, path, identity, n_bytes, found.type, found.version, inputs_of(found))


def inputs_of(manifest: Manifest) -> tuple[Ref, ...]:
    """What an artifact was made from: its parents, and the artifacts that its spec tells of.

    The spec tells of all, however far down; so an artifact whose parent is gone still keeps what
    that parent was made from.
    """
    found = {(parent.kind, parent.key): None for parent in manifest.parents.values()}
    waiting: list[Any] = list(manifest.spec.get("fields", {}).values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            kind, key = value.get("kind"), value.get("key")
            if kind in KINDS and isinstance(key, str) and is_key(key):
                found[kind, key] = None
            waiting.extend(value.values())
    return tuple(found)


def below(store: Store, ref: Ref) -> list[Ref]:
    """An artifact and all that it was made from, as far as the store can tell, itself first."""
    found: dict[Ref, None] = {}
    waiting = [ref]
    while waiting:
        kind, key = waiting.pop()
        if (kind, key) not in found:
            found[kind, key] = None
            artifact = store.find(kind, key)
            manifest = artifact.manifest if artifact else given_up(store, kind, key)
            waiting += inputs_of(manifest) if manifest else ()
    return list(found)


def _builds(store: Store, kind: str) -> Iterator[Build]:
    folder = builds(store.root_of(kind), kind)
    for name in names_in(folder):
        key, owner = name.partition(".")[0], owner_of(name)
        if not is_key(key):
            continue
        try:
            life = Owner.parse(owner).life()
        except ValueError:
            continue  # not named by us
        if life is Life.UNKNOWN and _is_lost(folder / name):
            life = Life.DEAD
        yield Build((kind, key), folder / name, owner, life)


def _is_lost(build: Path) -> bool:
    """Whether nothing was written to a build for so long that its process cannot be alive."""
    since = time.time() - LOST_S
    for folder, _, names in os.walk(build):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            with suppress(OSError):
                if os.lstat(path).st_mtime > since:
                    return False
    return True


def all_given_up(store: Store, prefix: str = "") -> list[Artifact]:
    """What collections gave up that could be made again, by manifests alone.

    The path of each is where it was, and would be again.
    """
    found: list[Artifact] = []
    for kind in KINDS:
        for name in names_in(dropped(store.root, kind)):
            key = name.removesuffix(".json")
            if is_key(key) and key.startswith(prefix):
                manifest = given_up(store, kind, key)
                if manifest is not None:
                    found.append(Artifact(home(store.root_of(kind), kind, key), manifest))
    return found


def given_up(store: Store, kind: str, key: str) -> Manifest | None:
    """The manifest of an artifact that a collection gave up; None where there is none."""
    file = dropped(store.root, kind) / f"{key}.json"
    with explained("read", file):
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            return None
    try:
        return decode_manifest(data, str(file))
    except CorruptArtifact:
        return None


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
