"""The process of a worker: its signals, its job, its log and its parent."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from store.errors import NoAnswer
from store.locks.slurm import ask


class TimeUp(BaseException):
    """The time limit of the job is near, or it is about to be preempted."""


class Stopped(BaseException):
    """The job is cancelled, or taken away."""


def job_name() -> str:
    """The job of this process, for people: Slurm's, else the number of the process."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else str(os.getpid())


def requeue() -> bool:
    """Put this job back into Slurm's queue; False where there is no Slurm to do it."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return False
    try:
        ask("scontrol", "requeue", job)
    except NoAnswer as error:
        print(f"cannot put job {job} back into the queue: {error}", flush=True)
        return False
    return True


def heed_signals() -> None:
    """Let SIGUSR2 raise TimeUp, and SIGTERM raise Stopped."""
    signal.signal(signal.SIGTERM, _on_stop)
    signal.signal(signal.SIGUSR2, _on_time_up)


def _on_time_up(*_: Any) -> None:
    # Once: what is cut off now must be able to tidy up.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    raise TimeUp


def _on_stop(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    raise Stopped


@contextmanager
def logging_to(file: Path) -> Iterator[None]:
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


def die_with_parent() -> None:
    """Ask Linux for SIGTERM when the process that started this one is gone."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    pr_set_pdeathsig = 1
    parent = os.getppid()
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked
        raise Stopped
