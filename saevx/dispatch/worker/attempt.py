"""A worker's turn at one element: what has become of its keys so far, and how far it is."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from saevx.dispatch.code.snapshot import missing_file_hint
from saevx.dispatch.messages import Array, Outcome, Progress, Result, TaskStatus
from saevx.dispatch.run_folder import RunFolder
from saevx.dispatch.worker.process import job_name

if TYPE_CHECKING:
    from saevx.resolve.plan import Node
    from saevx.workspace import Workspace

PROGRESS_S = 2.0
"""Seconds between two writings of how far it is."""


class TaskAttempt:
    """One go at an element: what has become of its keys so far."""

    def __init__(self, folder: RunFolder, array: Array, index: int) -> None:
        self.folder, self.array, self.index = folder, array, index
        self.results: dict[str, Result] = {}
        self.began = time.time()
        self._at_begin: set[tuple[str, int | None]] = set()
        self.batch_began = 0.0
        self._written = 0.0
        self.show(0, 0, "", force=True)

    @property
    def keys(self) -> list[str]:
        return [key for batch in self.array.tasks[self.index] for key in batch]

    def look(self, workspace: Workspace) -> None:
        """Note what is there before anything is made."""
        self._at_begin = self._there(workspace)

    def add(self, results: dict[str, Result]) -> None:
        self.results |= results
        self.show(0, 0, "", force=True)

    def add_rest(self, end: TaskStatus, message: str, workspace: Workspace) -> None:
        """What has no result yet is in the store, or ended so."""
        for key in self.keys:
            if key not in self.results:
                made = self._is_made(key, workspace)
                self.results[key] = (
                    Result(status=TaskStatus.MADE) if made else Result(status=end, message=message)
                )

    def progressed(self, workspace: Workspace) -> bool:
        """Whether a later go begins further on than this one did."""
        return bool(self._there(workspace) - self._at_begin)

    def _there(self, workspace: Workspace) -> set[tuple[str, int | None]]:
        """What is made of its keys: whole artifacts, and parts of others."""
        found: set[tuple[str, int | None]] = set()
        for key in self.keys:
            if self._is_made(key, workspace):
                found.add((key, None))
            else:
                kind = self.array.documents[key]["kind"]
                found |= {(key, part) for part in workspace.store.parts(kind, key)}
        return found

    def _is_made(self, key: str, workspace: Workspace) -> bool:
        return workspace.store.find(self.array.documents[key]["kind"], key) is not None

    def results_of(self, outcome: Any) -> dict[str, Result]:
        from saevx.resolve.run import explain

        results = {node.key: Result(status=TaskStatus.MADE) for node in outcome.made}
        results |= {node.key: Result(status=TaskStatus.MADE_ELSEWHERE) for node in outcome.came}
        results |= {node.key: Result(status=TaskStatus.PART) for node in outcome.partly}
        for key, error in outcome.failed.items():
            if isinstance(error, MemoryError):
                results[key] = Result(status=TaskStatus.OUT_OF_MEMORY, message=out_of_memory(error))
            else:
                told = explain(error) + missing_file_hint(error, self.folder.code)
                results[key] = Result(status=TaskStatus.ERROR, message=told)
        return results

    def listener(self) -> Any:
        from saevx.resolve.run import Listener

        turn = self

        class _Writing(Listener):
            def begin(self, nodes: list[Node]) -> Any:
                turn.batch_began = time.time()
                return turn.show

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
            job=job_name(),
            began=self.began,
            done=done,
            total=total,
            unit=unit,
            n_made=len(self.results),
            rate=done / wall_s if done and wall_s > 0 else 0.0,
        )
        self.folder.write_progress(self.array.name, self.index, progress)

    def end(self) -> Outcome:
        ends = {result.status for result in self.results.values()}
        outcome = Outcome(
            results=self.results,
            host=os.uname().nodename,
            job=job_name(),
            wall_s=round(time.time() - self.began, 3),
            peak_memory_bytes=_peak_memory_bytes(),
            progressed=bool(ends & {TaskStatus.MADE, TaskStatus.PART}),
            ended=time.time(),
        )
        self.folder.write_outcome(self.array.name, self.index, outcome)
        for key, result in self.results.items():
            told = f": {result.message}" if result.message else ""
            print(
                f"{self.array.documents[key]['type']} {key}: {result.status.value}{told}",
                flush=True,
            )
        return outcome


def out_of_memory(error: MemoryError) -> str:
    """What a process that was refused memory was at, and how much it had."""
    from saevx.resolve.run import explain

    held = f"its process held up to {_peak_memory_bytes() / 1e9:.1f} GB"
    return f"{explain(error)}\n{os.uname().nodename} gave it no more memory; {held}"


def _peak_memory_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
