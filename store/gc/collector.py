"""The sweep phase of a collection: moves to the trash what is stale, while runs go on beside it.

The protocol, with the race that each step prevents. There is no lock, since a run must never wait
for a process that is gone.

A run, before it asks the store for anything:
  R1  records everything that it wants, targets and all that they are made from
      (`RunRecording.want`). If it asked first, it could find an artifact present, and so not make
      it, and a collection that saw no record yet would move the artifact.
  R2  looks for announcements of live collections, and waits until they are withdrawn
      (`wait_for_collectors`).
  R3  asks the store, and makes what is absent.

A collection, for as many items at a time as take a fraction of a second:
  C1  announces itself by a file. This file and the record of R1 are each written before the other
      side's is read. So of a run and a collection that begin at the same moment, at least one sees
      the other: either the collection keeps what the run wants, or the run asks the store only
      after the moves, finds the artifact absent, and makes it.
  C2  reads everything again: records, pins, leases, builds, new artifacts and their ages. Hours
      may have passed since a person confirmed the list of stale items.
  C3  moves each item by one rename. It compares the inode of what was moved with what was found
      stale, and puts it back if they differ: a whole artifact may have replaced a damaged one. If
      the announcement is older than ANNOUNCED_S, it goes back to C1: this process was suspended,
      and runs no longer wait for it.
  C4  reads all records once more, and puts back what a run wants by now. This is a second safety
      net, for file systems on which one host sees another's files late, so that both sides can
      miss each other in C1.
  C5  withdraws the announcement, and at the end removes what killed processes left behind
      (store/gc/cleanup.py).

A network file system may list a folder as it was some seconds ago, even when the other host has
already written to it. A client drops such a listing when it creates a file in the folder itself.
So R2, C2 and C4 create a scratch file in each folder before they list it (`drop_listing`).

The third safety net is the grace period: new artifacts are never moved. The fourth is the run
itself: it plans again when an input is gone that it is about to open (saevx/session.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from store.artifact.manifest import Manifest
from store.errors import StoreError
from store.gc.cleanup import clean_up
from store.gc.evicted import keep_manifest
from store.gc.reachability import Reachability, Stale, StaleReason
from store.gc.records import record_folders, roots_of
from store.io import explained, make_folders, names_in, write_new
from store.layout import Ref, collectors
from store.locks import lease as leases
from store.locks.liveness import age_of, may_be_alive
from store.locks.process import ProcessId
from store.network_caches import drop_listing, stat_opened
from store.store import Store
from store.trash import contents as trash
from store.trash.move import identity_of, move_to_trash_if_same, put_back

MOVING_S = 0.25
"""Time for moves in one round. A run waits little longer than this."""

ANNOUNCED_S = 20.0
"""A collection does not rely on its own announcement when it is older than this."""

MAX_SLOW_ROUNDS = 3
"""Stop after so many rounds in a row in which reading the store took longer than ANNOUNCED_S."""

PATIENCE_S = 60.0
"""Runs do not wait for an announcement older than this: its process was killed on a host that
cannot be asked, or was suspended, and will announce itself again."""


@dataclass
class Collected:
    """The outcome of a collection."""

    moved: list[Stale] = field(default_factory=list)
    spared: list[tuple[Stale, str]] = field(default_factory=list)
    """Items that were no longer stale when they were to be moved, and why."""
    failed: list[tuple[Stale, str]] = field(default_factory=list)
    """Items that could not be moved, and why."""


def collect(
    reach: Reachability,
    stale: Sequence[Stale],
    progress: Callable[[int, int], None] | None = None,
) -> Collected:
    """Move to the trash what is still stale. `progress` is called with (done, total).

    Raises StoreError when something cannot be read that may keep other artifacts. What was moved
    by then is in the trash.
    """
    done = Collected()
    left = list(reversed(stale))
    n_slow = 0
    while left:
        before = len(left)
        with _announced(reach.store) as began:
            _refresh(reach)
            wanted = reach.not_evictable()
            moved: list[tuple[Stale, Path]] = []
            end = min(time.monotonic() + MOVING_S, began + ANNOUNCED_S)
            try:
                while left and time.monotonic() < end:
                    _collect_one(reach, left.pop(), wanted, done, moved)
            finally:  # also when it is interrupted by hand
                _refresh(reach)
                _put_back_wanted(reach, done, moved)
        # One slow round is normal: it waited until a cache expired.
        n_slow = n_slow + 1 if len(left) == before else 0
        if n_slow == MAX_SLOW_ROUNDS:
            raise StoreError(
                f"reading {reach.store.root} takes longer than {ANNOUNCED_S:g} s, so no run can "
                "wait for it: nothing more was moved. Try again when the file system is less busy"
            )
        if progress:
            progress(len(stale) - len(left), len(stale))
    clean_up(reach, PATIENCE_S)
    return done


def evictable(
    reach: Reachability, kind: str, cannot: Callable[[Manifest], str | None]
) -> tuple[list[Stale], list[tuple[Ref, int, str]]]:
    """Return what may be evicted of a kind: reachable artifacts that can be made again.

    `cannot` says why one cannot be made again, or None. The second list has the artifacts that
    are kept, with their sizes in bytes and the reasons.
    """
    wanted = reach.not_evictable()
    evict: list[Stale] = []
    keep: list[tuple[Ref, int, str]] = []
    for one in reach.artifacts.values():
        if one.ref[0] != kind or one.fault or one.ref not in reach.reachable:
            continue
        found = reach.store.find(*one.ref)
        if found is None:
            continue
        if why_not := wanted.get(one.ref) or cannot(found.manifest):
            keep.append((one.ref, one.n_bytes, why_not))
        else:
            detail = f"although needed: {reach.reachable[one.ref].root}"
            evict.append(Stale.of(one, StaleReason.EVICTED, detail))
    return evict, keep


def empty_trash(
    store: Store, which: Sequence[trash.TrashEntry]
) -> Iterator[tuple[trash.TrashEntry, int]]:
    """Delete entries of the trash for good. Yield each once it is gone, with its bytes.

    Waits until other collections have finished step C4: they may put back what they just moved.
    """
    wait_for_collectors(store)
    yield from trash.empty(which)


def wait_for_collectors(store: Store, waiting: Callable[[], None] | None = None) -> None:
    """R2: return when every announcement that stood at the call is withdrawn or too old.

    `waiting` is called once if there is one to wait for.
    """
    ends: dict[Path, float] = {}
    for root in roots_of(store):
        for folder in (root, collectors(root)):  # the first run may not see `.gc` in the root
            drop_listing(folder)
        for name in names_in(collectors(root)):
            file = collectors(root) / name
            ends[file] = time.monotonic() + PATIENCE_S - max(0.0, age_of(file) or 0.0)
    for file, end in ends.items():
        owner = ProcessId.parse(file.name.rpartition(".")[0])
        while _stands(file) and may_be_alive(owner) and time.monotonic() < end:
            if waiting:
                waiting()
                waiting = None
            time.sleep(0.005)


def _stands(announcement: Path) -> bool:
    """Whether it is there, asked by opening it: a stat may be answered by a cache."""
    try:
        stat_opened(announcement)
    except FileNotFoundError:
        return False
    except OSError:
        pass  # another user's
    return True


@contextmanager
def _announced(store: Store) -> Iterator[float]:
    """C1 and C5. Gives the time of the announcement, by the monotonic clock."""
    began = time.monotonic()
    name = f"{ProcessId.here()}.{os.urandom(4).hex()}"
    with ExitStack() as stack:
        for root in filter(Path.is_dir, roots_of(store)):
            make_folders(collectors(root))
            file = collectors(root) / name
            stack.callback(_withdraw, file)
            with explained("announce a collection in", file):
                write_new(file, b"")
        yield began


def _withdraw(file: Path) -> None:
    with suppress(OSError):
        file.unlink()


def _refresh(reach: Reachability) -> None:
    """Read the store as it is now, not as a network file system has cached it."""
    for root in roots_of(reach.store):
        drop_listing(root)
        for folder in record_folders(root):
            drop_listing(folder)
    reach.refresh()


def _collect_one(
    reach: Reachability,
    item: Stale,
    wanted: Mapping[Ref, str],
    done: Collected,
    moved: list[tuple[Stale, Path]],
) -> None:
    """C2 and C3, for one item."""
    why = _why_spared(reach, item, wanted)
    if why is not None:
        done.spared.append((item, why))
        return
    root = reach.store.root_of(item.ref[0])
    try:
        if item.lease is not None:
            leases.remove_dead(root, item.lease)
            done.moved.append(item)
            return
        evicted = item.reason == StaleReason.EVICTED
        if evicted and not keep_manifest(reach.store, item.ref, item.path):
            done.spared.append((item, "another process has just moved it"))
            return
        assert item.identity is not None
        target = move_to_trash_if_same(root, *item.ref, item.path, item.identity)
    except StoreError as error:
        done.failed.append((item, str(error)))
        return
    if target is None:
        done.spared.append((item, "it was replaced or moved meanwhile"))
        return
    moved.append((item, target))
    done.moved.append(item)


def _why_spared(reach: Reachability, item: Stale, wanted: Mapping[Ref, str]) -> str | None:
    """Why an item must not be moved after all, by what is known now."""
    match item.reason:
        case StaleReason.ORPHAN:
            lives = any(b.path == item.path and b.may_be_alive for b in reach.scan.builds)
            return "its process is alive" if lives else None
        case StaleReason.DEAD_LEASE:
            return None  # `remove_dead` checks that itself
        case StaleReason.PARTS:
            one = next((parts for parts in reach.scan.parts if parts.path == item.path), None)
        case _:
            one = reach.artifacts.get(item.ref)
    # Compare with the disk too: a scan does not read again what keeps its inode.
    if one is None or not one.identity == item.identity == identity_of(item.path):
        return "it was replaced or moved meanwhile"
    match item.reason:
        case StaleReason.PARTS:
            return None if reach.stale_parts(one) else "a run wants what they are parts of"
        case StaleReason.EVICTED:
            return wanted.get(item.ref)
        case StaleReason.FAILED:
            return reach.being_made().get(item.ref)
    kept = reach.reachable.get(item.ref)
    return kept.root if kept else None


def _put_back_wanted(
    reach: Reachability, done: Collected, moved: Sequence[tuple[Stale, Path]]
) -> None:
    """C4."""
    wanted = reach.not_evictable() if moved else {}
    for item, target in moved:
        if item.reason in (StaleReason.ORPHAN, StaleReason.FAILED):
            continue
        if item.reason == StaleReason.PARTS and reach.is_whole(item.ref):
            continue
        kept = reach.reachable.get(item.ref)
        why = wanted.get(item.ref) if item.reason == StaleReason.EVICTED else kept and kept.root
        if why and put_back(target, item.path):
            done.moved.remove(item)
            done.spared.append((item, why))
