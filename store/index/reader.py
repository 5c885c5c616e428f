"""Reading the shelves of a store: folders `<key[:2]>` of artifacts, and what is remembered of them.

What is remembered of a shelf counts only while the shelf has the times that it had when it was
listed. Artifacts are never changed in place, so on a changed shelf only new folders are read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock

import msgspec

from store.artifact.manifest import Manifest, read_manifest
from store.errors import CorruptArtifact, NewerLayout, StoreError
from store.io import explained, list_folder, make_folders
from store.layout import is_key, is_shelf
from store.locks.liveness import server_time

Scalar = str | int | float | bool | None
Describe = Callable[[Manifest], Mapping[str, Scalar]]
Stamp = tuple[int, int]
"""Times of a folder, in ns: of its last change, and of the last change to its inode."""

NEVER: Stamp = (-1, -1)
"""The stamp of what must be looked at again."""

SETTLED_NS = 2_000_000_000
"""A folder that changed less than this ago may change again within one tick of its clock."""

N_THREADS = min(16, 2 * (os.cpu_count() or 1))
"""Manifests that are read at a time: a network file system takes its time for each."""


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An artifact, as the file has it."""

    key: str
    stamp: Stamp
    type: str
    version: int
    n_bytes: int
    created: str
    columns: int
    """Place of the names of its facts."""
    facts: msgspec.Raw
    """A list of their values. Decoded when asked for: most listings need few of them."""


class Shelf(msgspec.Struct, frozen=True, array_like=True, gc=False):
    stamp: Stamp
    records: list[Record]


class Contents(msgspec.Struct, array_like=True):
    """What is remembered of one kind."""

    columns: list[tuple[str, ...]]
    """Names of facts. Artifacts of one type share them."""
    shelves: dict[str, Shelf]


class Reader:
    """Looks at one kind, and at what changed in it since a catalogue was written."""

    def __init__(self, folder: Path, kind: str, describe: Describe, old: Contents) -> None:
        self.folder, self.kind, self.describe, self.old = folder, kind, describe, old
        self.columns = {names: place for place, names in enumerate(old.columns)}
        self.n_looked_at = 0
        self.newer: list[NewerLayout] = []
        """One error for each artifact of a newer layout. They are not remembered."""
        self._lock = Lock()

    def shelves(self, clock: Path) -> dict[str, Shelf]:
        """What is on each shelf. `clock` is a folder to read the file server's time in."""
        found: dict[str, Shelf] = {}
        changed: list[str] = []
        for name in list_folder(self.folder):
            shelf = self.old.shelves.get(name)
            if shelf is not None and shelf.stamp == self._stamp(name):
                found[name] = shelf
            elif is_shelf(name):
                changed.append(name)
        if changed:
            # Before anything is listed, so that nothing that comes meanwhile looks settled.
            settled_ns = _time_ns(clock) - SETTLED_NS
            with ThreadPoolExecutor(N_THREADS) as pool:
                read = pool.map(lambda name: self._read_shelf(name, settled_ns), changed)
                found |= {name: shelf for name, shelf in zip(changed, read, strict=True) if shelf}
        return found

    def _read_shelf(self, name: str, settled_ns: int) -> Shelf | None:
        stamp = self._stamp(name)
        if stamp is None:
            return None  # gone meanwhile, or no folder
        old = self.old.shelves.get(name)
        known = {record.key: record for record in old.records} if old else {}
        records: list[Record] = []
        whole = True
        for key, here in self._folders(name):
            record = known.get(key)
            if record is None or record.stamp != here:
                record = self._read(f"{name}/{key}", key, _settled(here, settled_ns))
            if record is None:
                whole = False  # damaged: it may be made again; or of a newer layout
            else:
                records.append(record)
            self.n_looked_at += 1
        return Shelf(_settled(stamp, settled_ns) if whole else NEVER, records)

    def _folders(self, name: str) -> list[tuple[str, Stamp]]:
        """Folders of artifacts on a shelf, by key; those that go meanwhile are left out."""
        found: list[tuple[str, Stamp]] = []
        path = f"{self.folder}/{name}"
        with explained("list", path):
            try:
                items = list(os.scandir(path))
            except (FileNotFoundError, NotADirectoryError):
                return []
            for item in items:
                if is_key(item.name) and item.name.startswith(name):
                    with suppress(FileNotFoundError):
                        found.append((item.name, _stamp_of(item.stat())))
        return sorted(found)

    def _read(self, path: str, key: str, stamp: Stamp) -> Record | None:
        try:
            manifest = read_manifest(f"{self.folder}/{path}")
        except CorruptArtifact:
            return None
        except NewerLayout as error:
            self.newer.append(error)
            return None
        if manifest is None or (manifest.kind, manifest.key) != (self.kind, key):
            return None
        facts = self.describe(manifest)
        with self._lock:
            columns = self.columns.setdefault(tuple(facts), len(self.columns))
        return Record(
            key=key,
            stamp=stamp,
            type=manifest.type,
            version=manifest.version,
            n_bytes=manifest.n_bytes,
            created=manifest.created,
            columns=columns,
            facts=msgspec.Raw(msgspec.msgpack.encode(list(facts.values()))),
        )

    def _stamp(self, path: str) -> Stamp | None:
        path = f"{self.folder}/{path}"
        with explained("look at", path):
            try:
                return _stamp_of(os.stat(path))
            except (FileNotFoundError, NotADirectoryError):
                return None


def _stamp_of(stat: os.stat_result) -> Stamp:
    return stat.st_mtime_ns, stat.st_ctime_ns


def _settled(stamp: Stamp, settled_ns: int) -> Stamp:
    return stamp if max(stamp) < settled_ns else NEVER


def _time_ns(folder: Path) -> int:
    """The file server's time; this host's where nothing may be written, and so nothing is kept."""
    with suppress(StoreError):
        make_folders(folder)
    return int((server_time(folder) or time.time()) * 1e9)
