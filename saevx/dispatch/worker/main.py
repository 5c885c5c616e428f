"""The worker: makes one element of an array, in a process of its own.

python -m saevx.dispatch.worker RUN ARRAY [INDEX]    one element; Slurm says which
python -m saevx.dispatch.worker RUN --serve          elements by line on standard input

It reads strings and JSON, checks in the store whatever others have told it, and writes how it
ended. What it does not write (it was killed) is found out by who waits for it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from saevx.dispatch.code.snapshot import missing_file_hint
from saevx.dispatch.messages import Array, Outcome, Result, TaskStatus
from saevx.dispatch.run_folder import RunFolder
from saevx.dispatch.worker.attempt import TaskAttempt, out_of_memory
from saevx.dispatch.worker.process import (
    Stopped,
    TimeUp,
    die_with_parent,
    heed_signals,
    job_name,
    logging_to,
    requeue,
)
from saevx.output import take_every_text
from saevx.resolve.fork_guard import children_end_here

if TYPE_CHECKING:
    from saevx.resolve.plan import Node
    from saevx.workspace import Workspace
    from spec import Artifact, Keys


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
        turn = TaskAttempt(self.folder, array, index)
        try:
            with children_end_here():
                turn.look(self._load())
                for batch in array.tasks[index]:
                    turn.add(self._make(array, batch, array.parts_of(index), turn))
        except TimeUp:
            if turn.progressed(self._load()) and requeue():
                print("time is up; goes on where it stopped once Slurm starts it again")
                return None
            turn.add_rest(TaskStatus.TIME_LIMIT, "", self._load())
        except MemoryError as error:
            turn.add_rest(TaskStatus.OUT_OF_MEMORY, out_of_memory(error), self._load())
        except Exception as error:
            from saevx.resolve.run import explain

            told = explain(error) + missing_file_hint(error, self.folder.code)
            turn.add_rest(TaskStatus.ERROR, told, self._load())
        return turn.end()

    def _load(self) -> Workspace:
        if self._workspace is None:
            from saevx.workspace import Workspace
            from store import Store

            info = self.info
            store = Store(info.store_root, roots=info.store_roots)
            roots = {name: Path(root) for name, root in info.data_roots.items()}
            self._workspace = Workspace(store, roots)
            if info.experiment:
                from saevx.experiments.load import import_copy

                # The folder of a run may be written by others: code comes from the checked copy.
                copy = self.folder.code / "files" / Path(info.experiment).name
                import_copy(Path(info.path), copy)
        return self._workspace

    def _make(
        self, array: Array, keys_wanted: list[str], parts: list[int], turn: TaskAttempt
    ) -> dict[str, Result]:
        """Make the specs of one batch that are absent and whose inputs are there; only some parts
        of them where `parts` says which."""
        import saevx.workspace  # noqa: F401  (lets specs see the store)
        from saevx.recipes import find_recipe
        from saevx.resolve.context import Context
        from saevx.resolve.plan import Plan
        from saevx.resolve.provenance import Origin
        from saevx.resolve.run import run_parts, run_plan
        from spec import Artifact, Keys, from_document

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
            context = Context(keys, store, find_recipe, Origin.from_record(self.info.origin))
            if parts:
                outcome = run_parts(list(nodes.values()), parts, context, turn.listener())
            else:
                outcome = run_plan(Plan(nodes, tuple(nodes)), context, turn.listener())
            results |= turn.results_of(outcome)
        return results


def _node(spec: Artifact, key: str) -> Node:
    from saevx.resolve.plan import Node, State

    return Node(spec, key, State.TO_MAKE, "asked for")


def _check(spec: Artifact, key: str, keys: Keys, workspace: Workspace) -> Result | None:
    """What ends the making of a spec before it begins; None when nothing does."""
    found = keys.of(spec)
    if found != key:
        message = (
            f"{type(spec).__name__} has key {found} on this node, and {key} where it was "
            "submitted: its dataset or weights differ between the two, or changed since"
        )
        return Result(status=TaskStatus.ERROR, message=message)
    store = workspace.store
    if store.find(spec.kind, key) is not None:
        return Result(status=TaskStatus.MADE_ELSEWHERE)
    for name, parent in spec.inputs().items():
        why = store.absence(parent.kind, keys.of(parent))
        if why is not None:
            text = f"its {name}, {type(parent).__name__} {keys.of(parent)}, is absent: {why}"
            return Result(status=TaskStatus.BLOCKED, message=text)
    return None


def _work_and_log(worker: Worker, array: str, index: int) -> None:
    with logging_to(worker.folder.log(array, index)):
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        print(f"-- {stamp} {os.uname().nodename} job {job_name()}", flush=True)
        worker.work(array, index)


def _serve(worker: Worker) -> None:
    """Make the elements that come by line on standard input; answer each with a line."""
    # Ours alone: what recipes start must not hold the pipes open.
    commands, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    die_with_parent()
    for line in commands:
        array, index = line.split()
        _work_and_log(worker, array, int(index))
        answers.write(f"{array} {index}\n")
        answers.flush()


def main() -> None:
    take_every_text()
    heed_signals()
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
