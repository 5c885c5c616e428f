"""The roots of a collection: the latest runs of experiment files, runs in progress, and pins."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from store import network_caches
from store.errors import StoreError
from store.gc.records import (
    Graph,
    Pin,
    Run,
    is_over,
    last_complete,
    read_record,
    readable_runs,
    records_in,
    retaining,
    roots_of,
    run_folders,
    write_record,
)
from store.io import explained
from store.layout import Ref, pin_file, pins, runs
from store.locks.heartbeat import heartbeats
from store.locks.liveness import may_be_alive
from store.locks.process import ProcessId
from store.network_caches import stat_opened, tries
from store.store import Store

Stamp = tuple[int, int, bool, int]
"""Of a record: its inode (0 if it is gone), its size, whether its owner may be alive, and its mtime
in ns."""


class RunRecording:
    """The record of a run in progress. What the run wants is kept while the record says so.

    `path` is that of the experiment file; a run without one leaves no record behind. A run goes on
    when its store cannot be written to: `problem` then says why it is not recorded.
    """

    def __init__(self, store: Store, path: Path | None, name: str) -> None:
        self.store = store
        self._run = Run.begin(name, path)
        self._file = f"{self._run.owner}.{os.urandom(4).hex()}.json"
        self._targets: dict[Ref, None] = {}
        self._graph: Graph = {}
        self._types: dict[str, int] = {}
        self.path = runs(store.root) / self._run.folder / self._file
        """Of the record in the store's own root; the other roots have copies."""
        self.problem = ""

    def beat(self) -> None:
        """Send a heartbeat: other hosts see that this run lives, even if it writes nothing."""
        for folder in self._folders():
            with suppress(OSError):  # removed, or the next heartbeat may succeed
                os.utime(folder / self._file)

    def add_targets(
        self,
        targets: Iterable[Ref],
        graph: Mapping[Ref, Iterable[Ref]],
        types: Mapping[str, int] | None = None,
    ) -> None:
        """Add targets, the graph of all that they are made from, and spec types with versions.

        They are on disk when this returns, unless there is a `problem`.
        """
        before = len(self._targets), len(self._graph), dict(self._types)
        self._targets |= dict.fromkeys(targets)
        self._types |= types or {}
        self._graph |= {ref: tuple(inputs) for ref, inputs in graph.items()}
        if (len(self._targets), len(self._graph), self._types) != before:
            self._write(self._now())
            heartbeats.add(self)

    def known_graph(self, targets: Iterable[Ref]) -> Graph | None:
        """The graph of these targets in the record of the last complete run; None if it has none.

        A key stands for all that it is made from, so a recorded graph stays valid.
        """
        last = last_complete(readable_runs(self._folders()[0]).values())
        wanted = list(targets)
        if last is None or not set(wanted) <= set(last.targets):
            return None
        graph, found = last.graph, {}
        while wanted:
            ref = wanted.pop()
            if ref not in found:
                found[ref] = graph[ref]
                wanted.extend(graph[ref])
        return found

    def complete(self) -> None:
        """Mark this run as complete, and remove the records that no longer count.

        Of the complete runs of a file, the one that began last counts, whichever finishes last.
        Each run writes only its own record, so none can overwrite that of a later run.
        """
        if not self._run.path:
            return self.close()
        heartbeats.remove(self)
        self._write(msgspec.structs.replace(self._now(), finished=time.time()))
        if self.problem:
            return
        for folder in self._folders():
            found = readable_runs(folder)
            last = last_complete(found.values())
            for file, run in found.items():
                if last and run.began < last.began and is_over(run, file):
                    _unlink(file)

    def close(self) -> None:
        """End the recording. The record stays if the run has a file, and was not completed."""
        heartbeats.remove(self)
        if not self._run.path:
            for folder in self._folders():
                _unlink(folder / self._file)

    def _now(self) -> Run:
        run = msgspec.structs.replace(self._run, types=self._types)
        return run.wanting(list(self._targets), self._graph)

    def _folders(self) -> list[Path]:
        return [runs(root) / self._run.folder for root in roots_of(self.store)]

    def _write(self, run: Run) -> None:
        try:
            for root in mounted_roots(self.store):
                write_record(runs(root) / run.folder / self._file, run)
        except StoreError as error:
            self.problem = str(error)


def mounted_roots(store: Store) -> list[Path]:
    """The roots that records are written to: the store's own, and others that are mounted."""
    others = [root for root in roots_of(store) if root != store.root]
    return [store.root, *(root for root in others if root.parent.is_dir())]


