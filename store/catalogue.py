"""The catalogue: what a store holds, remembered so that listing it need not read every manifest.

One file for each kind, below `.catalogue`. It is disposable: it may be deleted at any time, and one
that is damaged, of another form or of another folder is ignored and written anew. What it tells of
a shelf (a folder `<key[:2]>`) counts only while the shelf has the times that it had when it was
listed. Artifacts are never changed in place, so within a changed shelf only new folders are read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import msgspec

from store.errors import CorruptArtifact, StoreError
from store.files import digest, explained, make_folders
from store.holder import server_time
from store.layout import KINDS, catalogue_file, check_kind, is_key
from store.manifest import Manifest, read_manifest
from store.store import Store

Scalar = str | int | float | bool | None
Describe = Callable[[Manifest], Mapping[str, Scalar]]
Stamp = tuple[int, int]
"""Times of a folder, in ns: of its last change, and of the last change to its inode."""

NEVER: Stamp = (-1, -1)
"""The stamp of what must be looked at again."""

SETTLED_NS = 2_000_000_000
"""A folder that changed less than this ago may change again within one tick of its clock."""

REWRITE_SHARE = 1 / 16
"""A catalogue is written anew when more than this share of its entries had to be looked at."""

N_THREADS = min(16, 2 * (os.cpu_count() or 1))
"""Manifests that are read at a time: a network file system takes its time for each."""

_MAGIC = b"saevx catalogue 1\n"
_HEAD = len(_MAGIC) + 32


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


class Entry(NamedTuple):
    """What the catalogue tells of an artifact."""

    kind: str
    key: str
    type: str
    version: int
    n_bytes: int
    """Size of its files, the manifest's own aside."""
    created: str
    columns: tuple[str, ...]
    """Names of its facts."""
    raw: msgspec.Raw

    def values(self) -> list[Scalar]:
        """Its facts, in the order of `columns`."""
        return _decode_facts(self.raw)

    def facts(self) -> dict[str, Scalar]:
        return dict(zip(self.columns, self.values(), strict=True))


_decode_facts = msgspec.msgpack.Decoder(list[Scalar]).decode
_decode = msgspec.msgpack.Decoder(Contents).decode


class Catalogue:
    """Lists a store by what `describe` says of each manifest.

    `form` names what `describe` does, as a file name: change it together with that.
    """

    def __init__(self, store: Store, describe: Describe, form: str) -> None:
        self.store = store
        self.describe = describe
        self.form = form

    def entries(self, kind: str | None = None) -> list[Entry]:
        """Every artifact that has a manifest, by kind and key. Sizes of files are not looked at.

        Raises StoreError where the store cannot be read, NewerLayout.
        """
        return [
            Entry(one, r.key, r.type, r.version, r.n_bytes, r.created, names[r.columns], r.facts)
            for one in (KINDS if kind is None else (check_kind(kind),))
            for names, shelf in self._shelves(one)
            for r in shelf.records
        ]

    def _shelves(self, kind: str) -> Iterator[tuple[list[tuple[str, ...]], Shelf]]:
        file = catalogue_file(self.store.root_of(kind), kind, self.form)
        old = _load(file)
        reader = _Reader(self.store.root_of(kind) / kind, kind, self.describe, old)
        shelves = reader.shelves(file.parent)
        contents = Contents(list(reader.columns), shelves)
        n_records = sum(len(shelf.records) for shelf in shelves.values())
        if shelves != old.shelves and reader.n_looked_at >= n_records * REWRITE_SHARE:
            _save(file, contents)
        for name in sorted(shelves):
            yield contents.columns, shelves[name]


class _Reader:
    """Looks at one kind, and at what changed in it since a catalogue was written."""

    def __init__(self, folder: Path, kind: str, describe: Describe, old: Contents) -> None:
        self.folder, self.kind, self.describe, self.old = folder, kind, describe, old
        self.columns = {names: place for place, names in enumerate(old.columns)}
        self.n_looked_at = 0
        self._lock = Lock()

    def shelves(self, clock: Path) -> dict[str, Shelf]:
        """What is on each shelf. `clock` is a folder to read the file server's time in."""
        found: dict[str, Shelf] = {}
        changed: list[str] = []
        for name in _names(self.folder):
            shelf = self.old.shelves.get(name)
            if shelf is not None and shelf.stamp == self._stamp(name):
                found[name] = shelf
            elif len(name) == 2:
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
                whole = False  # damaged: it may be made again
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
            n_bytes=sum(record.size for record in manifest.files.values()),
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


def _names(folder: Path) -> list[str]:
    with explained("list", folder):
        try:
            return sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []


def _load(file: Path) -> Contents:
    """What is remembered; nothing where that cannot be read."""
    try:
        data = memoryview(file.read_bytes())
        magic, sum_, body = data[: len(_MAGIC)], data[len(_MAGIC) : _HEAD], data[_HEAD:]
        if magic == _MAGIC and sum_ == digest(body).encode():
            return _decode(body)
    except (OSError, msgspec.DecodeError):
        pass
    return Contents([], {})


def _save(file: Path, contents: Contents) -> None:
    """Replaces the catalogue at once. It is not flushed: one that is torn is no catalogue."""
    body = msgspec.msgpack.encode(contents)
    scratch = file.with_name(f"{file.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with open(scratch, "wb") as out:
            out.writelines([_MAGIC, digest(body).encode(), body])
        os.replace(scratch, file)
    except OSError:  # a store that cannot be written to is only listed more slowly
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
