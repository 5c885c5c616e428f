"""The worker: runs the tasks of an array in a process of its own.

python -m saevx.dispatch.worker.main RUN ARRAY [INDEX]  one task; Slurm's variable gives its index
python -m saevx.dispatch.worker.main RUN --serve        the tasks named on standard input

It reads strings and JSON, checks in the store what they say, and writes its outcome. If it is
killed before it does, the submitter finds out what happened.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import cached_property
from pathlib import Path

from saevx.dispatch.run_folder import RunFolder
from saevx.dispatch.worker.attempt import TaskAttempt
from saevx.dispatch.worker.process import (
    Stopped,
    TimeUp,
    end_with_parent,
    job_name,
    log_to,
    raise_on_signals,
    requeue,
)
from saevx.experiments.load import copy_in, import_file
from saevx.output import replace_unencodable
from saevx.resolve.fork_guard import end_forked_children
from saevx.workspace import Workspace
from store import Store


class Worker:
    """Runs tasks of one run, one after the other."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._imported = False

    @cached_property
    def workspace(self) -> Workspace:
        info = self.folder.info
        roots = {name: Path(root) for name, root in info.data_roots.items()}
        return Workspace(Store(info.store_root, roots=info.store_roots), roots)

    def work(self, array_name: str, index: int) -> None:
        """Run a task, and write its outcome unless it is dropped, has one or is put back."""
        array = self.folder.array(array_name)
        if array is None or self.folder.is_dropped(array_name):
            print(f"{array_name} was dropped: nothing to do", flush=True)
            return
        if self.folder.outcome(array_name, index) is not None:
            return  # Slurm put the job back into the queue after it had ended
        attempt = TaskAttempt(self.folder, array, index, self.workspace)
        try:
            with end_forked_children():
                self._import_experiment()
                attempt.run()
        except TimeUp as error:
            if attempt.progressed() and requeue():
                print("the time limit is near: Slurm starts this job again, which then goes on")
                return
            attempt.finish_early(error)
        except Exception as error:
            attempt.finish_early(error)
        else:
            attempt.finish()

    def _import_experiment(self) -> None:
        """Import the experiment, if it defines spec types or recipes."""
        info = self.folder.info
        if info.experiment and not self._imported:
            # Others may be able to change run.json: code comes from the checked copy alone.
            import_file(Path(info.path), copy_in(self.folder.code, Path(info.experiment)))
            self._imported = True

    def work_with_log(self, array: str, index: int) -> None:
        with log_to(self.folder.log(array, index)):
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            print(f"-- {stamp} {os.uname().nodename} job {job_name()}", flush=True)
            self.work(array, index)


def _serve(worker: Worker) -> None:
    """Run the tasks that standard input names, one a line; answer each with a line."""
    # Processes that recipes start must not inherit these pipes, which would stay open.
    commands, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    end_with_parent()
    for line in commands:
        array, index = line.split()
        worker.work_with_log(array, int(index))
        answers.write(f"{array} {index}\n")
        answers.flush()


def main() -> None:
    replace_unencodable()
    raise_on_signals()
    worker = Worker(RunFolder(Path(sys.argv[1])))
    try:
        if sys.argv[2] == "--serve":
            # Ctrl-C in the terminal goes to the submitter too, which ends its workers.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            _serve(worker)
        else:
            index = sys.argv[3] if len(sys.argv) > 3 else os.environ["SLURM_ARRAY_TASK_ID"]
            worker.work_with_log(sys.argv[2], int(index))
    except (Stopped, TimeUp):
        # Without an outcome: Slurm starts it again, or its accounting says how it ended.
        sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main()
