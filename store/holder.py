"""Who holds a lease, and whether that process still lives."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import msgspec

from store import slurm
from store.heart import BEAT_S
from store.layout import clock_file, owner_file
from store.owner import Life, Owner

STALE_S = 5 * BEAT_S
"""A holder that nothing else is known of is dead when its heartbeat is older than this."""

STALE_IN_JOB_S = 20 * BEAT_S
"""The same while its Slurm job runs: the process may have died in a job that goes on."""

ENDED_S = 2 * BEAT_S
"""The same when Slurm knows no such job as running: the id may be one of another cluster's."""

HALF_MADE_S = 30.0
"""A lease without an owner file is one whose maker was killed, when it is older than this."""


class Claimant(msgspec.Struct, frozen=True):
    """The content of an owner file."""

    token: str
    """Fresh for every lease."""
    host: str
    boot: str
    namespace: str
    pid: int
    started: str
    job: str | None
    """Id of its Slurm job."""
    restarts: str | None
    """How often that job had been put back into the queue."""

    @classmethod
    def here(cls) -> Claimant:
        """This process, with a fresh token."""
        job, restarts = slurm.this_job() or (None, None)
        return cls(os.urandom(8).hex(), *Owner.here(), job, restarts)

    @property
    def owner(self) -> Owner:
        return Owner(self.host, self.boot, self.namespace, self.pid, self.started)


class Holder(NamedTuple):
    """A lease as it was found."""

    kind: str
    key: str
    claimant: Claimant | None
    """None when the lease is half made."""
    age_s: float | None
    """Seconds since the last heartbeat; None where the file server's clock cannot be read."""
    life: Life

    @property
    def token(self) -> str | None:
        return self.claimant.token if self.claimant else None

    def __str__(self) -> str:
        if self.claimant is None:
            return "a process that has just begun"
        job = f", Slurm job {self.claimant.job}" if self.claimant.job else ""
        return f"{self.claimant.host} (process {self.claimant.pid}{job})"


def read_claimant(lease: Path) -> Claimant | None:
    """What a lease's owner file says; None where there is none, or not all of it."""
    try:
        return msgspec.json.decode(owner_file(lease).read_bytes(), type=Claimant)
    except (OSError, msgspec.DecodeError):
        return None


def find_holder(lease: Path, kind: str, now: float | None) -> Holder | None:
    """Who holds the lease; None when nobody does. `now` is the file server's time."""
    claimant, beat = None, None
    try:
        # Opening makes NFS ask its server for the time of change, where a stat may be from a cache.
        with open(owner_file(lease), "rb") as file:
            beat = os.fstat(file.fileno()).st_mtime
            claimant = msgspec.json.decode(file.read(), type=Claimant)
    except (OSError, msgspec.DecodeError):
        pass
    if beat is None:
        try:
            beat = os.stat(lease).st_mtime
        except OSError:
            return None
    age_s = None if now is None else max(0.0, now - beat)
    return Holder(kind, lease.name, claimant, age_s, judge(claimant, age_s))


def judge(claimant: Claimant | None, age_s: float | None) -> Life:
    """Whether the holder of a lease lives, by the surest sign that there is."""
    if claimant is None:
        return Life.UNKNOWN if age_s is None or age_s <= HALF_MADE_S else Life.DEAD
    seen = claimant.owner.life()
    if seen is not Life.UNKNOWN:
        return seen
    runs = None
    if claimant.job is not None:
        ours = slurm.this_job()
        if ours and ours[0] == claimant.job and ours[1] != claimant.restarts:
            return Life.DEAD  # this very job, before it was put back into the queue
        runs = slurm.job_runs(claimant.job)
    if age_s is None:
        return Life.ALIVE if runs else Life.UNKNOWN
    patience_s = {True: STALE_IN_JOB_S, False: ENDED_S, None: STALE_S}[runs]
    return Life.ALIVE if age_s <= patience_s else Life.DEAD


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
