"""The folder of a run, and all file names in it.

<root>/.jobs/<experiment>.<hash of path>.<time>.<token>/
    run.json                     RunInfo
    code/                        the copy of the code; snapshot.py writes it
    arrays/<name>.json           an Array, written before it is submitted
    arrays/<name>.job            what the executor calls it, written after it is submitted
    arrays/<name>.dropped        it was not submitted; if Slurm has it after all, it does nothing
    outcomes/<name>.<task>.json  an Outcome
    progress/<name>.<task>.json  a Progress
    logs/                        the output of jobs
    ended                        nothing of the run is queued or running
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import xxhash

from saevx.dispatch.messages import Array, Outcome, Progress, RunInfo
from saevx.errors import StoreError
from store import Store
from store.io import explained, list_folder, replace_file
from store.locks import lease as leases
from store.locks.liveness import age_of, may_be_alive
from store.locks.process import ProcessId
from store.names import safe_name, utc_stamp

FOLDER = ".jobs"

REMOVED = ".removed."
"""Prefix that a run's folder gets before it is deleted."""

_RUN = re.compile(r"\.[0-9a-f]{8}\.\d{8}T\d{6}Z\.[0-9a-f]{8}$")
"""The end of the name of a run's folder; its beginning may be anything."""

T = TypeVar("T", RunInfo, Array, Outcome, Progress)


class RunFolder:
    """One run's folder, which its submitter, its workers and other commands share."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.code_digest = ""
        """Known to the process that copied the code. A file could be replaced by others."""
        self._read_once: dict[str, Any] = {}

    @classmethod
    def make(cls, store: Store, name: str, path: str) -> RunFolder:
        """Create the folder of a new run. Raises StoreError."""
        token = os.urandom(4).hex()
        made = cls(runs_dir(store) / f"{run_prefix(name, path)}{utc_stamp()}.{token}")
        with explained("create", made.path):
            for part in ("arrays", "outcomes", "progress", "logs"):
                (made.path / part).mkdir(parents=True)
        return made

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def code(self) -> Path:
        return self.path / "code"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def log(self, array: str, task: int) -> Path:
        """Return where a task's output goes; the file may not exist."""
        return self.logs / f"{array}.{task}.log"

    # The run

    @cached_property
    def info(self) -> RunInfo:
        found = self._read("run.json", RunInfo)
        if found is None:
            raise StoreError(f"{self.path} has no run.json: its run was killed as it began")
        return found

    @property
    def has_info(self) -> bool:
        """False if the submitter was killed as it began, before it submitted anything."""
        return (self.path / "run.json").exists()

    def write_info(self, info: RunInfo) -> None:
        self._write("run.json", info)

    def beat(self) -> None:
        """Refresh the heartbeat of the submitter."""
        with suppress(OSError):  # the next beat may succeed
            os.utime(self.path / "run.json")

    @property
    def submitter(self) -> ProcessId | None:
        """The process that submits. The jobs of a local run end with it."""
        return ProcessId.parse(self.info.owner)

    @property
    def submitter_may_be_alive(self) -> bool:
        beat = self.path / "run.json"
        return may_be_alive(self.submitter, lambda: age_of(beat, self.path.parent))

    @property
    def ended(self) -> bool:
        return self.ended_at is not None

    @property
    def ended_at(self) -> float | None:
        """When the run ended; None while something of it may be queued or running."""
        with suppress(OSError):
            return (self.path / "ended").stat().st_mtime
        return None

    def end(self) -> None:
        self._touch("ended")

    def reopen(self) -> None:
        """Undo `end`: another run may have called it before this one submits more."""
        with explained("remove", self.path / "ended"):
            (self.path / "ended").unlink(missing_ok=True)

    @property
    def is_finished(self) -> bool:
        """Whether every task that was submitted has an outcome."""
        finished = self.finished_tasks()
        return all(
            (array.name, task) in finished
            for array in self.arrays()
            for task in range(len(array.tasks))
        )

    # Arrays

    def arrays(self) -> Iterator[Array]:
        """Yield the arrays that were submitted, or may have been."""
        names = _names_in(self.path / "arrays")
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix == ".json" and f"{stem}.dropped" not in names:
                found = self.array(stem)
                if found is not None:
                    yield found

    def array(self, name: str) -> Array | None:
        return self._read_final(f"arrays/{name}.json", Array)

    def add(self, array: Array) -> None:
        """Record an array that is about to be submitted."""
        self._write(f"arrays/{array.name}.json", array)

    def handle_of(self, array: str) -> str | None:
        """Return what the executor calls an array; None if that was never recorded."""
        with suppress(OSError):
            return (self.path / "arrays" / f"{array}.job").read_text() or None
        return None

    def set_handle(self, array: str, handle: str) -> None:
        replace_file(self.path / "arrays" / f"{array}.job", handle.encode())

    def drop(self, array: str) -> None:
        """Record that an array was not submitted; if it was after all, its jobs do nothing."""
        self._touch(f"arrays/{array}.dropped")

    def is_dropped(self, array: str) -> bool:
        return (self.path / "arrays" / f"{array}.dropped").exists()

    # Tasks

    def outcome(self, array: str, task: int) -> Outcome | None:
        return self._read_final(f"outcomes/{array}.{task}.json", Outcome)

    def finished_tasks(self) -> set[tuple[str, int]]:
        """Return array and number of all tasks that have an outcome, by listing one folder."""
        names = _names_in(self.path / "outcomes")
        places = [name.removesuffix(".json").rpartition(".") for name in names]
        return {(array, int(task)) for array, _, task in places if task.isdigit()}

    def outcome_time(self, array: str, task: int) -> float | None:
        """Return when an outcome was written, by the file server's clock; None without one."""
        with suppress(OSError):
            return (self.path / "outcomes" / f"{array}.{task}.json").stat().st_mtime
        return None

    def write_outcome(self, array: str, task: int, outcome: Outcome) -> None:
        self._write(f"outcomes/{array}.{task}.json", outcome)

    def progress(self, array: str, task: int) -> Progress | None:
        return self._read(f"progress/{array}.{task}.json", Progress)

    def write_progress(self, array: str, task: int, progress: Progress) -> None:
        with suppress(StoreError):  # the work goes on without it
            self._write(f"progress/{array}.{task}.json", progress, durable=False)

    # Files

    def _read(self, name: str, what: type[T]) -> T | None:
        file = self.path / name
        try:
            return msgspec.json.decode(file.read_bytes(), type=what)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise StoreError(f"cannot read {file}: {error}. Remove it and run again") from error

    def _read_final(self, name: str, what: type[T]) -> T | None:
        """Read a record that does not change once it exists."""
        if name not in self._read_once:
            found = self._read(name, what)
            if found is None:
                return None
            self._read_once[name] = found
        return self._read_once[name]  # type: ignore[no-any-return]

    def _write(
        self, name: str, record: RunInfo | Array | Outcome | Progress, durable: bool = True
    ) -> None:
        replace_file(self.path / name, msgspec.json.encode(record), durable=durable)

    def _touch(self, name: str) -> None:
        with explained("write", self.path / name):
            (self.path / name).touch()


