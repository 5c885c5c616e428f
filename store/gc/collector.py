"""Collection: what nothing reaches any more goes to the trash, while runs go on beside it.

The protocol, with the race that each step prevents. There is no lock: a run must never wait for a
process that is gone.

A run, before it asks the store for anything:
  R1  writes down the whole graph of what it wants, targets and all below (`RunRecording.want`).
      A run that asked first could find an artifact present, and so not make it, and a collection
      that saw no record yet would move it.
  R2  looks for announcements of collections that live, and waits until they are withdrawn
      (`wait_for_collectors`).
  R3  asks the store, and makes what is absent.

A collection, for so many things at a time as take a fraction of a second:
  C1  announces itself by a file. It and R1 are each written before the other side's is read: of a
      run and a collection that begin at the same moment, at least one sees the other. So either
      the collection spares what the run wants, or the run asks the store only after the moves,
      finds the thing absent, and makes it.
  C2  reads everything anew: records, pins, leases, drafts, what came and how old it is. Hours may
      lie between the survey that a person said yes to and the move.
  C3  moves, each by one rename. What was moved is compared with what was surveyed, by its inode,
      and put back if it is another: a damaged artifact may have been replaced by a whole one.
      If the announcement is older than ANNOUNCED_S, back to C1: this process was stopped, and
      runs have lost patience with it.
  C4  reads all records once more, and puts back what a run wants by now. On file systems where one
      host sees another's files late, both sides may miss each other in C1; this is the second net.
  C5  withdraws the announcement, and in the end removes what killed processes left beside the
      artifacts (store/gc/cleanup.py).

The third net is the grace time: what is new is never moved. The fourth is the run itself: an input
that is gone when it is opened is planned again (saevx/session.py).
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
from store.gc.cleanup import sweep
from store.gc.evicted import keep_manifest
from store.gc.reachability import DEAD_LEASE, EVICTED, FAILED, ORPHAN, PARTS, Reachability, Stale
from store.gc.records import roots_of
from store.io import explained, make_folders, names_in, stat_opened, write_new
from store.layout import Ref, collectors
from store.locks import lease as leases
from store.locks.liveness import age_of, may_be_alive
from store.locks.process import ProcessId
from store.store import Store
from store.trash import contents as trash
from store.trash.move import identity_of, move_to_trash_if_same, put_back

MOVING_S = 0.25
"""Time for moves between two looks at the roots. A run waits little longer than this."""

ANNOUNCED_S = 20.0
"""An announcement older than this is not relied on by the collection that made it."""

LATE_LOOKS = 3
"""So many looks at a store in a row may each take longer than an announcement counts."""

PATIENCE_S = 60.0
"""An announcement older than this is not waited for: its process was killed, where this one cannot
see that, or has slept for so long that it announces itself anew."""


@dataclass
class Collected:
    """What a collection did."""

    moved: list[Stale] = field(default_factory=list)
    spared: list[tuple[Stale, str]] = field(default_factory=list)
    """What was no longer stale when its turn came, and why."""
    failed: list[tuple[Stale, str]] = field(default_factory=list)
    """What could not be moved, and why."""


def collect(
    survey: Reachability,
    stale: Sequence[Stale],
    progress: Callable[[int, int], None] | None = None,
) -> Collected:
    """Moves to the trash what is still stale. `progress` hears (done, total).

    Raises StoreError when it can no longer be known what is alive; what was moved is in the trash.
    """
    done = Collected()
    left = list(reversed(stale))
    n_late = 0
    while left:
        before = len(left)
        with _announced(survey.store) as began:
            survey.refresh()
            wanted = survey.wanted_itself()
            moved: list[tuple[Stale, Path]] = []
            end = min(time.monotonic() + MOVING_S, began + ANNOUNCED_S)
            try:
                while left and time.monotonic() < end:
                    _collect_one(survey, left.pop(), wanted, done, moved)
            finally:  # also where it is stopped by hand
                survey.refresh()
                _put_back_wanted(survey, done, moved)
        # A look may be late for once, where it waits for a cache to run out.
        n_late = n_late + 1 if len(left) == before else 0
        if n_late == LATE_LOOKS:
            raise StoreError(
                f"looking at {survey.store.root} takes longer than {ANNOUNCED_S:g} s, so no run "
                "can wait for it: nothing more was moved. Try again when the file system is at rest"
            )
        if progress:
            progress(len(stale) - len(left), len(stale))
    sweep(survey, PATIENCE_S)
    return done


def evictable(
    survey: Reachability, kind: str, cannot: Callable[[Manifest], str | None]
) -> tuple[list[Stale], list[tuple[Ref, int, str]]]:
    """Artifacts of a kind that are alive, and could be made again when somebody needs them.

    `cannot` says why one cannot be made again, or None. Returns what may be given up, and of what
    is kept its bytes and why.
    """
    wanted = survey.wanted_itself()
    drop: list[Stale] = []
    keep: list[tuple[Ref, int, str]] = []
    for one in survey.standing.values():
        if one.ref[0] != kind or one.fault or one.ref not in survey.causes:
            continue
        found = survey.store.find(*one.ref)
        if found is None:
            continue
        why_not = wanted.get(one.ref) or cannot(found.manifest)
        if why_not:
            keep.append((one.ref, one.n_bytes, why_not))
        else:
            detail = f"although alive: {survey.causes[one.ref].root}"
            drop.append(
                Stale(one.ref, one.path, one.n_bytes, EVICTED, detail, one.type, one.identity)
            )
    return drop, keep


def empty_trash(store: Store, which: Sequence[trash.Entry]) -> Iterator[tuple[trash.Entry, int]]:
    """Deletes entries of the trash for good. Yields each once it is gone, and its bytes.

    Other collections end their step C4 first: what they have just moved, they may put back.
    """
    wait_for_collectors(store)
    yield from trash.empty(which)


def wait_for_collectors(store: Store, waiting: Callable[[], None] | None = None) -> None:
    """R2: returns when no announcement stands that stood when this was called.

    `waiting` is called once if there is one to wait for.
    """
    files = [
        collectors(root) / name for root in roots_of(store) for name in names_in(collectors(root))
    ]
    ends = {file: time.monotonic() + PATIENCE_S - max(0.0, age_of(file) or 0.0) for file in files}
    for file, end in ends.items():
        owner = ProcessId.parse(file.name.rpartition(".")[0])
        while _stands(file) and may_be_alive(owner) and time.monotonic() < end:
            if waiting:
                waiting()
                waiting = None
            time.sleep(0.005)


def _stands(announcement: Path) -> bool:
    """Asked by opening it: a stat may be answered by a cache."""
    try:
        stat_opened(announcement)
    except FileNotFoundError:
        return False
    except OSError:
        pass  # another user's
    return True


@contextmanager
def _announced(store: Store) -> Iterator[float]:
    """C1 and C5. Gives the time at which it was announced, of a clock that only runs forward."""
    began = time.monotonic()
    name = f"{ProcessId.here()}.{os.urandom(4).hex()}"
    with ExitStack() as stack:
        for root in roots_of(store):
            if not root.is_dir():
                continue
            make_folders(collectors(root))
            file = collectors(root) / name
            stack.callback(_withdraw, file)
            with explained("announce a collection in", file):
                write_new(file, b"")
        yield began


def _withdraw(file: Path) -> None:
    with suppress(OSError):
        file.unlink()


def _collect_one(
    survey: Reachability,
    item: Stale,
    wanted: Mapping[Ref, str],
    done: Collected,
    moved: list[tuple[Stale, Path]],
) -> None:
    """C2 and C3, for one thing."""
    why = _spared(survey, item, wanted)
    if why is not None:
        done.spared.append((item, why))
        return
    root = survey.store.root_of(item.ref[0])
    try:
        if item.reason == DEAD_LEASE:
            if item.holder is not None:
                leases.remove_dead(root, item.holder)
            done.moved.append(item)
            return
        if item.reason == EVICTED and not keep_manifest(survey.store, item.ref, item.path):
            done.spared.append((item, "another process has moved it meanwhile"))
            return
        assert item.identity is not None
        target = move_to_trash_if_same(root, *item.ref, item.path, item.identity)
    except StoreError as error:
        done.failed.append((item, str(error)))
        return
    if target is None:
        done.spared.append((item, "it is not the one that was surveyed"))
        return
    moved.append((item, target))
    done.moved.append(item)


def _spared(survey: Reachability, item: Stale, wanted: Mapping[Ref, str]) -> str | None:
    """Why something must not be moved after all, by what is known now."""
    if item.reason == ORPHAN:
        lives = any(b.path == item.path and b.may_be_alive for b in survey.inventory.builds)
        return "its process lives" if lives else None
    if item.reason == DEAD_LEASE:
        return None  # `remove_dead` looks for itself
    if item.reason == PARTS:
        found = [parts for parts in survey.inventory.parts if parts.path == item.path]
        if not found or not found[0].identity == item.identity == identity_of(item.path):
            return "a part has come or they are gone"
        return None if survey.parts_verdict(found[0]) else "a run wants what they are parts of"
    one = survey.standing.get(item.ref)
    # On the disk too: the survey does not look anew at what keeps its inode.
    if one is None or not one.identity == item.identity == identity_of(item.path):
        return "it is not the one that was surveyed"
    if item.reason == EVICTED:
        return wanted.get(item.ref)
    if item.reason == FAILED:
        return survey.making().get(item.ref)
    cause = survey.causes.get(item.ref)
    return cause.root if cause else None


def _put_back_wanted(
    survey: Reachability, done: Collected, moved: Sequence[tuple[Stale, Path]]
) -> None:
    """C4."""
    wanted = survey.wanted_itself() if moved else {}
    for item, target in moved:
        if item.reason in (ORPHAN, FAILED):
            continue
        cause = survey.causes.get(item.ref)
        if item.reason == PARTS and survey.is_whole(item.ref):
            continue
        why = wanted.get(item.ref) if item.reason == EVICTED else cause and cause.root
        if why and put_back(target, item.path):
            done.moved.remove(item)
            done.spared.append((item, why))
