"""What keeps artifacts: the runs of experiment files that count, and pins."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from store import io
from store.errors import StoreError
from store.gc.records import (
    Graph,
    Pin,
    Run,
    counting,
    holds_runs,
    is_over,
    last_complete,
    read_record,
    readable_runs,
    records_in,
    roots_of,
    write_record,
)
from store.io import explained, list_folder, stat_opened, tries
from store.layout import Ref, pin_file, pins, runs
from store.locks.heartbeat import heartbeats
from store.locks.liveness import may_be_alive
from store.locks.process import ProcessId
from store.store import Store

Stamp = tuple[str, int, int, bool, int]
"""Of a record: its path, inode (0 when it is gone), size, whether its owner may be alive, and its
mtime in ns.
"""


class RunRecording:
    """The record of a run that goes on, for as long as it wants things kept.

    Give the path of the experiment file; a run without one leaves no record behind. A store that
    cannot be written to stops no run: `problem` then says that it is not recorded.
    """

    def __init__(self, store: Store, path: Path | None, name: str) -> None:
        self.store = store
        self._run = Run.begin(name, path)
        self._file = f"{self._run.owner}.{os.urandom(4).hex()}.json"
        self._targets: dict[Ref, None] = {}
        self._graph: Graph = {}
        self._types: dict[str, int] = {}
        self.path = runs(store.root) / self._run.folder / self._file
        """Of the record in the store's own root; copies lie in others."""
        self.problem = ""

    def beat(self) -> None:
        """Shows other hosts that this run goes on, where it writes nothing for days."""
        for folder in self._folders():
            with suppress(OSError):  # not there yet, or no more; or the next beat may succeed
                os.utime(folder / self._file)

    def want(
        self,
        targets: Iterable[Ref],
        graph: Mapping[Ref, Iterable[Ref]],
        types: Mapping[str, int] | None = None,
    ) -> None:
        """Adds targets, the graph of all that they are made from, and spec types with versions.

        They are on disk when this returns, if there is no `problem`.
        """
        before = len(self._targets), len(self._graph)
        self._targets |= dict.fromkeys(targets)
        self._types |= types or {}
        self._graph |= {ref: tuple(inputs) for ref, inputs in graph.items()}
        if (len(self._targets), len(self._graph)) != before:
            self._write(self._now())
            heartbeats.add(self)

    def known(self, targets: Iterable[Ref]) -> Graph | None:
        """The graph of these targets as the last complete run recorded it; None if it did not.

        A key stands for all that is below it, so a graph once recorded holds for good.
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
        """Marks this run as complete, and removes the records that no longer count.

        Of the complete runs of a file the one that began last counts, whichever finishes last.
        Each run writes only its own record, so that none can overwrite that of a later one.
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
        """Ends the record of a run that has no file; that of a run cut off stays."""
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
            for root in writable_roots(self.store):
                write_record(runs(root) / run.folder / self._file, run)
        except StoreError as error:
            self.problem = str(error)


def writable_roots(store: Store) -> list[Path]:
    """The roots that records go to: the store's own, and others that are not unmounted."""
    others = [root for root in roots_of(store) if root != store.root]
    return [store.root, *(root for root in others if root.parent.is_dir())]


def forget_runs(store: Store, path: Path | str) -> int:
    """Forgets the recorded runs of an experiment file, but for those that go on.

    Returns how many there were. Raises StoreError.
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
    """Keeps an artifact, and `nodes`: all that it is made from, itself first."""
    kind, key = ref
    made = Pin(kind=kind, key=key, note=note, user=user, created=time.time(), nodes=list(nodes))
    for root in writable_roots(store):
        write_record(pin_file(root, *ref), made)
    return made


def unpin(store: Store, ref: Ref) -> bool:
    """Lets go of an artifact; False when it was not pinned."""
    found = False
    for root in roots_of(store):
        file = pin_file(root, *ref)
        with explained("remove", file), suppress(FileNotFoundError):
            file.unlink()
            found = True
    return found


def superseded(store: Store) -> Iterator[Path]:
    """Records of runs that are over and do not count. Raises StoreError."""
    copies = _copies(_run_files(store)) or {}  # one that has just gone: another time, then
    ended, going_on = counting([best for best, *_ in copies.values()])
    for (file, run), *others in copies.values():
        if run not in ended and run not in going_on and is_over(run, file):
            yield from (other for other, _ in [(file, run), *others])


class Roots:
    """The runs and pins of a store that count now, read again only when one of them changed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.runs: list[Run] = []
        """The last complete run of each file, those that go on, and the latest one cut off."""
        self.going_on: list[Run] = []
        """Those of `runs` that may still go on, on this host or another."""
        self.pins: list[Pin] = []
        self._seen: list[Stamp] | None = None

    def refresh(self) -> bool:
        """Reads what changed; says whether something did.

        Raises StoreError when a record cannot be read: it might keep anything alive.
        """
        for _ in tries(io.LISTED_S):
            there = self._files()
            stamps = [_stamp(file) for file in there]
            if stamps == self._seen:
                return False
            found = self._read()
            # A listing may name what is gone. And where a run ends while we read, its record may
            # replace one that we did not read yet, and be one that we did not list: what we have
            # may lack both.
            if found is not None and self._files() == there:
                ended, self.going_on, self.pins = found
                self.runs = [*ended, *self.going_on]
                self._seen = stamps
                return True
        raise StoreError(
            f"the records of runs in {self.store.root} kept changing for {io.LISTED_S:g} s, "
            "while they were read. Try again"
        )

    def _files(self) -> list[Path]:
        return [*_run_files(self.store), *_pin_files(self.store)]

    def _read(self) -> tuple[list[Run], list[Run], list[Pin]] | None:
        copies = _copies(_run_files(self.store))
        if copies is None:
            return None
        pinned = [read_record(file, Pin) for file in _pin_files(self.store)]
        if None in pinned:
            return None
        ended, going_on = counting([best for best, *_ in copies.values()])
        return ended, going_on, list({p.ref: p for p in pinned if p}.values())


def _stamp(file: Path) -> Stamp:
    """Changes when a record is replaced or goes, and when its owner dies or shows that it lives."""
    owner = ProcessId.parse(file.name.removesuffix(".json").rpartition(".")[0])
    with explained("look at", file):
        try:
            stat = stat_opened(file)
        except FileNotFoundError:
            return str(file), 0, 0, False, 0
    return str(file), stat.st_ino, stat.st_size, may_be_alive(owner), stat.st_mtime_ns


def _copies(records: Iterable[Path]) -> dict[tuple[str, str], list[tuple[Path, Run]]] | None:
    """Of every record its copies in the roots, the one furthest on first; None when one has gone.

    The copy in one root may be behind that in another.
    """
    found: dict[tuple[str, str], list[tuple[Path, Run]]] = {}
    for file in records:
        run = read_record(file, Run)
        if run is None:
            return None
        found.setdefault((file.parent.name, file.name), []).append((file, run))
    for copies in found.values():
        copies.sort(key=lambda copy: _progress(copy[1]), reverse=True)
    return found


def _progress(run: Run) -> tuple[float, int]:
    return run.finished or 0.0, len(run.nodes)


def _run_files(store: Store) -> Iterator[Path]:
    for root in roots_of(store):
        for folder in filter(holds_runs, list_folder(runs(root))):
            yield from records_in(runs(root) / folder)


def _pin_files(store: Store) -> Iterator[Path]:
    for root in roots_of(store):
        yield from records_in(pins(root))


def _unlink(file: Path) -> None:
    with suppress(OSError):  # it is superseded, and a later run removes it
        file.unlink()
