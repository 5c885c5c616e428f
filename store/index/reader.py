"""Read what a kind holds, and reuse what the catalogue remembers of unchanged folders.

Artifacts lie in prefix folders, `<key[:2]>/`. What is remembered of one is valid while the folder
has the times that it had when it was listed. Artifacts never change in place, so in a changed
folder only new artifacts are read.
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
from store.layout import is_key, is_prefix_folder
from store.locks.liveness import server_time

Scalar = str | int | float | bool | None
Describe = Callable[[Manifest], Mapping[str, Scalar]]
Stamp = tuple[int, int]
"""mtime and ctime of a folder, in ns."""

NEVER: Stamp = (-1, -1)
"""A stamp that no folder has: it must be read again."""

SETTLED_NS = 2_000_000_000
"""A folder that changed less than this ago may change again within one tick of its clock."""

N_THREADS = min(16, 2 * (os.cpu_count() or 1))
"""Manifests that are read at the same time: each costs a round trip on a network file system."""


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An artifact as the catalogue file stores it."""

    key: str
    stamp: Stamp
    type: str
    version: int
    n_bytes: int
    created: str
    columns: int
    """Index into `Contents.columns`: the names of its facts."""
    facts: msgspec.Raw
    """Values of its facts, a list. Decoded only when asked for: most listings need few of them."""


class PrefixFolder(msgspec.Struct, frozen=True, array_like=True, gc=False):
    stamp: Stamp
    records: list[Record]


class Contents(msgspec.Struct, array_like=True):
    """What the catalogue remembers of one kind."""

    columns: list[tuple[str, ...]]
    """Names of facts, shared by artifacts of one type."""
    folders: dict[str, PrefixFolder]


class Reader:
    """Reads one kind, given what the catalogue remembers of it."""

    def __init__(self, folder: Path, kind: str, describe: Describe, old: Contents) -> None:
        self.folder, self.kind, self.describe, self.old = folder, kind, describe, old
        self.n_read = 0
        self.newer: list[NewerLayout] = []
        """One error for each artifact of a newer layout. They are not remembered."""
        self._columns = {names: place for place, names in enumerate(old.columns)}
        self._lock = Lock()

    def read(self, clock: Path) -> Contents:
        """Return what the kind holds now. The file server's time is read in the folder `clock`."""
        found: dict[str, PrefixFolder] = {}
        changed: list[str] = []
        for name in filter(is_prefix_folder, list_folder(self.folder)):
            known = self.old.folders.get(name)
            if known is not None and known.stamp == self._stamp(name):
                found[name] = known
            else:
                changed.append(name)
        if changed:
            # Before anything is listed, so that nothing that changes meanwhile looks settled.
            settled_ns = _time_ns(clock) - SETTLED_NS
            with ThreadPoolExecutor(N_THREADS) as pool:
                read = pool.map(lambda name: self._read_folder(name, settled_ns), changed)
                found |= {name: one for name, one in zip(changed, read, strict=True) if one}
        return Contents(list(self._columns), dict(sorted(found.items())))

    def _read_folder(self, name: str, settled_ns: int) -> PrefixFolder | None:
        stamp = self._stamp(name)
        if stamp is None:
            return None  # it has just been removed, or is no folder
        old = self.old.folders.get(name, PrefixFolder(NEVER, []))
        known = {record.key: record for record in old.records}
        records: list[Record] = []
        for key in list_folder(self.folder / name):
            path = f"{name}/{key}"
            if not is_key(key) or key[:2] != name or (at := self._stamp(path)) is None:
                continue
            record = known.get(key)
            if record is None or record.stamp != at:
                record = self._read_artifact(path, key, _settled(at, settled_ns))
            if record is not None:
                records.append(record)
            else:  # damaged, or of a newer layout: it may be replaced, so the folder is read again
                stamp = NEVER
            self.n_read += 1
        return PrefixFolder(_settled(stamp, settled_ns), records)

    def _read_artifact(self, path: str, key: str, stamp: Stamp) -> Record | None:
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
            columns = self._columns.setdefault(tuple(facts), len(self._columns))
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

    def _stamp(self, name: str) -> Stamp | None:
        path = f"{self.folder}/{name}"
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
    """Return the file server's time, or this host's where nothing may be written."""
    with suppress(StoreError):
        make_folders(folder)
    return int((server_time(folder) or time.time()) * 1e9)
