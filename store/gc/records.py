"""Records of what is wanted, as files: runs of experiments, and pins.

A record is written to every root of the store, so that two stores that share the root of one kind
see each other's. It holds the whole graph of what is wanted, down to what a finished table was made
from, so it can be read without any manifest.

<root>/.runs/<name>.<hash of path>/<owner>.<token>.json
<root>/.pins/<kind>.<key>.json
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec
import xxhash

from store import network_caches
from store.errors import NewerLayout, StoreError
from store.io import explained, list_folder, make_folders, read_file, replace_file
from store.layout import KINDS, LAYOUT, Ref, pins, runs
from store.locks.liveness import age_of, may_be_alive
from store.locks.process import ProcessId
from store.names import safe_name
from store.network_caches import tries
from store.store import Store

Graph = dict[Ref, tuple[Ref, ...]]
"""Artifacts, and what each is made from."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of an experiment wants."""

    layout: int = LAYOUT
    name: str
    path: str
    """Of the experiment file; "" for a run from a notebook or script, recorded while it lasts."""
    owner: str
    began: float
    """Seconds since 1970."""
    finished: float | None = None
    """None while it is in progress, or if it failed or was killed."""
    targets: list[Ref] = []
    nodes: list[Ref] = []
    inputs: list[list[int]] = []
    """For each node, the indices in `nodes` of what it is made from."""
    types: dict[str, int] = {}
    """Spec types that the run's own code declared -> version; 0 for one that is no artifact."""

    @classmethod
    def begin(cls, name: str, path: Path | None) -> Run:
        """A run of this process that wants nothing yet."""
        where = str(path.resolve()) if path else ""
        return cls(name=name, path=where, owner=str(ProcessId.here()), began=time.time())

    @property
    def folder(self) -> str:
        """Name of the folder with the records of all runs of its file."""
        return f"{safe_name(self.name, 80)}.{xxhash.xxh3_64_hexdigest(self.path.encode())}"

    @property
    def graph(self) -> Graph:
        return {
            ref: tuple(self.nodes[i] for i in inputs)
            for ref, inputs in zip(self.nodes, self.inputs, strict=True)
        }

    def wanting(self, targets: list[Ref], graph: Graph) -> Run:
        index = {ref: i for i, ref in enumerate(graph)}
        inputs = [[index[ref] for ref in below if ref in index] for below in graph.values()]
        return msgspec.structs.replace(self, targets=targets, nodes=list(graph), inputs=inputs)

    def __str__(self) -> str:
        what = f"the latest run of {self.path}" if self.path else f"a run in a {self.name}"
        if self.finished is not None:
            return f"{what}, finished {when(self.finished)}"
        owner = ProcessId.parse(self.owner)
        state = "in progress" if owner and owner.runs() else "not finished"
        return f"{what}, begun {when(self.began)} and {state}"


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact that somebody wants kept, with all that it is made from."""

    layout: int = LAYOUT
    kind: str
    key: str
    note: str = ""
    user: str = ""
    created: float
    nodes: list[Ref] = []
    """All that it was made from when it was pinned, itself first."""

    @property
    def ref(self) -> Ref:
        return self.kind, self.key

    def __str__(self) -> str:
        by = f" by {self.user}" if self.user else ""
        return f"pinned {when(self.created)}{by}{': ' if self.note else ''}{self.note}"


def when(seconds: float) -> str:
    """A time in words, in UTC as in manifests."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def roots_of(store: Store) -> list[Path]:
    """The folders that a store lies in: its own, and those of kinds with a root of their own."""
    return list(dict.fromkeys([store.root, *(store.root_of(kind) for kind in KINDS)]))


def is_over(run: Run, file: Path) -> bool:
    """Whether a run is complete, or its process has ended.

    If the process cannot be asked, the last heartbeat in `file`, the record of the run, decides, by
    the file server's clock.
    """
    if run.finished is not None:
        return True
    return not may_be_alive(ProcessId.parse(run.owner), lambda: age_of(file, file.parent.parent))


R = TypeVar("R", bound=Run | Pin)


class _Layout(msgspec.Struct):
    layout: int


def read_record(file: Path, what: type[R]) -> R | None:
    """Return the record in a file, None if it is gone. Raises StoreError if it is damaged.

    Records are written whole. One that seems truncated is read again for as long as a cache may
    hold the size of the record that it has replaced.
    """
    fault: msgspec.DecodeError | None = None
    for _ in tries(network_caches.OPENED_S):
        with explained("read", file):
            try:
                data = read_file(str(file))
            except FileNotFoundError:
                return None
        try:
            layout = msgspec.json.decode(data, type=_Layout).layout
            if layout > LAYOUT:
                raise NewerLayout(
                    f"{file} has layout {layout}, written by a later saevx; this one reads up to "
                    f"layout {LAYOUT}. Upgrade saevx"
                )
            return msgspec.json.decode(data, type=what)
        except msgspec.DecodeError as error:
            fault = error
            if isinstance(error, msgspec.ValidationError):
                break  # it is not truncated
    raise StoreError(
        f"{file} cannot be understood ({fault}), and any artifact may be wanted by it: remove it "
        "if you know that nothing needs it"
    ) from fault


def write_record(file: Path, record: Run | Pin) -> None:
    """Write a record whole or not at all, replacing the one that may be there."""
    make_folders(file.parent)
    replace_file(file, msgspec.json.encode(record))


def run_folders(root: Path) -> list[Path]:
    return [runs(root) / name for name in list_folder(runs(root)) if holds_runs(name)]


def record_folders(root: Path) -> Iterator[Path]:
    """All folders with records, each after the one that it lies in."""
    yield pins(root)
    yield runs(root)
    yield from run_folders(root)


def holds_runs(name: str) -> bool:
    """Whether a folder holds records of runs, by the end of its name."""
    return re.search(r"\.[0-9a-f]{16}$", name) is not None


def is_record(name: str) -> bool:
    """Whether a file is a record, not a scratch file or a stray file of an operating system, such
    as `Thumbs.db`, `.DS_Store`, `.nfs0123` or `._last.json`.
    """
    return name.endswith(".json") and not name.startswith(".")


def records_in(folder: Path) -> list[Path]:
    return [folder / name for name in list_folder(folder) if is_record(name)]


def retaining(found: Sequence[tuple[Path, Run]]) -> tuple[list[Run], list[Run]]:
    """The runs that keep what they want: those that have ended, and those in progress.

    Of the runs of each file that have ended, the complete one that began last; and the unfinished
    one that began last, unless a complete run began after it. So an interrupted run gives up
    neither what the run before it wanted nor what it wanted itself.
    """
    complete: dict[str, Run] = {}
    unfinished: dict[str, Run] = {}
    in_progress: list[Run] = []
    for file, run in sorted(found, key=lambda entry: entry[1].began):
        if run.finished is not None:
            complete[run.folder] = run
            unfinished.pop(run.folder, None)
        elif not is_over(run, file):
            in_progress.append(run)
        elif run.path:
            unfinished[run.folder] = run
    return [*complete.values(), *unfinished.values()], in_progress


def last_complete(found: Iterable[Run]) -> Run | None:
    complete = (run for run in found if run.finished is not None)
    return max(complete, key=lambda run: run.began, default=None)


def readable_runs(folder: Path) -> dict[Path, Run]:
    """The records of the runs of one file, without those that cannot be read."""
    found: dict[Path, Run] = {}
    for file in records_in(folder):
        with suppress(StoreError):
            if run := read_record(file, Run):
                found[file] = run
    return found
