"""Parts: artifacts made piece by piece. A piece that is done is kept, so a killed run loses one.

A recipe that declares parts says how many an artifact has, by its spec alone, and makes each from
its number: so the bytes are the same however many processes share them. What the recipe itself
does is to seal: it joins the parts, and publishes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from saevx.errors import RecipeError
from saevx.resolve.leases import Backoff
from saevx.resolve.provenance import Stopwatch
from spec import Artifact, Site
from store.layout import part_key

if TYPE_CHECKING:
    from saevx.resolve.batch import Batch
    from saevx.resolve.recipe import Recipe
    from store import Draft, StoredArtifact

A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True)
class Parts(Generic[A]):
    """How the artifacts of a recipe are cut into parts."""

    count: Callable[[A, Site], int]
    """How many parts an artifact has: at least one, and as many for all specs of a batch."""
    make: Callable[[Batch[A], Todo[A]], None]
    """Makes each part that `todo` gives."""


class Part(Generic[A]):
    """One part that is to be made now, of all artifacts of a batch that lack it."""

    def __init__(self, batch: Batch[A], index: int, specs: tuple[A, ...], stack: ExitStack) -> None:
        self.index = index
        self.specs = specs
        self._batch = batch
        self._drafts: dict[str, Draft] = {}
        self._stack = stack
        self._watch = Stopwatch()

    def draft(self, spec: A) -> Draft:
        """Where this part of the artifact of `spec` is built; the same one at each call."""
        key = self._batch.key_of(spec)
        if key not in self._drafts:
            draft = self._batch.store.draft(spec.kind, key, self.index)
            self._drafts[key] = self._stack.enter_context(draft)
        return self._drafts[key]

    def publish(self, spec: A, attributes: Mapping[str, Any] | None = None) -> StoredArtifact:
        """Keep this part, with `attributes` as facts that its sealing needs."""
        facts = self._batch.facts(spec, self._watch, len(self.specs))
        draft = self.draft(spec)
        made = draft.publish(**facts, attributes=dict(attributes or {}))
        if draft.was_first:
            self._batch.trust_part(spec, self.index)
        return made


class Todo(Generic[A]):
    """The parts that artifacts of a batch lack. Iterate over it to make them, one by one.

    A part is leased while it is made, and dropped if it is not published by the next. Those that
    other processes are making are left to them.
    """

    def __init__(self, batch: Batch[A], indices: Iterable[int]) -> None:
        self._batch = batch
        # Parts are gone once their artifact is there.
        self._specs = self._absent(batch.open_specs)
        self.indices = [index for index in indices if self._lacking(index)]
        """All that are lacking, whoever makes them."""
        self._given: list[int] = []
        self._is_through = False

    def __iter__(self) -> Iterator[Part[A]]:
        for index in self.indices:
            with self._hold(index) as part:
                if part is not None:
                    self._given.append(index)
                    yield part
        self._is_through = True

    def others(self) -> dict[str, list[A]]:
        """Who else makes them, and of which artifacts; empty where one is in nobody's hands."""
        found: dict[str, list[A]] = {}
        for index in self.indices:
            specs = {self._lease(spec, index): spec for spec in self._lacking(index)}
            held = [
                holder
                for holder in self._batch.store.leases(self._kind, specs)
                if holder.may_be_alive and not self._is_ours(holder.key)
            ]
            if specs and not held:
                return {}
            for holder in held:
                found.setdefault(str(holder), []).append(specs[holder.key])
        return found

    def check(self) -> None:
        """Fail the specs whose parts were given out and not made, and all if none was taken."""
        if not self._given and not self._is_through:
            for spec in self._batch.open_specs:
                error = f"the recipe of {type(spec).__name__} took no part of {spec!r} to make"
                self._batch.fail(spec, RecipeError(f"{error}: it must iterate over what it gets"))
        for index in self._given:
            # In this order: parts are dropped when their artifact is there, not before.
            for spec in self._absent(self._lacking(index)):
                error = f"the recipe of {type(spec).__name__} ended without making part {index}"
                self._batch.fail(spec, RecipeError(f"{error} of {spec!r}"))

    @property
    def _kind(self) -> str:
        return self._batch.specs[0].kind

    def _lease(self, spec: A, index: int) -> str:
        return part_key(self._batch.key_of(spec), index)

    def _is_ours(self, lease: str) -> bool:
        """A recipe may itself run what its batch is about to make: waiting would be for ever."""
        return self._batch.store.is_leased_here(self._kind, lease)

    def _lacking(self, index: int) -> tuple[A, ...]:
        """The specs that are to be made still, and of which this part is not there."""
        batch = self._batch
        return tuple(
            spec
            for spec in self._specs
            if batch.key_of(spec) not in batch.failed and batch.part(spec, index) is None
        )

    def _absent(self, specs: Iterable[A]) -> tuple[A, ...]:
        batch = self._batch
        return tuple(s for s in specs if batch.store.find(s.kind, batch.key_of(s)) is None)

    @contextmanager
    def _hold(self, index: int) -> Iterator[Part[A] | None]:
        """A part under its leases; None when another process makes it, or has made it."""
        specs = self._lacking(index)
        names = [self._lease(spec, index) for spec in specs]
        leases = self._batch.store.lease_all(
            (self._kind, name) for name in names if not self._is_ours(name)
        )
        if leases is None:
            yield None
            return
        with ExitStack() as stack:
            for lease in leases:
                stack.enter_context(lease)
            # It may have come between our look and our leases.
            specs = self._absent(self._lacking(index))
            yield Part(self._batch, index, specs, stack) if specs else None


def make(
    recipe: Recipe[A],
    batch: Batch[A],
    wait: Callable[[dict[str, list[A]]], None] = lambda others: None,
) -> None:
    """Make the artifacts of a batch, by way of their parts where the recipe declares some."""
    if recipe.parts is not None:
        n_parts = recipe.parts.count(batch.specs[0], batch.site)
        make_parts(recipe.parts, batch, range(n_parts), wait)
        batch.watch_anew()
    for spec in batch.open_specs:
        if (there := batch.store.find(spec.kind, batch.key_of(spec))) is not None:
            batch.accept(spec, there)
    if batch.open_specs:
        recipe.make(batch)


def make_parts(
    parts: Parts[A],
    batch: Batch[A],
    indices: Iterable[int],
    wait: Callable[[dict[str, list[A]]], None] = lambda others: None,
) -> None:
    """Make those parts that artifacts of a batch lack.

    Comes back when all of them are there. What other processes are making is waited for, and `wait`
    told of whom; should they end without having made it, it is made here.
    """
    wanted = sorted(indices)
    patience = Backoff()
    while (todo := Todo(batch, wanted)).indices:
        others = todo.others()
        wait(others)
        if others:
            patience.pause()
        else:
            parts.make(batch, todo)
            todo.check()
            patience.reset()
    wait({})
