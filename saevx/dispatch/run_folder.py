"""The folder of a run. No other module knows a name in it.

<root>/.jobs/<experiment>.<hash of path>.<time>.<token>/
    run.json                     RunInfo
    code/                        the code as it was, as snapshot.py says; made by that alone
    arrays/<name>.json           an array, written before it is submitted
    arrays/<name>.job            its job, written after
    arrays/<name>.dropped        it was never submitted; a job of that name has nothing to do
    outcomes/<name>.<index>.json
    progress/<name>.<index>.json
    logs/                        what jobs printed
    ended                        nothing of it is queued or running
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypeVar

import msgspec
import xxhash

from saevx.dispatch.messages import Array, ArrayTask, Outcome, Progress, RunInfo
from saevx.errors import StoreError
from store import Store
from store.locks import lease as leases
from store.locks.liveness import age_of, may_be_alive
from store.locks.process import ProcessId
from store.names import safe_name

FOLDER = ".jobs"

LEAVING = ".removed."
"""Begins the name of a folder that is being removed."""

_RUN = re.compile(r"\.[0-9a-f]{8}\.\d{8}T\d{6}Z\.[0-9a-f]{8}$")
"""Ends the name of a run's folder; its beginning may be anything."""

T = TypeVar("T", RunInfo, Array, Outcome, Progress)


class RunFolder:
    """One run's folder, shared by who submits, who works and who looks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.code_digest = ""
        """Digest of the code, known to who copied it; in the folder others could replace it."""
        self._arrays: dict[str, Array] = {}
        self._outcomes: dict[str, Outcome] = {}

    @classmethod
    def make(cls, store: Store, name: str, path: str) -> RunFolder:
        """A new one. Raises StoreError where it cannot be written."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        made = cls(runs_dir(store) / f"{run_prefix(name, path)}{stamp}.{os.urandom(4).hex()}")
        try:
            for part in ("arrays", "outcomes", "progress", "logs"):
                (made.path / part).mkdir(parents=True)
        except OSError as error:
            raise StoreError(f"cannot make {made.path}: {error.strerror}") from error
        return made

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def info(self) -> RunInfo:
        found = _read(self.path / "run.json", RunInfo)
        if found is None:
            raise StoreError(f"{self.path} has no run.json: its run was cut off as it began")
        return found

    @property
    def is_described(self) -> bool:
        """False where its submitter was killed as it began, before it submitted anything.

        Raises StoreError where its description cannot be read.
        """
        return _read(self.path / "run.json", RunInfo) is not None

    def write_info(self, info: RunInfo) -> None:
        write(self.path / "run.json", info)

    def beat(self) -> None:
        """Shows that the process that submits is alive."""
        with suppress(OSError):  # the next beat may succeed
            os.utime(self.path / "run.json")

    @property
    def submitter(self) -> ProcessId | None:
        """The process that submits; of a local run its jobs end with it."""
        return ProcessId.parse(self.info.owner)

    @property
    def submitter_may_be_alive(self) -> bool:
        beat = self.path / "run.json"
        return may_be_alive(self.submitter, lambda: age_of(beat, self.path.parent))

    @property
    def code(self) -> Path:
        return self.path / "code"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def ended(self) -> bool:
        return (self.path / "ended").exists()

    @property
    def ended_at(self) -> float | None:
        """When it ended; None while something of it may be queued or running."""
        with suppress(OSError):
            return (self.path / "ended").stat().st_mtime
        return None

    def end(self) -> None:
        _touch(self.path / "ended")

    @property
    def is_over(self) -> bool:
        """Whether all that was submitted has an outcome."""
        done = self.outcome_names()
        return all(
            (array.name, index) in done
            for array in self.arrays()
            for index in range(len(array.tasks))
        )

    def reopen(self) -> None:
        """Undo `end`, which another run may have called before this one submits more."""
        try:
            (self.path / "ended").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot remove {self.path}/ended: {error.strerror}") from error

    def arrays(self) -> Iterator[Array]:
        """The arrays that were submitted, or may have been."""
        try:
            names = os.listdir(self.path / "arrays")
        except OSError:
            return
        dropped = {name.removesuffix(".dropped") for name in names if name.endswith(".dropped")}
        for name in sorted(names):
            stem = name.removesuffix(".json")
            if name.endswith(".json") and not name.startswith(".") and stem not in dropped:
                found = self.array(stem)
                if found is not None:
                    yield found

    def array(self, name: str) -> Array | None:
        if name not in self._arrays:
            found = _read(self.path / "arrays" / f"{name}.json", Array)
            if found is None:
                return None
            self._arrays[name] = found
        return self._arrays[name]

    def add(self, array: Array) -> None:
        """Write down what is about to be submitted."""
        write(self.path / "arrays" / f"{array.name}.json", array)
        self._arrays[array.name] = array

    def job_of(self, array: str) -> str | None:
        """What the executor calls the array; None when that was never written down."""
        with suppress(OSError):
            return (self.path / "arrays" / f"{array}.job").read_text() or None
        return None

    def set_job(self, array: str, job: str) -> None:
        _replace(self.path / "arrays" / f"{array}.job", job.encode())

    def drop(self, array: str) -> None:
        """Say that an array was not submitted: should it have been after all, it does nothing."""
        _touch(self.path / "arrays" / f"{array}.dropped")

    def is_dropped(self, array: str) -> bool:
        return (self.path / "arrays" / f"{array}.dropped").exists()

    def outcome(self, array: str, index: int) -> Outcome | None:
        name = f"{array}.{index}.json"
        if name not in self._outcomes:
            found = _read(self.path / "outcomes" / name, Outcome)
            if found is None:
                return None
            self._outcomes[name] = found
        return self._outcomes[name]

    def outcome_names(self) -> set[tuple[str, int]]:
        """Array and index of all elements that have an outcome: one look at a folder for all."""
        found = set()
        with suppress(OSError):
            for name in os.listdir(self.path / "outcomes"):
                array, _, index = name.removesuffix(".json").rpartition(".")
                if index.isdigit() and not name.startswith("."):
                    found.add((array, int(index)))
        return found

    def write_outcome(self, array: str, index: int, outcome: Outcome) -> None:
        write(self.path / "outcomes" / f"{array}.{index}.json", outcome)

    def progress(self, array: str, index: int) -> Progress | None:
        return _read(self.path / "progress" / f"{array}.{index}.json", Progress)

    def write_progress(self, array: str, index: int, progress: Progress) -> None:
        with suppress(StoreError):  # work matters more than the news of it
            write(self.path / "progress" / f"{array}.{index}.json", progress, sync=False)

    def log(self, array: str, index: int) -> Path:
        """What an element printed; its name follows from the executor's name of the array."""
        return self.logs / f"{array}.{index}.log"


