"""Leases: which process makes which artifact. They save work; publishing is safe without them.

A lease is a folder, created by mkdir, that holds an owner file. It is removed by one rename, by its
owner or by a process that found the owner dead. How that is judged: store/locks/liveness.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from store.errors import StoreError
from store.io import explained, list_folder, make_folders, write_new
from store.layout import is_key, leases, owner_file
from store.locks import liveness, slurm
from store.locks.heartbeat import heartbeats
from store.locks.liveness import may_be_alive, server_time
from store.locks.process import ProcessId
from store.trash.move import delete, move_to_trash

_TRIES = 10


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
    """Id of the Slurm job that the process runs in."""
    restarts: str | None
    """How often that job had been requeued."""

    @classmethod
    def here(cls) -> LeaseFile:
        """Return the content for this process, with a fresh token."""
        job, restarts = slurm.this_job() or (None, None)
        return cls(os.urandom(8).hex(), *ProcessId.here(), job, restarts)

    @property
    def process(self) -> ProcessId:
        return ProcessId(self.host, self.boot, self.namespace, self.pid, self.started)


class LeaseOwner(NamedTuple):
    """Who holds a lease, and whether that process may be alive."""

    kind: str
    key: str
    file: LeaseFile | None
    """None while the owner file is missing or incomplete."""
    age_s: float | None
    """Seconds since the last heartbeat; None where the file server's clock cannot be read."""
    may_be_alive: bool

    @property
    def token(self) -> str | None:
        return self.file.token if self.file else None

    def __str__(self) -> str:
        if self.file is None:
            return "a process that has just begun"
        job = f", Slurm job {self.file.job}" if self.file.job else ""
        return f"{self.file.host} (process {self.file.pid}{job})"


class Lease:
    """The right to make one artifact, as long as this process lives. A context manager."""

    def __init__(self, root: Path, kind: str, key: str, token: str) -> None:
        self.kind, self.key, self.token = kind, key, token
        self.path = leases(root, kind) / key
        self._root = root
        self._pid = os.getpid()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"Lease({self.kind}/{self.key})"

    @property
    def lost(self) -> bool:
        """Whether it was released, or broken by another process. Reads the owner file."""
        return _token(self.path) != self.token

    def release(self) -> None:
        """Release the lease. Safe to call again, and without effect in a forked child.

        A lease that cannot be removed stays; others break it when this process has ended.
        """
        if os.getpid() != self._pid:
            return
        heartbeats.remove(self)
        if not self.lost:
            with suppress(StoreError):
                _remove(self._root, self.kind, self.key, self.token)

    def beat(self) -> None:
        """Touch the owner file, unless the lease was lost."""
        if not self.lost:
            with suppress(OSError):  # the next beat may succeed
                os.utime(owner_file(self.path))


def acquire(root: Path, kind: str, key: str) -> Lease | None:
    """Return the lease of a key; None while another process that may be alive holds it.

    Raises StoreError where leases cannot be created.
    """
    folder = leases(root, kind)
    make_folders(folder)
    for _ in range(_TRIES):
        if token := _create(root, kind, key):
            lease = Lease(root, kind, key, token)
            heartbeats.add(lease)
            return lease
        owner = read_lease(folder / key, kind, server_time(folder))
        if owner is None:
            continue  # released meanwhile
        if owner.may_be_alive:
            return None
        _remove(root, kind, key, owner.token)
    return None  # other processes keep breaking and acquiring it, so one of them has it


def find(root: Path, kind: str, keys: Iterable[str] | None = None) -> Iterator[LeaseOwner]:
    """Yield the owners of the leases of a kind; only those of `keys` if given."""
    folder = leases(root, kind)
    names = [name for name in list_folder(folder) if is_key(name)]
    chosen = names if keys is None else sorted(set(keys) & set(names))
    now = server_time(folder) if chosen else None
    for key in chosen:
        if owner := read_lease(folder / key, kind, now):
            yield owner


def is_ours(root: Path, kind: str, key: str) -> bool:
    """Whether this process holds the lease, so that it must not wait for it."""
    return heartbeats.beats_for(leases(root, kind) / key)


def remove_dead(root: Path, owner: LeaseOwner) -> None:
    """Remove the lease of a dead owner, unless another process has acquired it meanwhile."""
    if not owner.may_be_alive:
        _remove(root, owner.kind, owner.key, owner.token)


def read_lease(lease: Path, kind: str, now: float | None) -> LeaseOwner | None:
    """Return the owner of a lease; None where there is none. `now` is the file server's time."""
    file, heartbeat = read_lease_file(lease)
    if heartbeat is None:
        try:
            heartbeat = os.stat(lease).st_mtime
        except OSError:
            return None
    age_s = None if now is None else max(0.0, now - heartbeat)
    if file is None:
        alive = may_be_alive(None, lambda: age_s, liveness.INCOMPLETE_S)
    else:
        job = (file.job, file.restarts) if file.job is not None else None
        alive = may_be_alive(file.process, lambda: age_s, liveness.STALE_S, job)
    return LeaseOwner(kind, lease.name, file, age_s, alive)


def read_lease_file(lease: Path) -> tuple[LeaseFile | None, float | None]:
    """Return the owner file and the time of its last heartbeat; None for what cannot be read."""
    heartbeat = None
    try:
        # Opening makes NFS ask its server for the time of change; a stat may be cached.
        with open(owner_file(lease), "rb") as file:
            heartbeat = os.fstat(file.fileno()).st_mtime
            return msgspec.json.decode(file.read(), type=LeaseFile), heartbeat
    except (OSError, msgspec.DecodeError):
        return None, heartbeat


def _token(lease: Path) -> str | None:
    file, _ = read_lease_file(lease)
    return file.token if file else None


def _create(root: Path, kind: str, key: str) -> str | None:
    """Create a lease and return its token; None where there is one already."""
    file, path = LeaseFile.here(), leases(root, kind) / key
    with explained("take the lease", path):
        try:
            os.mkdir(path)
        except FileExistsError:
            return None
        try:
            # Exclusive: should this process sleep here until others take the lease for incomplete
            # and create it anew, the first to write this file owns it.
            write_new(owner_file(path), msgspec.json.encode(file))
        except (FileExistsError, FileNotFoundError):
            return None
        except OSError:
            _remove(root, kind, key, None)
            raise
    return file.token


def _remove(root: Path, kind: str, key: str, token: str | None) -> None:
    """Remove the lease with this token (None for an incomplete one), and no other.

    Another lease is put back. Should a third process acquire the key meanwhile, the second has lost
    its lease, and `lost` says so.
    """
    path = leases(root, kind) / key
    target = move_to_trash(
        root, kind, key, path, lambda moved: _token(moved) == token, "remove the lease"
    )
    if target is not None:
        delete(target)
