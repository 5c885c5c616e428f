"""Looking a spec up in the store, and reading what was made of it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from saevx.errors import CorruptArtifact, MissingArtifact, SaevxWarning
from spec import Artifact, Keys

if TYPE_CHECKING:
    from saevx.resolve.recipe import Recipe
    from store import Store, StoredArtifact


def look(spec: Artifact, keys: Keys, store: Store) -> StoredArtifact | str:
    """What the store has under the spec's key, else why it is absent, in words.

    Raises CorruptArtifact when that was made from another spec: a key alone is never a hit.
    """
    stored = store.look(spec.kind, keys.of(spec))
    if not isinstance(stored, str) and stored.manifest.canonical != keys.canonical(spec):
        raise CorruptArtifact(
            f"{stored.path} is stored under the key of {type(spec).__name__} {stored.key}, but "
            f"describes another spec.\n  stored: {stored.manifest.canonical}\n  wanted: "
            f"{keys.canonical(spec)}\nMove the folder away and run again."
        )
    return stored


def find(spec: Artifact, keys: Keys, store: Store) -> StoredArtifact | None:
    """As `look`; None where it is absent."""
    stored = look(spec, keys, store)
    return None if isinstance(stored, str) else stored


def open_input(spec: Artifact, keys: Keys, store: Store) -> StoredArtifact:
    """As `find`; raises MissingArtifact, saying what makes it, where it is absent."""
    stored = look(spec, keys, store)
    if isinstance(stored, str):
        raise MissingArtifact(
            spec.kind,
            keys.of(spec),
            str(store.root_of(spec.kind)),
            f"{stored}.\nIt is a {type(spec).__name__}: `saevx run FILE.py` "
            "makes it, if FILE.py is an experiment with it among its targets; in Python, "
            "`saevx.run(spec)` does.",
        )
    return stored


def plain(stored: StoredArtifact) -> Any:
    """The frame or array that an artifact holds; of several, a dict by name."""
    held: dict[str, Any] = {name: stored.table(name) for name in stored.tables()}
    held |= {name: stored.array(name) for name in stored.arrays()}
    return next(iter(held.values())) if len(held) == 1 else held


def read(stored: StoredArtifact, recipe: Recipe[Any]) -> Any:
    """A stored artifact in the form that its recipe's readers get.

    Without `load`, results that hold one table and nothing else are that table.
    Warns with SaevxWarning where the recipe found what it made suspicious.
    """
    for text in warnings_of(stored):
        warnings.warn(f"{stored.manifest.type} {stored.key}: {text}", SaevxWarning, stacklevel=4)
    if recipe.load is not None:
        return recipe.load(stored)
    tables = stored.tables() if stored.manifest.kind == "results" else []
    return stored.table(tables[0]) if len(tables) == 1 and not stored.arrays() else stored


def warnings_of(stored: StoredArtifact) -> tuple[str, ...]:
    """What the recipe found suspicious in what it made."""
    return tuple(stored.manifest.attributes.get("warnings", ()))