def runs_dir(store: Store) -> Path:
    return store.root / FOLDER


def run_prefix(name: str, path: str) -> str:
    """How the folders of all runs of an experiment file begin."""
    return f"{safe_name(name, 60)}.{xxhash.xxh3_64_hexdigest(path.encode())[:8]}."


def all_runs(store: Store, prefix: str = "") -> list[RunFolder]:
    """The runs in a store, oldest first."""
    try:
        names = os.listdir(runs_dir(store))
    except OSError:
        return []
    ours = [name for name in names if name.startswith(prefix) and _is_run(name)]
    ours.sort(key=lambda name: name.rsplit(".", 2)[-2:])
    return [_folder(str(runs_dir(store) / name)) for name in ours]


def _is_run(name: str) -> bool:
    return bool(_RUN.search(name)) and not name.startswith(LEAVING)


@lru_cache(maxsize=1024)
def _folder(path: str) -> RunFolder:
    return RunFolder(Path(path))


def active_runs(store: Store) -> list[RunFolder]:
    """Runs of which something may be queued or running."""
    return [run for run in all_runs(store) if not run.ended and (run.path / "run.json").exists()]


def take_submit_lease(store: Store) -> leases.Lease | None:
    """The right to submit in a store, which one run at a time has: else two would submit the same.

    None while another run has it.
    """
    return leases.acquire(store.root, FOLDER, xxhash.xxh3_128_hexdigest(b"submit"))


def task_keys(folder: RunFolder, task: ArrayTask) -> list[str]:
    array = folder.array(task.array)
    return [key for batch in array.tasks[task.number] for key in batch] if array else []


def write(file: Path, record: RunInfo | Array | Outcome | Progress, sync: bool = True) -> None:
    """Write a record whole or not at all. Raises StoreError."""
    _replace(file, msgspec.json.encode(record), sync)


def _touch(file: Path) -> None:
    try:
        file.touch()
    except OSError as error:
        raise StoreError(f"cannot write {file}: {error.strerror}") from error


def _replace(file: Path, data: bytes, sync: bool = True) -> None:
    scratch = file.with_name(f".{file.name}.{os.urandom(4).hex()}")
    try:
        with open(scratch, "wb") as out:
            out.write(data)
            out.flush()
            if sync:
                os.fsync(out.fileno())
        os.replace(scratch, file)
    except OSError as error:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise StoreError(f"cannot write {file}: {error.strerror}") from error


def _read(file: Path, what: type[T]) -> T | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=what)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise StoreError(f"cannot read {file}: {error}. Remove it and run again") from error
