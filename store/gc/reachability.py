"""The mark phase of a collection: what is reachable and why, and what is stale."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from store.gc.records import Graph, Run
from store.gc.roots import Roots
from store.gc.scan import StoredEntry, StoreScan
from store.io import bytes_in
from store.layout import Ref, leases
from store.locks.lease import LeaseOwner
from store.store import Store
from store.trash.move import Identity, identity_of

GRACE_S = 3600.0
"""Default grace period: what was published less than this ago is kept, recorded or not."""


class StaleReason(StrEnum):
    """Why something may be collected."""

    NOT_REACHED = "not reached"
    OLDER = "older version"
    FAILED = "failed check"
    ORPHAN = "orphan build"
    PARTS = "unfinished parts"
    DEAD_LEASE = "dead lease"
    EVICTED = "can be made again"


class RetentionReason(NamedTuple):
    """Why something is kept."""

    root: str
    """Description of the root that it is reached from."""
    reader: Ref | None
    """What is made from it; None for the root itself."""


@dataclass(frozen=True, slots=True)
class Stale:
    """Something that a collection may move to the trash."""

    ref: Ref
    path: Path
    reason: StaleReason
    detail: str
    n_bytes: int = 0
    type: str = ""
    identity: Identity | None = None
    lease: LeaseOwner | None = None

    @classmethod
    def of(cls, one: StoredEntry, reason: StaleReason, detail: str) -> Stale:
        return cls(one.ref, one.path, reason, detail, one.n_bytes, one.type, one.identity)


class Reachability:
    """What is reachable in a store, brought up to date by `refresh`.

    Roots are the latest runs, pins, what is being made, and what is younger than the grace period.
    Everything that a root was made from is reachable, by the records of runs, by manifests and by
    the specs in them.
    """

    def __init__(self, store: Store, grace_s: float = GRACE_S, without: str = "") -> None:
        self.store = store
        self.grace_s = grace_s
        self.without = without
        """Path of an experiment file to forget: of its runs only those in progress count."""
        self.roots = Roots(store)
        self.scan = StoreScan(store)
        self.runs: list[Run] = []
        """The runs that count."""
        self.young: set[Ref] = set()
        """Artifacts younger than the grace period."""
        self.reachable: dict[Ref, RetentionReason] = {}
        """Why each reachable artifact is kept, whether it is in the store or not."""
        self._young_parts: set[Ref] = set()
        self._marked: object = None
        """The roots of which `reachable` was computed."""

    @property
    def artifacts(self) -> Mapping[Ref, StoredEntry]:
        return self.scan.artifacts

    def refresh(self, progress: Callable[[int], None] | None = None) -> None:
        """Read what has changed. `progress` is called with the number of artifacts read.

        Raises StoreError when something cannot be read that may keep other artifacts.
        """
        # Roots before artifacts: a notebook may publish after the scan and then end, which removes
        # its record. And roots after artifacts: a run may begin during the scan.
        self.roots.refresh()
        before = self.roots.runs
        changed = self.scan.refresh(progress)
        self.roots.refresh()
        runs = [*self.roots.runs, *(run for run in before if run not in self.roots.runs)]
        self.runs = [run for run in runs if not self._is_forgotten(run)]
        self.young = self.scan.younger_than(self.grace_s, self.artifacts.values())
        self._young_parts = self.scan.younger_than(self.grace_s, self.scan.parts)
        roots = self.runs, self.roots.pins, self.being_made(), self.young
        if changed or roots != self._marked:
            self.reachable = self._mark()
            self._marked = roots

    def being_made(self) -> dict[Ref, str]:
        """What is being made, and a description of who makes it."""
        found = {b.ref: f"being made by {b.owner}" for b in self.scan.builds if b.may_be_alive}
        for owner in self.scan.leases:
            if owner.may_be_alive:
                found[owner.kind, owner.key] = f"being made by {owner}"
        return found

    def not_evictable(self) -> dict[Ref, str]:
        """What must be kept even if it can be made again, and why.

        Targets of runs, all that an unfinished run may read, pins, what is being made or young.
        """
        found = dict.fromkeys(self.young, "young") | self.being_made()
        for run in self.runs:
            found |= dict.fromkeys(run.targets, f"a target of {run}")
            if run.finished is None:
                found |= dict.fromkeys(run.nodes, f"used by {run}")
        return found | {pin.ref: str(pin) for pin in self.roots.pins}

    def why(self, ref: Ref) -> list[tuple[Ref, RetentionReason]]:
        """The path from a root to `ref`, each with its reason; [] if it is not reachable."""
        chain: list[tuple[Ref, RetentionReason]] = []
        at: Ref | None = ref
        while at is not None and at in self.reachable:
            chain.append((at, self.reachable[at]))
            at = self.reachable[at].reader
        return chain[::-1]

    def stale(self, versions: Mapping[str, int]) -> Iterator[Stale]:
        """All that is not reachable, with the reason.

        `versions` gives the present versions of spec types. For a type that is not in it, the
        highest version in the store counts.
        """
        newest: dict[str, int] = {}
        for one in self.artifacts.values():
            newest[one.type] = max(one.version, newest.get(one.type, 0))
        newest |= versions
        for one in self.artifacts.values():
            if stale := self._stale_artifact(one, newest):
                yield stale
        for build in self.scan.builds:
            identity = None if build.may_be_alive else identity_of(build.path)
            if identity is not None:  # else another process has just removed it
                detail, n_bytes = f"its process has ended: {build.owner}", bytes_in(build.path)
                yield Stale(
                    build.ref, build.path, StaleReason.ORPHAN, detail, n_bytes, identity=identity
                )
        for parts in self.scan.parts:
            if why := self.stale_parts(parts):
                sized = replace(parts, n_bytes=bytes_in(parts.path))
                yield Stale.of(sized, StaleReason.PARTS, why)
        for owner in self.scan.leases:
            if not owner.may_be_alive:
                path = leases(self.store.root_of(owner.kind), owner.kind) / owner.key
                ref, detail = (owner.kind, owner.key), f"its process has ended: {owner}"
                yield Stale(ref, path, StaleReason.DEAD_LEASE, detail, lease=owner)

    def is_whole(self, ref: Ref) -> bool:
        """Whether an artifact is in the store, and whole."""
        one = self.artifacts.get(ref)
        return one is not None and one.fault is None

    def stale_parts(self, parts: StoredEntry) -> str | None:
        """Why the parts of an artifact are stale; None if a run may need them."""
        if parts.ref in self._young_parts:
            return None
        if self.is_whole(parts.ref):
            return "the artifact that they are parts of is there"
        return None if parts.ref in self.reachable else "no run wants what they are parts of"

    def _stale_artifact(self, one: StoredEntry, versions: Mapping[str, int]) -> Stale | None:
        if one.fault is not None:
            # A damaged artifact counts as absent, even if a run wants it. But someone may be
            # copying it into the store by hand.
            busy = one.ref in self.young or one.ref in self.being_made()
            return None if busy else Stale.of(one, StaleReason.FAILED, one.fault)
        if one.ref in self.reachable:
            return None
        now = versions.get(one.type, 0)
        if one.version < now:
            detail = f"version {one.version} of {one.type}, which is at {now} now"
            return Stale.of(one, StaleReason.OLDER, detail)
        detail = "no recorded run, no pin, and nothing that is kept was made from it"
        return Stale.of(one, StaleReason.NOT_REACHED, detail)

    def _is_forgotten(self, run: Run) -> bool:
        return bool(self.without) and run.path == self.without and run not in self.roots.in_progress

    def _mark(self) -> dict[Ref, RetentionReason]:
        """Walk breadth-first from each root, so that reasons are as short as can be."""
        recorded: Graph = {}
        for run in self.runs:
            recorded |= run.graph
        found: dict[Ref, RetentionReason] = {}
        for root, starts in self._starts():
            fresh = [ref for ref in starts if ref not in found]
            found |= dict.fromkeys(fresh, RetentionReason(root, None))
            queue = deque(fresh)
            while queue:
                reader = queue.popleft()
                stored = self.artifacts[reader].inputs if reader in self.artifacts else ()
                known = recorded.get(reader, ()), stored, self.scan.evicted.get(reader, ())
                for ref in (ref for inputs in known for ref in inputs):
                    if ref not in found:
                        found[ref] = RetentionReason(root, reader)
                        queue.append(ref)
        return found

    def _starts(self) -> Iterator[tuple[str, Iterable[Ref]]]:
        for run in self.runs:
            yield str(run), run.targets
            yield str(run), run.nodes  # in case its record is not connected
        for pin in self.roots.pins:
            yield str(pin), [pin.ref]
            yield str(pin), pin.nodes
        for ref, description in self.being_made().items():
            yield description, [ref]
        yield f"younger than {duration(self.grace_s)}", self.young


def duration(seconds: float) -> str:
    """A length of time in words, such as `90 min` or `7 days`."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length and (seconds % length == 0 or seconds >= 10 * length):
            n = round(seconds / length)
            return "1 day" if (unit, n) == ("days", 1) else f"{n} {unit}"
    return f"{seconds:g} s"
