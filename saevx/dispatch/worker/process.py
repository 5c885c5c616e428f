"""The process of a worker: its signals, its job, its log and its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from store.errors import NoAnswer
from store.locks.slurm import ask

PR_SET_PDEATHSIG = 1


class TimeUp(BaseException):
    """The time limit of the job is near, or the job is about to be preempted."""


class Stopped(BaseException):
    """The job is cancelled or preempted."""


def job_name() -> str:
    """Return the job of this process for people: Slurm's id, else the process id."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else str(os.getpid())


def requeue() -> bool:
    """Put this job back into Slurm's queue. Return whether that succeeded."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return False
    try:
        ask("scontrol", "requeue", job)
    except NoAnswer as error:
        print(f"cannot put job {job} back into the queue: {error}", flush=True)
        return False
    return True


def raise_on_signals() -> None:
    """Let SIGUSR2 raise TimeUp, and SIGTERM raise Stopped."""
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, _raise)


def _raise(number: int, *_: Any) -> None:
    # Only the first of each, so that the code that is interrupted can clean up.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if number == signal.SIGUSR2:
        raise TimeUp
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped


@contextmanager
def log_to(file: Path) -> Iterator[None]:
    """Send all that this process prints, C libraries included, to the end of a file."""
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


def end_with_parent() -> None:
    """Ask Linux to send SIGTERM when the process that started this one ends."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the call
        raise Stopped
