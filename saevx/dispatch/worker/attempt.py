"""One attempt at a task: make its artifacts, and write its progress and outcome."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

from saevx.dispatch.messages import Array, Outcome, Progress, Result, TaskStatus
from saevx.dispatch.run_folder import RunFolder
from saevx.dispatch.worker.process import TimeUp, job_name
from saevx.errors import explain
from saevx.recipes import find_recipe
from saevx.resolve import batch
from saevx.resolve.context import Context
from saevx.resolve.plan import Node, Plan, State
from saevx.resolve.provenance import CodeVersion
from saevx.resolve.run import Listener, run_parts, run_plan
from saevx.workspace import Workspace
from spec import Artifact, Keys, from_document

PROGRESS_S = 2.0
"""Least seconds between two writes of progress."""


class TaskAttempt(Listener):
    """One attempt at a task, in this process."""

    def __init__(self, folder: RunFolder, array: Array, index: int, workspace: Workspace) -> None:
        self.folder, self.array, self.index = folder, array, index
        self.workspace, self.store = workspace, workspace.store
        self.results: dict[str, Result] = {}
        self.began = self._batch_began = time.time()
        self._written = 0.0
        self._present_before: set[tuple[str, int | None]] = set()

    def run(self) -> None:
        """Make the batches of the task, one after the other."""
        self._present_before = self._present()
        self.write_progress(0, 0, "", force=True)
        for keys in self.array.tasks[self.index]:
            self.results |= self._make(keys)
            self.write_progress(0, 0, "", force=True)

    def _make(self, wanted: list[str]) -> dict[str, Result]:
        """Make what is missing of one batch and has its inputs; only the task's parts, if any."""
        keys = Keys(self.workspace)
        results: dict[str, Result] = {}
        nodes: dict[str, Node] = {}
        for key in wanted:
            spec = from_document(self.array.documents[key])
            assert isinstance(spec, Artifact)
            if (found := self._check(spec, key, keys)) is not None:
                results[key] = found
            else:
                nodes[key] = Node(spec, key, State.TO_MAKE, "asked for")
        if not nodes:
            return results
        code = CodeVersion(**self.folder.info.origin)
        context = Context(keys, self.store, find_recipe, code)
        if parts := self.array.parts_of(self.index):
            outcome = run_parts(list(nodes.values()), parts, context, self)
        else:
            outcome = run_plan(Plan(nodes, tuple(nodes)), context, self)
        for status, made in (
            (TaskStatus.MADE, outcome.made),
            (TaskStatus.MADE_ELSEWHERE, outcome.made_elsewhere),
            (TaskStatus.PART, outcome.parts_missing),
        ):
            results |= {node.key: Result(status=status) for node in made}
        return results | {key: self._failure(error) for key, error in outcome.failed.items()}

    def _check(self, spec: Artifact, key: str, keys: Keys) -> Result | None:
        """Return the result of a spec that is not to be made; None for one that is."""
        name = type(spec).__name__
        if (found := keys.of(spec)) != key:
            text = (
                f"{name} has key {found} on this node, and {key} where it was submitted: "
                "its dataset or weights differ between the two, or changed since"
            )
            return Result(status=TaskStatus.ERROR, message=text)
        if self.store.find(spec.kind, key) is not None:
            return Result(status=TaskStatus.MADE_ELSEWHERE)
        for field, parent in spec.inputs().items():
            why = self.store.absence(parent.kind, keys.of(parent))
            if why is not None:
                text = f"its {field}, {type(parent).__name__} {keys.of(parent)}, is absent: {why}"
                return Result(status=TaskStatus.BLOCKED, message=text)
        return None

    def begin(self, nodes: list[Node]) -> batch.Progress:
        self._batch_began = time.time()
        return self.write_progress

    def write_progress(self, done: int, total: int, unit: str, force: bool = False) -> None:
        """Write how far the batch is, unless that was written a moment ago."""
        now = time.time()
        if not force and now - self._written < PROGRESS_S:
            return
        self._written = now
        wall_s = now - self._batch_began
        progress = Progress(
            host=os.uname().nodename,
            job=job_name(),
            began=self.began,
            done=done,
            total=total,
            unit=unit,
            n_made=len(self.results),
            rate=done / wall_s if wall_s > 0 else 0.0,
        )
        self.folder.write_progress(self.array.name, self.index, progress)

    def progressed(self) -> bool:
        """Return whether this attempt made something, so that the next one starts further on."""
        return bool(self._present() - self._present_before)

    def _present(self) -> set[tuple[str, int | None]]:
        """Return the task's artifacts in the store, as (key, None), and parts, as (key, part)."""
        found: set[tuple[str, int | None]] = set()
        for key in self.array.keys_of(self.index):
            kind = self.array.documents[key]["kind"]
            whole = self.store.find(kind, key) is not None
            found |= {(key, part) for part in ([None] if whole else self.store.parts(kind, key))}
        return found

    def finish(self) -> None:
        """Write the outcome, and print how each key ended."""
        statuses = {result.status for result in self.results.values()}
        outcome = Outcome(
            results=self.results,
            host=os.uname().nodename,
            job=job_name(),
            wall_s=round(time.time() - self.began, 3),
            peak_memory_bytes=_peak_memory_bytes(),
            progressed=bool(statuses & {TaskStatus.MADE, TaskStatus.PART}),
            ended=time.time(),
        )
        self.folder.write_outcome(self.array.name, self.index, outcome)
        for key, result in self.results.items():
            why = f": {result.message}" if result.message else ""
            name = self.array.documents[key]["type"]
            print(f"{name} {key}: {result.status.value}{why}", flush=True)

    def finish_early(self, why: BaseException) -> None:
        """Write the outcome of an attempt that an exception ended.

        Keys without a result get that of the exception, unless the store holds them.
        """
        made, failed = Result(status=TaskStatus.MADE), self._failure(why)
        present = self._present()
        for key in self.array.keys_of(self.index):
            self.results.setdefault(key, made if (key, None) in present else failed)
        self.finish()

    def _failure(self, error: BaseException) -> Result:
        if isinstance(error, TimeUp):
            return Result(status=TaskStatus.TIME_LIMIT)
        text = explain(error)
        if isinstance(error, MemoryError):
            held = f"its process held up to {_peak_memory_bytes() / 1e9:.1f} GB"
            text += f"\n{os.uname().nodename} gave it no more memory; {held}"
            return Result(status=TaskStatus.OUT_OF_MEMORY, message=text)
        text += missing_file_hint(error, self.folder.code)
        return Result(status=TaskStatus.ERROR, message=text)


def missing_file_hint(error: BaseException | None, code: Path) -> str:
    """Return advice if a file is missing in the copy of the code; "" for other errors."""
    while error is not None:
        if isinstance(error, FileNotFoundError | NotADirectoryError) and str(code) in str(error):
            return (
                "\njobs run a copy of the code, which lacks this file: "
                "name it in `job_files = [...]` of the experiment, as docs/dispatch.md says"
            )
        error = error.__cause__ or error.__context__
    return ""


def _peak_memory_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
