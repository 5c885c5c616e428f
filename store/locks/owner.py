"""Who holds a lease, and whether that process still lives."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import msgspec

from store.layout import owner_file
from store.locks import slurm
from store.locks.liveness import STALE_S, may_be_alive
from store.locks.process import ProcessId

HALF_MADE_S = 30.0
"""A lease without an owner file is one whose maker was killed, when it is older than this."""


class LeaseFile(msgspec.Struct, frozen=True):
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
    def here(cls) -> LeaseFile:
        """This process, with a fresh token."""
        job, restarts = slurm.this_job() or (None, None)
        return cls(os.urandom(8).hex(), *ProcessId.here(), job, restarts)

    @property
    def owner(self) -> ProcessId:
        return ProcessId(self.host, self.boot, self.namespace, self.pid, self.started)

    @property
    def slurm_job(self) -> tuple[str, str | None] | None:
        return (self.job, self.restarts) if self.job is not None else None


class LeaseOwner(NamedTuple):
    """A lease as it was found."""

    kind: str
    key: str
    claimant: LeaseFile | None
    """None when the lease is half made."""
    age_s: float | None
    """Seconds since the last heartbeat; None where the file server's clock cannot be read."""
    may_be_alive: bool

    @property
    def token(self) -> str | None:
        return self.claimant.token if self.claimant else None

    def __str__(self) -> str:
        if self.claimant is None:
            return "a process that has just begun"
        job = f", Slurm job {self.claimant.job}" if self.claimant.job else ""
        return f"{self.claimant.host} (process {self.claimant.pid}{job})"


def read_lease_file(lease: Path) -> LeaseFile | None:
    """What a lease's owner file says; None where there is none, or not all of it."""
    try:
        return msgspec.json.decode(owner_file(lease).read_bytes(), type=LeaseFile)
    except (OSError, msgspec.DecodeError):
        return None


def find_lease_owner(lease: Path, kind: str, now: float | None) -> LeaseOwner | None:
    """Who holds the lease; None when nobody does. `now` is the file server's time."""
    claimant, beat = None, None
    try:
        # Opening makes NFS ask its server for the time of change, where a stat may be from a cache.
        with open(owner_file(lease), "rb") as file:
            beat = os.fstat(file.fileno()).st_mtime
            claimant = msgspec.json.decode(file.read(), type=LeaseFile)
    except (OSError, msgspec.DecodeError):
        pass
    if beat is None:
        try:
            beat = os.stat(lease).st_mtime
        except OSError:
            return None
    age_s = None if now is None else max(0.0, now - beat)
    if claimant is None:
        alive = may_be_alive(None, lambda: age_s, HALF_MADE_S)
    else:
        alive = may_be_alive(claimant.owner, lambda: age_s, STALE_S, claimant.slurm_job)
    return LeaseOwner(kind, lease.name, claimant, age_s, alive)
