"""Leases: who is making what. Advice that saves work; publishing is safe without it.

A lease is a folder, made by mkdir, that holds an owner file. It ends by being renamed away, by its
holder or by a process that found the holder dead.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from store.errors import StoreError
from store.io import explained, make_folders, write_new
from store.layout import is_key, leases, owner_file
from store.locks.heartbeat import heartbeats
from store.locks.liveness import server_time
from store.locks.owner import LeaseFile, LeaseOwner, find_lease_owner, read_lease_file
from store.trash.move import delete, move_to_trash

_TRIES = 10


class Lease:
    """The right to make one artifact, as long as its process lives. A context manager."""

    def __init__(self, root: Path, kind: str, key: str, token: str) -> None:
        self.kind, self.key, self.token = kind, key, token
        self.path = leases(root, kind) / key
        self._root = root
        self._pid = os.getpid()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"Lease({self.kind}/{self.key})"

    @property
    def lost(self) -> bool:
        """Whether it is held no longer: released, or broken by another. Looks at the disk."""
        claimant = read_lease_file(self.path)
        return claimant is None or claimant.token != self.token

    def release(self) -> None:
        """Gives it up. Safe to call again, and does nothing in a forked child.

        A lease that cannot be removed is left behind; others break it when this process ends.
        """
        if os.getpid() != self._pid:
            return
        heartbeats.remove(self)
        if not self.lost:
            with suppress(StoreError):
                _take_away(self._root, self.kind, self.key, self.token)

    def beat(self) -> None:
        """Shows that this process lives, unless the lease is another's by now."""
        if not self.lost:
            with suppress(OSError):  # the next beat may succeed
                os.utime(owner_file(self.path))


def take(root: Path, kind: str, key: str) -> Lease | None:
    """The lease of a key; None while another that may be alive holds it.

    Raises StoreError where leases cannot be made.
    """
    folder = leases(root, kind)
    make_folders(folder)
    for _ in range(_TRIES):
        if token := _make(root, kind, key):
            lease = Lease(root, kind, key, token)
            heartbeats.add(lease)
            return lease
        holder = find_lease_owner(folder / key, kind, server_time(folder))
        if holder is None:
            continue  # released meanwhile
        if holder.may_be_alive:
            return None
        _take_away(root, kind, key, holder.token)
    return None  # others break and take it all the time, so one of them has it


def find(root: Path, kind: str, keys: Iterable[str] | None = None) -> Iterator[LeaseOwner]:
    """The leases of a kind, as they stand; only those of `keys` if given."""
    folder = leases(root, kind)
    with explained("list", folder):
        try:
            names = sorted(filter(is_key, os.listdir(folder)))
        except FileNotFoundError:
            return
    keys = names if keys is None else sorted(set(keys) & set(names))
    if not keys:
        return
    now = server_time(folder)
    for key in keys:
        holder = find_lease_owner(folder / key, kind, now)
        if holder is not None:
            yield holder


def is_ours(root: Path, kind: str, key: str) -> bool:
    """Whether this process holds the lease, so that it must not wait for it."""
    return heartbeats.beats_for(leases(root, kind) / key)


def remove_dead(root: Path, holder: LeaseOwner) -> None:
    """Removes a lease whose holder was found dead, unless it is another's by now."""
    if not holder.may_be_alive:
        _take_away(root, holder.kind, holder.key, holder.token)


def _make(root: Path, kind: str, key: str) -> str | None:
    """Makes a lease; its token, or None when there is one already."""
    claimant = LeaseFile.here()
    path = leases(root, kind) / key
    with explained("take the lease", path):
        try:
            os.mkdir(path)
        except FileExistsError:
            return None
        try:
            # Exclusive: should this process sleep here for so long that others take the lease for
            # half made and make it anew, then the first to write this file holds it.
            write_new(owner_file(path), msgspec.json.encode(claimant))
        except (FileExistsError, FileNotFoundError):
            return None
        except OSError:
            _take_away(root, kind, key, None)
            raise
    return claimant.token


def _take_away(root: Path, kind: str, key: str, token: str | None) -> None:
    """Removes the lease that has this token (none if it was half made), and no other.

    Should a third take it while that of a second is put back, then the second has lost its lease,
    and may see so.
    """

    def is_meant(moved: Path) -> bool:
        claimant = read_lease_file(moved)
        return (claimant.token if claimant else None) == token

    target = move_to_trash(root, kind, key, leases(root, kind) / key, is_meant, "remove the lease")
    if target is not None:
        delete(target)
