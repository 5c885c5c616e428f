"""Look up specs in the store, and load what was made of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from saevx.errors import CorruptArtifact, MissingArtifact, SaevxWarning
from spec import Artifact, Keys

if TYPE_CHECKING:
    from store import Store, StoredArtifact

Loader = Callable[["StoredArtifact"], Any]
"""What a recipe declares as `load`: makes of a stored artifact what `saevx.load` returns."""


def look_up(spec: Artifact, keys: Keys, store: Store) -> StoredArtifact | str:
    """Return what the store has under the spec's key, else why it is missing, in words.

    Raise CorruptArtifact if it was made from another spec: an equal key alone is not a hit.
    """
    stored = store.lookup(spec.kind, keys.of(spec))
    if not isinstance(stored, str):
        check_spec(stored, spec, keys)
    return stored


def check_spec(stored: StoredArtifact, spec: Artifact, keys: Keys) -> None:
    """Raise CorruptArtifact if an artifact, or a part of one, was made from another spec."""
    if stored.manifest.canonical != keys.canonical(spec):
        raise CorruptArtifact(
            f"{stored.path} is stored under the key of {type(spec).__name__} {keys.of(spec)}, but "
            f"describes another spec.\n  stored: {stored.manifest.canonical}\n  wanted: "
            f"{keys.canonical(spec)}\nMove the folder away and run again."
        )


def open_input(spec: Artifact, keys: Keys, store: Store) -> StoredArtifact:
    """Return the artifact of a spec. Raise MissingArtifact, saying what makes it, without one."""
    stored = look_up(spec, keys, store)
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
    """Return the frame or array that an artifact holds; of several, a dict by name."""
    contents: dict[str, Any] = {name: stored.table(name) for name in stored.tables()}
    contents |= {name: stored.array(name) for name in stored.arrays()}
    return next(iter(contents.values())) if len(contents) == 1 else contents


def load_stored(stored: StoredArtifact, loader: Loader | None) -> Any:
    """Return a stored artifact in the form that its readers get.

    Without a loader, results that hold one table and nothing else are that table, and all else is
    the artifact itself. Warn with SaevxWarning of what the recipe found suspicious.
    """
    for text in warnings_of(stored):
        warnings.warn(f"{stored.manifest.type} {stored.key}: {text}", SaevxWarning, stacklevel=4)
    if loader is not None:
        return loader(stored)
    tables = stored.tables() if stored.manifest.kind == "results" else []
    return stored.table(tables[0]) if len(tables) == 1 and not stored.arrays() else stored


def warnings_of(stored: StoredArtifact) -> tuple[str, ...]:
    """Return what the recipe found suspicious in what it made."""
    return tuple(stored.manifest.attributes.get("warnings", ()))