def forget_runs(store: Store, path: Path | str) -> int:
    """Remove the records of the runs of an experiment file, except of those in progress.

    Return how many there were. Raises StoreError.
    """
    where = str(Path(path).resolve())
    gone: set[tuple[str, str]] = set()
    for file in _run_files(store):
        run = read_record(file, Run)
        if run and run.path == where and is_over(run, file):
            with explained("remove", file):
                file.unlink(missing_ok=True)
            gone.add((file.parent.name, file.name))
    return len(gone)


def pin(store: Store, ref: Ref, nodes: Sequence[Ref], note: str = "", user: str = "") -> Pin:
    """Keep an artifact, and `nodes`: all that it is made from, itself first."""
    kind, key = ref
    made = Pin(kind=kind, key=key, note=note, user=user, created=time.time(), nodes=list(nodes))
    for root in mounted_roots(store):
        write_record(pin_file(root, *ref), made)
    return made


def unpin(store: Store, ref: Ref) -> bool:
    """Remove the pin of an artifact. Return False if it was not pinned."""
    found = False
    for root in roots_of(store):
        file = pin_file(root, *ref)
        with explained("remove", file), suppress(FileNotFoundError):
            file.unlink()
            found = True
    return found


class Roots:
    """The runs and pins that count now. `refresh` reads them again if one of them has changed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.runs: list[Run] = []
        """The last complete run of each file, the last unfinished one, and those in progress."""
        self.in_progress: list[Run] = []
        """Those of `runs` that may be in progress, on this host or another."""
        self.pins: list[Pin] = []
        self.superseded: list[Path] = []
        """Records of runs that are over and no longer count."""
        self._seen: dict[Path, Stamp] | None = None

    def refresh(self) -> bool:
        """Read what has changed. Return whether something has.

        Raises StoreError when a record cannot be read: any artifact may be wanted by it.
        """
        pin_folders = {pins(root) for root in roots_of(self.store)}
        found: dict[Path, Run | Pin] = {}
        read: dict[Path, tuple[int, int]] = {}
        gone: set[Path] = set()
        for _ in tries(network_caches.LISTED_S):
            while True:
                stamps = {file: _stamp(file) for file in self._files()}
                if stamps == self._seen:
                    return False
                # Records that come meanwhile are read as well, until a listing names no others. A
                # run that ends removes only records that are superseded by one that is listed then.
                unread = [file for file in stamps if read.get(file) != stamps[file][:2]]
                if not unread:
                    self._take({file: found[file] for file in stamps})
                    self._seen = stamps
                    return True
                before, gone = gone, set()
                for file in unread:
                    record = read_record(file, Pin if file.parent in pin_folders else Run)
                    if record is None:
                        gone.add(file)
                    else:
                        found[file], read[file] = record, stamps[file][:2]
                if gone & before:
                    break  # the listing comes from a cache, and may lack new records: wait
        raise StoreError(
            f"the records of runs in {self.store.root} are still listed "
            f"{network_caches.LISTED_S:g} s after they were removed. Try again"
        )

    def _files(self) -> list[Path]:
        return [*_run_files(self.store), *_pin_files(self.store)]

    def _take(self, found: Mapping[Path, Run | Pin]) -> None:
        copies = _copies({file: run for file, run in found.items() if isinstance(run, Run)})
        ended, self.in_progress = retaining([best for best, *_ in copies])
        self.runs = [*ended, *self.in_progress]
        self.pins = list({pin.ref: pin for pin in found.values() if isinstance(pin, Pin)}.values())
        superseded = [files for files in copies if files[0][1] not in self.runs]
        self.superseded = [file for files in superseded for file, _ in files]


def _stamp(file: Path) -> Stamp:
    """Changes when a record is replaced or removed, and when its owner beats or ends."""
    owner = ProcessId.parse(file.name.removesuffix(".json").rpartition(".")[0])
    with explained("look at", file):
        try:
            stat = stat_opened(file)
        except FileNotFoundError:
            return 0, 0, False, 0
    return stat.st_ino, stat.st_size, may_be_alive(owner), stat.st_mtime_ns


def _copies(found: Mapping[Path, Run]) -> list[list[tuple[Path, Run]]]:
    """The copies of each record in all roots, the most recent first."""
    copies: dict[tuple[str, str], list[tuple[Path, Run]]] = {}
    for file, run in found.items():
        copies.setdefault((file.parent.name, file.name), []).append((file, run))
    for files in copies.values():
        files.sort(key=lambda copy: (copy[1].finished or 0.0, len(copy[1].nodes)), reverse=True)
    return list(copies.values())


def _run_files(store: Store) -> list[Path]:
    folders = [folder for root in roots_of(store) for folder in run_folders(root)]
    return [file for folder in folders for file in records_in(folder)]


def _pin_files(store: Store) -> list[Path]:
    return [file for root in roots_of(store) for file in records_in(pins(root))]


def _unlink(file: Path) -> None:
    with suppress(OSError):  # a later run or collection removes it
        file.unlink()
