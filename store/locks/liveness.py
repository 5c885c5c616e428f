"""Judge whether a process may be alive: for leases, drafts, records of runs and collections.

Evidence, the strongest first:

1. The process table, for a process on this host, in this boot and process namespace
   (`ProcessId.runs`).
2. Slurm. A requeued job runs none of its earlier processes. If the job has ended, the limit in 3 is
   shorter; if it runs, the limit is longer.
3. The age of the last heartbeat, by the file server's clock, against a limit.

A process without evidence of its death counts as alive: others wait for it and remove nothing that
belongs to it.

A host with our name and another boot id is either this machine before a restart, or a second
machine with the same name. No id tells them apart: machines cloned from one image, which often
share a name, share the machine id as well. So such a process is judged by its heartbeat.
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
"""Default limit: a process whose last heartbeat is older than this counts as dead."""

RESTARTED_S = 3600.0
"""Limit on a host with our name in another boot, most often this host before a restart."""

STALE_S = 5 * BEAT_S
"""Limit for the owner of a lease: others wait for it, and breaking a lease costs little."""

INCOMPLETE_S = 30.0
"""Limit for a lease without an owner file: its process was killed while it created the lease."""

STALE_IN_JOB_S = 20 * BEAT_S
"""Limit while its Slurm job runs: the process may have died although its job continues."""

ENDED_S = 2 * BEAT_S
"""Limit when Slurm knows no such running job: the id may be from another cluster."""


def may_be_alive(
    owner: ProcessId | None,
    age_s: Callable[[], float | None] = lambda: None,
    limit_s: float = LOST_S,
    job: tuple[str, str | None] | None = None,
) -> bool:
    """Return whether a process may be alive, by the evidence listed above.

    `age_s` returns the seconds since its last heartbeat, None where unknown; it is called only
    where no stronger evidence exists. `limit_s` is the age at which the process counts as dead.
    `job` is the id of its Slurm job, and how often that had been requeued.
    """
    runs = owner.runs() if owner else None
    if runs is not None:
        return runs
    if job is not None:
        ours = slurm.this_job()
        if ours and ours[0] == job[0] and ours[1] != job[1]:
            return False
        limits_s = {True: STALE_IN_JOB_S, False: ENDED_S, None: limit_s}
        limit_s = limits_s[slurm.job_runs(job[0])]
    if owner and owner.is_of_another_boot():
        limit_s = min(limit_s, RESTARTED_S)
    age = age_s()
    return age is None or age <= limit_s


def age_of(path: Path, clock: Path | None = None) -> float | None:
    """Return the seconds since a file or folder was last touched; None where unknown.

    By the file server's clock, read in the folder `clock`, or in the parent of `path`.
    """
    now = server_time(clock or path.parent)
    try:
        return None if now is None else now - path.stat().st_mtime
    except OSError:
        return None


def server_time(folder: Path) -> float | None:
    """Return the file server's time by touching a file in `folder`; None without permission.

    The clocks of hosts differ; the times of files on one server can be compared.
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