def _names_in(folder: Path) -> set[str]:
    """Return the names in a folder, including temporary files, which callers skip by suffix."""
    return set(list_folder(folder))


def runs_dir(store: Store) -> Path:
    return store.root / FOLDER


def run_prefix(name: str, path: str) -> str:
    """Return the prefix of the folders of all runs of an experiment file."""
    return f"{safe_name(name, 60)}.{xxhash.xxh3_64_hexdigest(path.encode())[:8]}."


def all_runs(store: Store, prefix: str = "") -> list[RunFolder]:
    """Return the runs in a store, oldest first."""
    names = [name for name in _names_in(runs_dir(store)) if name.startswith(prefix)]
    runs = [name for name in names if _RUN.search(name) and not name.startswith(REMOVED)]
    oldest_first = sorted(runs, key=lambda name: name.rsplit(".", 2)[-2:])
    return [_folder(str(runs_dir(store) / name)) for name in oldest_first]


@lru_cache(maxsize=1024)
def _folder(path: str) -> RunFolder:
    return RunFolder(Path(path))


def active_runs(store: Store) -> list[RunFolder]:
    """Return the runs of which something may be queued or running."""
    return [run for run in all_runs(store) if not run.ended and run.has_info]


def acquire_submit_lease(store: Store) -> leases.Lease | None:
    """Acquire the lease to submit in a store; None while another run holds it.

    One run submits at a time, since two at once would submit the same specs.
    """
    return leases.acquire(store.root, FOLDER, xxhash.xxh3_128_hexdigest(b"submit"))
