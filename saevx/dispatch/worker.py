"""The worker: makes one element of an array, in a process of its own.

python -m saevx.dispatch.worker RUN ARRAY [INDEX]    one element; Slurm says which
python -m saevx.dispatch.worker RUN --serve          elements by line on standard input

It reads strings and JSON, checks in the store whatever others have told it, and writes how it
ended. What it does not write (it was killed) is found out by who waits for it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .folder import RunFolder
from .records import Array, End, Outcome, Progress, Result

if TYPE_CHECKING:
    from spec import Artifact, Keys

    from ..resolve.plan import Node
    from ..workspace import Workspace

PROGRESS_S = 2.0
"""Seconds between two writings of how far it is."""


class TimeUp(BaseException):
    """The time limit of the job is near, or it is about to be preempted."""


class Stopped(BaseException):
    """The job is cancelled, or taken away."""


class Worker:
    """Makes elements of one run's arrays."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.info = folder.info
        self._workspace: Workspace | None = None

    def work(self, array_name: str, index: int) -> Outcome | None:
        """Make an element, and write how it ended. None when it was not to be made, or goes on
        in another job."""
        array = self.folder.array(array_name)
        if array is None or self.folder.is_dropped(array_name):
            print(f"{array_name} is not to be made any more", flush=True)
            return None
        if self.folder.outcome(array_name, index) is not None:
            return None  # put back into the queue after it had ended
        attempt = _Attempt(self.folder, array, index)
        try:
            attempt.look(self._load())
            for batch in array.elements[index]:
                attempt.add(self._make(array, batch, attempt))
        except TimeUp:
            if attempt.progressed(self._load()) and _requeue():
                print("time is up; goes on where it stopped once Slurm starts it again")
                return None
            attempt.add_rest(End.TIME_LIMIT, "", self._load())
        except MemoryError as error:
            attempt.add_rest(End.OUT_OF_MEMORY, f"MemoryError: {error}", self._load())
        except Exception as error:
            from ..resolve.run import explain

            attempt.add_rest(End.ERROR, explain(error), self._load())
        return attempt.end()

    def _load(self) -> Workspace:
        if self._workspace is None:
            from store import Store

            from ..workspace import Workspace

            info = self.info
            store = Store(info.store_root, roots=info.store_roots)
            roots = {name: Path(root) for name, root in info.data_roots.items()}
            self._workspace = Workspace(store, roots)
            if info.experiment:
                from ..experiment import import_copy

                import_copy(Path(info.path), Path(info.experiment))
        return self._workspace

    def _make(self, array: Array, keys_wanted: list[str], attempt: _Attempt) -> dict[str, Result]:
        """Make the specs of one batch that are absent and whose inputs are there."""
        import saevx.workspace  # noqa: F401  (lets specs see the store)
        from spec import Artifact, Keys, from_document

        from ..recipes import find_recipe
        from ..resolve.plan import Plan
        from ..resolve.provenance import Origin
        from ..resolve.run import run_plan

        workspace = self._load()
        store, keys = workspace.store, Keys(workspace)
        results: dict[str, Result] = {}
        nodes: dict[str, Node] = {}
        for key in keys_wanted:
            spec = from_document(array.documents[key])
            assert isinstance(spec, Artifact)
            if (found := _check(spec, key, keys, workspace)) is not None:
                results[key] = found
            else:
                nodes[key] = _node(spec, key)
        if nodes:
            plan = Plan(nodes, tuple(nodes))
            origin = Origin.from_record(self.info.origin)
            outcome = run_plan(plan, keys, store, find_recipe, attempt.listener(), origin)
            results |= attempt.results_of(outcome)
        return results


def _node(spec: Artifact, key: str) -> Node:
    from ..resolve.plan import Node, State

    return Node(spec, key, State.TO_MAKE, "asked for")


def _check(spec: Artifact, key: str, keys: Keys, workspace: Workspace) -> Result | None:
    """What ends the making of a spec before it begins; None when nothing does."""
    found = keys.of(spec)
    if found != key:
        message = (
            f"{type(spec).__name__} has key {found} on this node, and {key} where it was "
            "submitted: its dataset or weights differ between the two, or changed since"
        )
        return Result(end=End.ERROR, message=message)
    store = workspace.store
    if store.find(spec.kind, key) is not None:
        return Result(end=End.CAME)
    for name, parent in spec.inputs().items():
        why = store.absence(parent.kind, keys.of(parent))
        if why is not None:
            text = f"its {name}, {type(parent).__name__} {keys.of(parent)}, is absent: {why}"
            return Result(end=End.BLOCKED, message=text)
    return None


