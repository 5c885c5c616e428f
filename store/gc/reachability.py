"""A survey of a store: what is alive in it and why, and what is stale."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from store.gc.records import Graph, Run
from store.gc.roots import Roots
from store.gc.scan import Parts, StoredEntry, StoreScan
from store.io import bytes_in
from store.layout import Ref, leases
from store.locks.lease import LeaseOwner
from store.store import Store
from store.trash.move import Identity, identity_of

GRACE_S = 3600.0
"""What was published less than this ago is kept: it may be part of something unrecorded."""

NOT_REACHED = "not reached"
OLDER = "older version"
FAILED = "failed check"
ORPHAN = "orphan build"
PARTS = "unfinished parts"
DEAD_LEASE = "dead lease"
EVICTED = "can be made again"


class RetentionReason(NamedTuple):
    """Why something is alive."""

    root: str
    """What keeps it, in words."""
    reader: Ref | None
    """What is made from it; None when the root names it itself."""


@dataclass(frozen=True, slots=True)
class Stale:
    """Something that a collection may move to the trash."""

    ref: Ref
    path: Path
    n_bytes: int
    reason: str
    """One of the words above."""
    detail: str
    type: str = ""
    identity: Identity | None = None
    holder: LeaseOwner | None = None


class Reachability:
    """What is alive in a store, kept up to date by `refresh`.

    Roots are the runs that count, pins, what is being made, and what is younger than `grace_s`.
    Alive is what they name and all that it was made from, by the records of runs, by manifests
    and by the specs in them.
    """

    def __init__(self, store: Store, grace_s: float = GRACE_S, without: str = "") -> None:
        self.store = store
        self.grace_s = grace_s
        self.without = without
        """Path of an experiment file whose runs count no more, except those that go on."""
        self.roots = Roots(store)
        self.inventory = StoreScan(store)
        self.runs: list[Run] = []
        """Those that count."""
        self.young: set[Ref] = set()
        """What is younger than the grace time."""
        self.causes: dict[Ref, RetentionReason] = {}
        """Of everything alive, be it in the store or not, why it is so."""
        self._new_parts: set[Ref] = set()
        self._seen: object = None

    @property
    def standing(self) -> Mapping[Ref, StoredEntry]:
        return self.inventory.standing

    def refresh(self, progress: Callable[[int], None] | None = None) -> None:
        """Looks at what has changed. `progress` hears how many artifacts were read.

        Raises StoreError when something cannot be read that may keep other things alive.
        """
        # Before the artifacts: the record of a run that ends in between, having made something that
        # we then do not see yet. And after: a run that begins in between.
        self.roots.refresh()
        before = self.roots.runs
        changed = self.inventory.refresh(progress)
        self.roots.refresh()
        runs = [*self.roots.runs, *(run for run in before if run not in self.roots.runs)]
        self.runs = [run for run in runs if not self._is_forgotten(run)]
        self.young = set(self.inventory.published_since(self.grace_s))
        self._new_parts = self.inventory.parts_since(self.grace_s)
        seen = self.runs, self.roots.pins, self.making(), self.young
        if changed or seen != self._seen:
            self.causes = self._reach()
            self._seen = seen

    def making(self) -> dict[Ref, str]:
        """What is being made, and by whom, in words."""
        found = {b.ref: f"being made by {b.owner}" for b in self.inventory.builds if b.may_be_alive}
        for holder in self.inventory.leases:
            if holder.may_be_alive:
                found[holder.kind, holder.key] = f"being made by {holder}"
        return found

    def wanted_itself(self) -> dict[Ref, str]:
        """What a collection must not give up even if it can be made again, and why.

        Targets of runs, all that an unfinished run may read, pins, and what is being made or young.
        """
        found = dict.fromkeys(self.young, "young") | self.making()
        for run in self.runs:
            found |= dict.fromkeys(run.targets, f"a target of {run}")
            if run.finished is None:
                found |= dict.fromkeys(run.nodes, f"used by {run}")
        return found | {pin.ref: str(pin) for pin in self.roots.pins}

    def why(self, ref: Ref) -> list[tuple[Ref, RetentionReason]]:
        """From what a root names down to `ref`, each with its cause; [] when it is stale."""
        chain: list[tuple[Ref, RetentionReason]] = []
        at: Ref | None = ref
        while at is not None and at in self.causes:
            chain.append((at, self.causes[at]))
            at = self.causes[at].reader
        return chain[::-1]

    def stale(self, versions: Mapping[str, int]) -> Iterator[Stale]:
        """All that is not alive, with the reason.

        `versions` gives the present version of the spec types that are known; of others, it is the
        highest in the store.
        """
        versions = self._newest() | dict(versions)
        for one in self.standing.values():
            found = self._verdict(one, versions)
            if found is not None:
                reason, detail = found
                yield Stale(one.ref, one.path, one.n_bytes, reason, detail, one.type, one.identity)
        for build in self.inventory.builds:
            identity = None if build.may_be_alive else identity_of(build.path)
            if identity is not None:  # or another process has removed it since
                detail = f"its process is gone: {build.owner}"
                n_bytes = bytes_in(build.path)
                yield Stale(build.ref, build.path, n_bytes, ORPHAN, detail, identity=identity)
        for parts in self.inventory.parts:
            if (why := self.parts_verdict(parts)) is not None:
                n_bytes = bytes_in(parts.path)
                yield Stale(parts.ref, parts.path, n_bytes, PARTS, why, identity=parts.identity)
        for holder in self.inventory.leases:
            if not holder.may_be_alive:
                path = leases(self.store.root_of(holder.kind), holder.kind) / holder.key
                detail = f"its process is gone: {holder}"
                ref = holder.kind, holder.key
                yield Stale(ref, path, 0, DEAD_LEASE, detail, holder=holder)

    def is_whole(self, ref: Ref) -> bool:
        """Whether an artifact is there."""
        one = self.standing.get(ref)
        return one is not None and one.fault is None

    def parts_verdict(self, parts: Parts) -> str | None:
        """Why nobody needs the parts of an artifact; None where somebody may."""
        if parts.ref in self._new_parts:
            return None
        if self.is_whole(parts.ref):
            return "the artifact that they are parts of is there"
        return None if parts.ref in self.causes else "no run wants what they are parts of"

    def _newest(self) -> dict[str, int]:
        """The highest version in the store of each spec type."""
        newest: dict[str, int] = {}
        for one in self.standing.values():
            newest[one.type] = max(one.version, newest.get(one.type, 0))
        return newest

    def _verdict(self, one: StoredEntry, versions: Mapping[str, int]) -> tuple[str, str] | None:
        if one.fault is not None:
            # What fails is absent, whoever wants it; but it may be on its way in by hand.
            busy = one.ref in self.young or one.ref in self.making()
            return None if busy else (FAILED, one.fault)
        if one.ref in self.causes:
            return None
        now = versions.get(one.type)
        if now is not None and one.version < now:
            return OLDER, f"version {one.version} of {one.type}, which is at {now} now"
        return NOT_REACHED, "no recorded run, no pin, and nothing alive is made from it"

    def _is_forgotten(self, run: Run) -> bool:
        return bool(self.without) and run.path == self.without and run not in self.roots.going_on

    def _reach(self) -> dict[Ref, RetentionReason]:
        graph = self._graph()
        causes: dict[Ref, RetentionReason] = {}
        for root, starts in self._starts():
            fresh = [ref for ref in starts if ref not in causes]
            causes |= dict.fromkeys(fresh, RetentionReason(root, None))
            queue = deque(fresh)
            while queue:
                reader = queue.popleft()
                for ref in graph(reader):
                    if ref not in causes:
                        causes[ref] = RetentionReason(root, reader)
                        queue.append(ref)
        return causes

    def _starts(self) -> Iterator[tuple[str, Iterable[Ref]]]:
        for run in self.runs:
            yield str(run), run.targets
            yield str(run), run.nodes  # in case its record is not connected
        for pin in self.roots.pins:
            yield str(pin), [pin.ref]
            yield str(pin), pin.nodes
        for ref, what in self.making().items():
            yield what, [ref]
        yield f"younger than {duration(self.grace_s)}", self.young

    def _graph(self) -> Callable[[Ref], Iterable[Ref]]:
        """What an artifact is made from, by all that is known of it."""
        recorded: Graph = {}
        for run in self.runs:
            recorded |= run.graph

        def inputs(ref: Ref) -> Iterator[Ref]:
            yield from recorded.get(ref, ())
            if ref in self.standing:
                yield from self.standing[ref].inputs
            yield from self.inventory.dropped.get(ref, ())

        return inputs


def duration(seconds: float) -> str:
    """A length of time in words, as in `90 min` or `7 days`."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length and (seconds % length == 0 or seconds >= 10 * length):
            n = round(seconds / length)
            return "1 day" if (unit, n) == ("days", 1) else f"{n} {unit}"
    return f"{seconds:g} s"
