"""Records of what is wanted, as files: runs of experiments, and pins.

A record lies in every root of the store, so that two stores that share the root of one kind see
each other's. It names the whole graph of what is wanted, down to what a finished table was made
from: it needs no manifest to be understood.

<root>/.runs/<name>.<hash of path>/<owner>.<token>.json
<root>/.pins/<kind>.<key>.json
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec
import xxhash

from store import io
from store.errors import NewerLayout, StoreError
from store.io import explained, list_folder, make_folders, read_file, replace_file, tries
from store.layout import KINDS, LAYOUT, Ref
from store.locks.liveness import age_of, may_be_alive
from store.locks.process import ProcessId
from store.names import safe_name
from store.store import Store

Graph = dict[Ref, tuple[Ref, ...]]
"""Artifacts, and what each is made from."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of an experiment wanted."""

    layout: int = LAYOUT
    name: str
    path: str
    """Of the experiment file; "" for a run from a notebook or script, recorded while it lasts."""
    owner: str
    began: float
    """Seconds since 1970."""
    finished: float | None = None
    """None while it goes on, or after it was cut off or failed."""
    targets: list[Ref] = []
    nodes: list[Ref] = []
    inputs: list[list[int]] = []
    """For each node, the places in `nodes` of what it is made from."""
    types: dict[str, int] = {}
    """Spec types that the run's own code declared -> version; 0 for one that is no artifact."""

    @classmethod
    def begin(cls, name: str, path: Path | None) -> Run:
        """A run of this process that wants nothing yet."""
        where = str(path.resolve()) if path else ""
        return cls(name=name, path=where, owner=str(ProcessId.here()), began=time.time())

    @property
    def folder(self) -> str:
        """Name of the folder of all runs of one file."""
        return f"{safe_name(self.name, 80)}.{xxhash.xxh3_64_hexdigest(self.path.encode())}"

    @property
    def graph(self) -> Graph:
        return {
            ref: tuple(self.nodes[i] for i in inputs)
            for ref, inputs in zip(self.nodes, self.inputs, strict=True)
        }

    def wanting(self, targets: list[Ref], graph: Graph) -> Run:
        places = {ref: i for i, ref in enumerate(graph)}
        inputs = [[places[ref] for ref in below if ref in places] for below in graph.values()]
        return msgspec.structs.replace(self, targets=targets, nodes=list(graph), inputs=inputs)

    def __str__(self) -> str:
        what = f"the latest run of {self.path}" if self.path else f"a run in a {self.name}"
        if self.finished is not None:
            return f"{what}, finished {when(self.finished)}"
        owner = ProcessId.parse(self.owner)
        going = bool(owner and owner.runs())
        return f"{what}, begun {when(self.began)} and {'going on' if going else 'not finished'}"


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
    """A time in words, in UTC as manifests have it."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def roots_of(store: Store) -> list[Path]:
    """The folders that a store lies in: its own, and those of kinds that lie elsewhere."""
    return list(dict.fromkeys([store.root, *(store.root_of(kind) for kind in KINDS)]))


def is_over(run: Run, file: Path) -> bool:
    """Whether a run is complete, or its process is known to be gone.

    A process that cannot be asked is gone when the last heartbeat in `file`, the record of the run,
    is too old by the file server's clock.
    """
    if run.finished is not None:
        return True
    return not may_be_alive(ProcessId.parse(run.owner), lambda: age_of(file, file.parent.parent))


R = TypeVar("R", bound=Run | Pin)


class _Layout(msgspec.Struct):
    layout: int


def read_record(file: Path, what: type[R]) -> R | None:
    """What a record says; None when it is gone. Raises StoreError where it cannot be understood.

    A record is written whole. One that is torn is read again while a cache may hold the size of the
    one that it has replaced.
    """
    fault: msgspec.DecodeError | None = None
    for _ in tries(io.OPENED_S):
        with explained("read", file):
            try:
                data = read_file(str(file))
            except FileNotFoundError:
                return None
        try:
            return _decode(file, data, what)
        except msgspec.DecodeError as error:
            fault = error
            if isinstance(error, msgspec.ValidationError):
                break  # all of it is there
    raise StoreError(
        f"{file} cannot be understood ({fault}), and what it says might keep anything: "
        "remove it if you know that nothing needs it"
    ) from fault


def _decode(file: Path, data: bytes, what: type[R]) -> R:
    layout = msgspec.json.decode(data, type=_Layout).layout
    if layout > LAYOUT:
        raise NewerLayout(
            f"{file} has layout {layout}, written by a later saevx; this one reads up to "
            f"layout {LAYOUT}. Upgrade saevx"
        )
    return msgspec.json.decode(data, type=what)


def write_record(file: Path, record: Run | Pin) -> None:
    """Writes a record whole or not at all, in the place of one that may be there."""
    make_folders(file.parent)
    replace_file(file, msgspec.json.encode(record))


def holds_runs(name: str) -> bool:
    """Whether a folder holds records of runs, by the end of its name; the rest may be anything."""
    return re.search(r"\.[0-9a-f]{16}$", name) is not None


def is_record(name: str) -> bool:
    """Whether a file is a record, and no scratch file or stray file of an operating system, such
    as `Thumbs.db`, `.DS_Store`, `.nfs0123` or `._last.json`.
    """
    return name.endswith(".json") and not name.startswith(".")


def records_in(folder: Path) -> list[Path]:
    return [folder / name for name in list_folder(folder) if is_record(name)]


def counting(found: Sequence[tuple[Path, Run]]) -> tuple[list[Run], list[Run]]:
    """The runs that keep things alive: those that have ended, and those that go on.

    Of the runs of each file that have ended, the complete one that began last; and of those cut off
    the latest, unless a complete run began after it. So a run that is stopped early gives up
    neither what the run before it wanted nor what it wanted itself.
    """
    complete: dict[str, Run] = {}
    cut_off: dict[str, Run] = {}
    going_on: list[Run] = []
    for file, run in sorted(found, key=lambda entry: entry[1].began):
        if run.finished is not None:
            complete[run.folder] = run
            cut_off.pop(run.folder, None)
        elif not is_over(run, file):
            going_on.append(run)
        elif run.path:
            cut_off[run.folder] = run
    return [*complete.values(), *cut_off.values()], going_on


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
