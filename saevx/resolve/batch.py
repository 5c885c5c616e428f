"""A batch: the specs that one call of a recipe makes, and what the recipe uses to make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from saevx.errors import RecipeError, StoreError
from saevx.resolve.lookup import Loader, check_spec, load_stored, open_input
from saevx.resolve.provenance import CodeVersion, Stopwatch, with_parts
from spec import Artifact, Keys, Site, to_document

if TYPE_CHECKING:
    from store import Draft, Store, StoredArtifact
    from store.trash.move import Identity

A = TypeVar("A", bound=Artifact)

Progress = Callable[[int, int, str], None]
"""Called with (done, total, unit) while a recipe works, as in (640, 1918, "images")."""


class Batch(Generic[A]):
    """What a recipe gets. A context manager: drafts that were not published are dropped at its end.

    `Context.batch` makes one.
    """

    def __init__(
        self,
        specs: tuple[A, ...],
        *,
        keys: Keys,
        store: Store,
        code: CodeVersion,
        find_loader: Callable[[type[Artifact]], Loader | None],
        n_parts: int = 0,
        progress: Progress | None = None,
        on_done: Callable[[str], None] | None = None,
    ) -> None:
        self.specs = specs
        self.store = store
        self.site: Site = keys.site
        self.n_parts = n_parts
        """How many parts each artifact of the batch has; 0 where its recipe declares none."""
        self.made: dict[str, StoredArtifact] = {}
        """Artifacts published so far, by key."""
        self.made_elsewhere: set[str] = set()
        """Keys of those among `made` that another process has made."""
        self.failed: dict[str, BaseException] = {}
        """The errors of the specs that failed, by key."""
        self._keys = keys
        self._code = code
        self._find_loader = find_loader
        self._progress = progress
        self._on_done = on_done or (lambda key: None)
        """Called with the key of each spec that is published or has failed."""
        self._drafts: dict[str, Draft] = {}
        self._verified: dict[tuple[str, int], Identity] = {}
        """Parts whose bytes are known to be as written, by key and index."""
        self._stack = ExitStack()
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
        """Open an input of the batch's specs. Raise MissingArtifact if the store lacks it."""
        return open_input(artifact, self._keys, self.store)

    def load(self, artifact: Artifact) -> Any:
        """Load an input as `saevx.load` does. Raise MissingArtifact if the store lacks it."""
        return load_stored(self.input(artifact), self._find_loader(type(artifact)))

    def draft(self, spec: A) -> Draft:
        """Return the draft that the artifact of `spec` is built in; the same one at each call."""
        key = self.key_of(spec)
        if key not in self._drafts:
            draft = self.store.draft(spec.kind, key)
            self._drafts[key] = self._stack.enter_context(draft)
        return self._drafts[key]

    def publish(self, spec: A, attributes: Mapping[str, Any] | None = None) -> StoredArtifact:
        """Publish the draft of `spec`, with `attributes` as facts that its readers need."""
        key = self.key_of(spec)
        facts = self.facts(spec, self._watch, len(self.specs))
        indices = self.store.parts(spec.kind, key)
        parts = [part for i in indices if (part := self.store.find_part(spec.kind, key, i))]
        if parts:
            provenances = [part.manifest.provenance for part in parts]
            facts["provenance"] = with_parts(facts["provenance"], provenances)
        self.made[key] = self.draft(spec).publish(**facts, attributes=dict(attributes or {}))
        if parts:
            self.store.drop_parts(spec.kind, key)
        self._on_done(key)
        return self.made[key]

    def parts(self, spec: A) -> list[StoredArtifact]:
        """Return the parts of an artifact, in order; none if its recipe declares no parts.

        Raise RecipeError if one is missing.
        """
        found = [self.part(spec, index) for index in range(self.n_parts)]
        if None in found:
            index = found.index(None)
            raise RecipeError(f"part {index} of {self.n_parts} of {spec!r} is gone: run again")
        return [part for part in found if part is not None]

    def part(self, spec: A, index: int) -> StoredArtifact | None:
        """Return a finished part of an artifact, or None if the store lacks it.

        Every byte of a part that another process or an earlier batch has made is verified once,
        since its bytes are about to become those of an artifact. A damaged part is moved to the
        trash. Raise CorruptArtifact for a part of another spec: an equal key alone is not a hit.
        """
        key = self.key_of(spec)
        identity = self.store.part_identity(spec.kind, key, index)
        part = self.store.find_part(spec.kind, key, index)
        if part is None:
            return None
        check_spec(part, spec, self._keys)
        if identity is None or self._verified.get((key, index)) == identity:
            return part
        try:
            altered = part.altered()
        except StoreError:
            # Another process has sealed the artifact, and deleted its parts, while this was read.
            if self.store.find_part(spec.kind, key, index) is None:
                return None
            raise
        if altered:
            self.store.move_part_to_trash(spec.kind, key, index, identity)
            return None
        self._verified[key, index] = identity
        return part

    def mark_verified(self, spec: A, index: int) -> None:
        """Skip verifying a part that this batch has just written itself."""
        key = self.key_of(spec)
        identity = self.store.part_identity(spec.kind, key, index)
        if identity is not None:
            self._verified[key, index] = identity

    def restart_stopwatch(self) -> None:
        """Count the time of what is published from now on: parts have recorded their own."""
        self._watch = Stopwatch()

    def facts(self, spec: A, watch: Stopwatch, n_batch: int) -> dict[str, Any]:
        """Return what the manifest of an artifact, or of a part, made since `watch` began says."""
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
            "provenance": self._code.provenance(watch, type_name=document["type"], n_batch=n_batch),
        }

    def accept(self, spec: A, made: StoredArtifact) -> None:
        """Take over what another process has made of a spec meanwhile."""
        key = self.key_of(spec)
        self.made[key] = made
        self.made_elsewhere.add(key)
        self.store.drop_parts(spec.kind, key)
        self._on_done(key)

    def fail(self, spec: A, error: BaseException) -> None:
        """Give up on one spec, and go on with the others."""
        key = self.key_of(spec)
        self.failed[key] = error
        self._on_done(key)

    def progress(self, done: int, total: int, unit: str) -> None:
        """Report that `done` of `total` `unit`s are done."""
        if self._progress is not None:
            self._progress(done, total, unit)