class _Attempt:
    """One go at an element: what has become of its keys so far."""

    def __init__(self, folder: RunFolder, array: Array, index: int) -> None:
        self.folder, self.array, self.index = folder, array, index
        self.results: dict[str, Result] = {}
        self.began = time.time()
        self._at_begin: set[str] = set()
        self.batch_began = 0.0
        self._written = 0.0
        self.show(0, 0, "", force=True)

    @property
    def keys(self) -> list[str]:
        return [key for batch in self.array.elements[self.index] for key in batch]

    def look(self, workspace: Workspace) -> None:
        """Note what is there before anything is made."""
        self._at_begin = {key for key in self.keys if self._is_made(key, workspace)}

    def add(self, results: dict[str, Result]) -> None:
        self.results |= results
        self.show(0, 0, "", force=True)

    def add_rest(self, end: End, message: str, workspace: Workspace) -> None:
        """What has no result yet is in the store, or ended so."""
        for key in self.keys:
            if key not in self.results:
                made = self._is_made(key, workspace)
                self.results[key] = (
                    Result(end=End.MADE) if made else Result(end=end, message=message)
                )

    def progressed(self, workspace: Workspace) -> bool:
        """Whether a later go begins further on than this one did."""
        return any(key not in self._at_begin and self._is_made(key, workspace) for key in self.keys)

    def _is_made(self, key: str, workspace: Workspace) -> bool:
        return workspace.store.find(self.array.documents[key]["kind"], key) is not None

    def results_of(self, outcome: Any) -> dict[str, Result]:
        from ..resolve.run import explain

        results = {node.key: Result(end=End.MADE) for node in outcome.made}
        results |= {node.key: Result(end=End.CAME) for node in outcome.came}
        for key, error in outcome.failed.items():
            end = End.OUT_OF_MEMORY if isinstance(error, MemoryError) else End.ERROR
            results[key] = Result(end=end, message=explain(error))
        return results

    def listener(self) -> Any:
        from ..resolve.run import Listener

        attempt = self

        class _Writing(Listener):
            def begin(self, nodes: list[Node]) -> Any:
                attempt.batch_began = time.time()
                return attempt.show

        return _Writing()

    def show(self, done: int, total: int, unit: str, force: bool = False) -> None:
        """Write down how far it is, not too often."""
        now = time.time()
        if not force and now - self._written < PROGRESS_S:
            return
        self._written = now
        wall_s = now - self.batch_began
        progress = Progress(
            host=os.uname().nodename,
            job=_job(),
            began=self.began,
            done=done,
            total=total,
            unit=unit,
            n_made=len(self.results),
            rate=done / wall_s if done and wall_s > 0 else 0.0,
        )
        self.folder.write_progress(self.array.name, self.index, progress)

    def end(self) -> Outcome:
        import resource

        ends = {result.end for result in self.results.values()}
        outcome = Outcome(
            results=self.results,
            host=os.uname().nodename,
            job=_job(),
            wall_s=round(time.time() - self.began, 3),
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            progressed=End.MADE in ends,
            ended=time.time(),
        )
        self.folder.write_outcome(self.array.name, self.index, outcome)
        for key, result in self.results.items():
            told = f": {result.message}" if result.message else ""
            print(
                f"{self.array.documents[key]['type']} {key}: {result.end.value}{told}", flush=True
            )
        return outcome


def _job() -> str:
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else str(os.getpid())


def _requeue() -> bool:
    """Put this job back into Slurm's queue; False where there is no Slurm to do it."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return False
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"cannot put job {job} back into the queue: {error}", flush=True)
        return False
    return True


def _on_time_up(*_: Any) -> None:
    # Once: what is cut off now must be able to tidy up.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    raise TimeUp


def _on_stop(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    raise Stopped


@contextmanager
def _logging_to(file: Path) -> Iterator[None]:
    """Let all that this process prints, C libraries included, go to a file."""
    file.parent.mkdir(exist_ok=True)
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    kept = os.dup(1), os.dup(2)
    for fd in (1, 2):
        os.dup2(log, fd)
    os.close(log)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for fd, old in zip((1, 2), kept, strict=True):
            os.dup2(old, fd)
            os.close(old)


def _work_and_log(worker: Worker, array: str, index: int) -> None:
    with _logging_to(worker.folder.log(array, index)):
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        print(f"-- {stamp} {os.uname().nodename} job {_job()}", flush=True)
        worker.work(array, index)


def _serve(worker: Worker) -> None:
    """Make the elements that come by line on standard input; answer each with a line."""
    # Ours alone: what recipes start must not hold the pipes open.
    commands, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    _die_with_parent()
    for line in commands:
        array, index = line.split()
        _work_and_log(worker, array, int(index))
        answers.write(f"{array} {index}\n")
        answers.flush()


def _die_with_parent() -> None:
    """Ask Linux for SIGTERM when the process that started this one is gone."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    pr_set_pdeathsig = 1
    parent = os.getppid()
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked
        raise Stopped


def main() -> None:
    signal.signal(signal.SIGTERM, _on_stop)
    signal.signal(signal.SIGUSR2, _on_time_up)
    folder = RunFolder(Path(sys.argv[1]))
    try:
        if sys.argv[2] == "--serve":
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is its parent's
            _serve(Worker(folder))
        else:
            at = sys.argv[3] if len(sys.argv) > 3 else os.environ["SLURM_ARRAY_TASK_ID"]
            _work_and_log(Worker(folder), sys.argv[2], int(at))
    except (Stopped, TimeUp):
        # No outcome: Slurm may start it again, or says what became of it.
        sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main()
