"""Parts: artifacts made piece by piece. Finished parts are kept, so a killed run loses at most one.

A recipe that declares parts says how many an artifact has, by its spec alone, and makes each from
its index: so the bytes are the same however many processes share the work. The recipe itself then
seals the artifact: it joins the parts and publishes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

from saevx.errors import RecipeError
from saevx.resolve.batch import A, Batch
from saevx.resolve.leases import lease_all, other_owners
from saevx.resolve.provenance import Stopwatch
from spec import Site
from store.layout import part_key

if TYPE_CHECKING:
    from store import Draft, StoredArtifact
    from store.layout import Ref


@dataclass(frozen=True)
class Parts(Generic[A]):
    """How the artifacts of a recipe are cut into parts."""

    count: Callable[[A, Site], int]
    """How many parts an artifact has: at least one, and as many for all specs of a batch."""
    make: Callable[[Batch[A], PendingParts[A]], None]
    """Makes each part that iterating over the PendingParts yields."""


class Part(Generic[A]):
    """One part to make now, of all artifacts of a batch that lack it."""

    def __init__(self, batch: Batch[A], index: int, specs: tuple[A, ...], stack: ExitStack) -> None:
        self.index = index
        self.specs = specs
        self._batch = batch
        self._drafts: dict[str, Draft] = {}
        self._stack = stack
        self._watch = Stopwatch()

    def draft(self, spec: A) -> Draft:
        """Return the draft of this part of the artifact of `spec`; the same one at each call."""
        key = self._batch.key_of(spec)
        if key not in self._drafts:
            draft = self._batch.store.draft(spec.kind, key, self.index)
            self._drafts[key] = self._stack.enter_context(draft)
        return self._drafts[key]

    def publish(self, spec: A, attributes: Mapping[str, Any] | None = None) -> StoredArtifact:
        """Keep this part, with `attributes` as facts that sealing needs."""
        facts = self._batch.facts(spec, self._watch, len(self.specs))
        draft = self.draft(spec)
        made = draft.publish(**facts, attributes=dict(attributes or {}))
        if draft.was_first:
            self._batch.mark_verified(spec, self.index)
        return made


class PendingParts(Generic[A]):
    """The parts that artifacts of a batch lack. Iterate over it to make them one by one.

    A part is leased until the next one is asked for; by then it must be published. Parts that other
    processes are making are skipped.
    """

    def __init__(self, batch: Batch[A], indices: Iterable[int]) -> None:
        self._batch = batch
        # Parts are deleted once their artifact is published.
        self._specs = self._unpublished(batch.open_specs)
        self.indices = [index for index in indices if self._lacking(index)]
        """All missing parts, whichever process makes them."""
        self._yielded: list[int] = []
        self._is_exhausted = False

    def __iter__(self) -> Iterator[Part[A]]:
        for index in self.indices:
            with ExitStack() as stack:
                if part := self._begin(index, stack):
                    self._yielded.append(index)
                    yield part
        self._is_exhausted = True

    def owners(self) -> dict[str, list[A]]:
        """Return which other processes make the missing parts of which artifacts.

        Empty if one of the parts is being made by no process: it can be made here.
        """
        found: dict[str, list[A]] = {}
        for index in self.indices:
            wanted = {self._ref(spec, index): spec for spec in self._lacking(index)}
            owners = other_owners(self._batch.store, wanted)
            if wanted and not owners:
                return {}
            for owner, specs in owners.items():
                found.setdefault(owner, []).extend(specs)
        return found

    def check(self) -> None:
        """Fail the specs of which a yielded part was not made, and all if none was asked for."""
        if not self._yielded and not self._is_exhausted:
            for spec in self._batch.open_specs:
                self._fail(
                    spec, f"took no part of {spec!r} to make: it must iterate over its PendingParts"
                )
        for index in self._yielded:
            # In this order: parts are deleted after their artifact is published.
            for spec in self._unpublished(self._lacking(index)):
                self._fail(spec, f"ended without making part {index} of {spec!r}")

    def _fail(self, spec: A, fault: str) -> None:
        self._batch.fail(spec, RecipeError(f"the recipe of {type(spec).__name__} {fault}"))

    def _ref(self, spec: A, index: int) -> Ref:
        return spec.kind, part_key(self._batch.key_of(spec), index)

    def _lacking(self, index: int) -> tuple[A, ...]:
        """Return the specs that have not failed and lack this part."""
        batch = self._batch
        ready = (spec for spec in self._specs if batch.key_of(spec) not in batch.failed)
        return tuple(spec for spec in ready if batch.part(spec, index) is None)

    def _unpublished(self, specs: Iterable[A]) -> tuple[A, ...]:
        batch = self._batch
        return tuple(s for s in specs if batch.store.find(s.kind, batch.key_of(s)) is None)

    def _begin(self, index: int, stack: ExitStack) -> Part[A] | None:
        """Lease a part; return None if another process makes it, or has made it."""
        held = lease_all(self._batch.store, (self._ref(s, index) for s in self._lacking(index)))
        if held is None:
            return None
        stack.enter_context(held)
        # Again: another process may have finished it just before the lease was taken.
        specs = self._unpublished(self._lacking(index))
        return Part(self._batch, index, specs, stack) if specs else None
