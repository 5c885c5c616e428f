"""Is a process alive? The one answer for leases, builds, records of runs, collections, local runs.

Evidence, the surest first:

1. The process table, where it is the one that the process is in: on the same host, in the same boot
   and process namespace (`ProcessId.runs`).
2. Slurm. A job that was put back into the queue runs none of its earlier processes. A job that has
   ended shortens the time in 3; one that runs lengthens it.
3. The age of the last heartbeat, by the file server's clock.

What nothing shows to be dead may be alive: others wait for it and remove nothing of it.

A host of our name with another boot id is either this machine before it was restarted, or a second
machine of the same name. No id tells which: machines cloned from one image, which often share a
name, share the machine id, too. So a process there is judged by its heartbeat, like any other.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from store.layout import clock_file
from store.locks import slurm
from store.locks.heartbeat import BEAT_S
from store.locks.process import ProcessId

LOST_S = 7 * 86400.0
"""Default age of the last heartbeat at which a process counts as dead."""

RESTARTED_S = 3600.0
"""The same on a host of our name in another boot, which most often is this one before a restart."""

STALE_S = 5 * BEAT_S
"""The same for the holder of a lease: what it holds is wanted, and breaking it costs little."""

STALE_IN_JOB_S = 20 * BEAT_S
"""The same while its Slurm job runs: the process may have died in a job that goes on."""

ENDED_S = 2 * BEAT_S
"""The same when Slurm knows no such job as running: the id may be one of another cluster's."""


def may_be_alive(
    owner: ProcessId | None,
    age_s: Callable[[], float | None] = lambda: None,
    patience_s: float = LOST_S,
    job: tuple[str, str | None] | None = None,
) -> bool:
    """Whether a process may be alive; False only where it is known, or must be taken, to be dead.

    `age_s` tells the seconds since its last heartbeat, or None where they are not known; it is
    asked only where no surer evidence exists. `job` is the Slurm job that the process runs in, and
    how often that had been put back into the queue.
    """
    runs = owner.runs() if owner else None
    if runs is not None:
        return runs
    if job is not None:
        ours = slurm.this_job()
        if ours and ours[0] == job[0] and ours[1] != job[1]:
            return False
        patience_s = {True: STALE_IN_JOB_S, False: ENDED_S, None: patience_s}[
            slurm.job_runs(job[0])
        ]
    if owner and owner.is_of_another_boot():
        patience_s = min(patience_s, RESTARTED_S)
    age = age_s()
    return age is None or age <= patience_s


def age_of(path: Path, clock: Path | None = None) -> float | None:
    """Seconds since a file or folder was last touched; None where they cannot be known.

    By the file server's clock, read in the folder `clock`, or in the one that `path` lies in.
    """
    now = server_time(clock or path.parent)
    try:
        return None if now is None else now - path.stat().st_mtime
    except OSError:
        return None


def server_time(folder: Path) -> float | None:
    """The file server's time: that of a file in `folder`, just touched. None if not permitted.

    Clocks of hosts differ; the times of files on one server do not.
    """
    try:
        fd = os.open(clock_file(folder), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            os.utime(fd)
            return os.fstat(fd).st_mtime
        finally:
            os.close(fd)
    except OSError:
        return None
