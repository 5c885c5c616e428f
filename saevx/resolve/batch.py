"""A batch: the specs that one call of a recipe makes, and all that it may touch meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from saevx.errors import CorruptArtifact, RecipeError, StoreError
from saevx.resolve.context import Context
from saevx.resolve.lookup import open_input, read
from saevx.resolve.provenance import Stopwatch, with_parts
from spec import Artifact, Site, to_document

if TYPE_CHECKING:
    from store import Draft, StoredArtifact
    from store.trash.move import Identity

A = TypeVar("A", bound=Artifact)

Progress = Callable[[int, int, str], None]
"""Called with (done, total, unit) while a recipe works, as in (640, 1918, "images")."""


class Batch(Generic[A]):
    """What a recipe gets. Use as a context manager: drafts not published by its end are dropped."""

    def __init__(
        self,
        specs: tuple[A, ...],
        context: Context,
        progress: Progress | None = None,
        settled: Callable[[str], None] | None = None,
    ) -> None:
        self.specs = specs
        self.site: Site = context.keys.site
        self.made: dict[str, StoredArtifact] = {}
        """Artifacts published so far, by key."""
        self.made_elsewhere: set[str] = set()
        """Keys of what another process has made meanwhile."""
        self.failed: dict[str, BaseException] = {}
        """What went wrong with single specs, by key."""
        self.store = context.store
        self._keys = context.keys
        self._progress = progress
        self._settled = settled or (lambda key: None)
        """Called with the key of each spec that is published or has failed."""
        self._drafts: dict[str, Draft] = {}
        self._trusted: dict[tuple[str, int], Identity] = {}
        """Parts whose bytes are known to be as written, by key and number."""
        self._stack = ExitStack()
        self._find_recipe = context.find_recipe
        self._origin = context.origin
        self._watch = Stopwatch()

    def __enter__(self) -> Batch[A]:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._stack.close()

    @property
    def open_specs(self) -> tuple[A, ...]:
        """The specs that are neither published nor failed yet."""
        done = self.made.keys() | self.failed.keys()
        return tuple(spec for spec in self.specs if self.key_of(spec) not in done)

    def key_of(self, spec: A) -> str:
        return self._keys.of(spec)

    def input(self, artifact: Artifact) -> StoredArtifact:
        """An input of the batch's specs, opened. Raises MissingArtifact when it is not there."""
        return open_input(artifact, self._keys, self.store)

    def load(self, artifact: Artifact) -> Any:
        """An input as `saevx.load` gives it. Raises MissingArtifact when it is not there."""
        return read(self.input(artifact), self._find_recipe(type(artifact)))

    def draft(self, spec: A) -> Draft:
        """Where the artifact of `spec` is built; the same one at each call."""
        key = self._keys.of(spec)
        if key not in self._drafts:
            draft = self.store.draft(spec.kind, key)
            self._drafts[key] = self._stack.enter_context(draft)
        return self._drafts[key]

    def publish(self, spec: A, attributes: Mapping[str, Any] | None = None) -> StoredArtifact:
        """Make the draft of `spec` visible, with `attributes` as facts that its readers need."""
        key = self._keys.of(spec)
        facts = self.facts(spec, self._watch, len(self.specs))
        there = self.store.parts(spec.kind, key)
        parts = [part for i in there if (part := self.store.find_part(spec.kind, key, i))]
        if parts:
            made = [part.manifest.provenance for part in parts]
            facts["provenance"] = with_parts(facts["provenance"], made)
        self.made[key] = self.draft(spec).publish(**facts, attributes=dict(attributes or {}))
        if parts:
            self.store.drop_parts(spec.kind, key)
        self._settled(key)
        return self.made[key]

    def parts(self, spec: A) -> list[StoredArtifact]:
        """The parts of an artifact, in order: what its sealing joins. None where it has no parts.

        Raises RecipeError when one is not there.
        """
        declared = self._find_recipe(type(spec)).parts
        n_parts = declared.count(spec, self.site) if declared else 0
        found = []
        for index in range(n_parts):
            part = self.part(spec, index)
            if part is None:
                raise RecipeError(f"part {index} of {n_parts} of {spec!r} is gone: run again")
            found.append(part)
        return found

    def part(self, spec: A, index: int) -> StoredArtifact | None:
        """A finished part of an artifact, None where it is not there.

        One that another process, or an earlier batch, has made is read at first sight, since its
        bytes are about to become those of an artifact: one that is damaged goes to the trash.
        Raises CorruptArtifact when it is one of another spec: a key alone is never a hit.
        """
        key = self._keys.of(spec)
        identity = self.store.part_identity(spec.kind, key, index)
        found = self.store.find_part(spec.kind, key, index)
        if found is not None and found.manifest.canonical != self._keys.canonical(spec):
            raise CorruptArtifact(
                f"{found.path} is stored under the key of {spec!r}, but describes another spec: "
                f"{found.manifest.canonical}\nMove the folder away and run again."
            )
        if found is None or identity is None or self._trusted.get((key, index)) == identity:
            return found
        try:
            altered = found.altered()
        except StoreError:
            # Another process has sealed the artifact, and deleted its parts, while this was read.
            if self.store.find_part(spec.kind, key, index) is None:
                return None
            raise
        if altered:
            self.store.move_part_to_trash(spec.kind, key, index, identity)
            return None
        self._trusted[key, index] = identity
        return found

    def trust_part(self, spec: A, index: int) -> None:
        """Take a part for whole that this batch has just written itself."""
        key = self._keys.of(spec)
        identity = self.store.part_identity(spec.kind, key, index)
        if identity is not None:
            self._trusted[key, index] = identity

    def watch_anew(self) -> None:
        """From here on count the time of what is published; that of its parts is in those."""
        self._watch = Stopwatch()

    def facts(self, spec: A, watch: Stopwatch, n_batch: int) -> dict[str, Any]:
        """What a manifest says of an artifact, or of a part of it, made since `watch` began."""
        document = to_document(spec, self._keys)
        return {
            "type": document["type"],
            "version": document["version"],
            "canonical": self._keys.canonical(spec),
            "spec": document,
            "parents": {
                name: {"kind": parent.kind, "key": self._keys.of(parent)}
                for name, parent in spec.inputs().items()
            },
            "provenance": self._origin.provenance(watch, n_batch=n_batch),
        }

    def accept(self, spec: A, made: StoredArtifact) -> None:
        """Take what another process has made of a spec meanwhile."""
        self.made[self.key_of(spec)] = made
        self.made_elsewhere.add(self.key_of(spec))
        self.store.drop_parts(spec.kind, self.key_of(spec))
        self._settled(self.key_of(spec))

    def fail(self, spec: A, error: BaseException) -> None:
        """Give up on one spec, and go on with the others."""
        key = self._keys.of(spec)
        self.failed[key] = error
        self._settled(key)

    def progress(self, done: int, total: int, unit: str) -> None:
        """Say how far the batch has come: `done` of `total` `unit`s."""
        if self._progress is not None:
            self._progress(done, total, unit)
