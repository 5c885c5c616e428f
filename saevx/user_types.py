"""Spec types that users declare, as recorded runs tell them.

Commands that look at a store import no experiment file: its path comes from the store, so whoever
can write there could make them run anything. A run records the types that it declared instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from saevx.errors import StoreError
from spec import Artifact
from spec.document import known_types

if TYPE_CHECKING:
    from store import Store
    from store.gc.records import Run


def is_user_defined(thing: Any) -> bool:
    """Whether a type or function was declared outside of saevx."""
    return str(thing.__module__).partition(".")[0] not in ("spec", "saevx")


def versions_of(types: Iterable[type]) -> dict[str, int]:
    """Versions of the types of artifacts among these, by name."""
    return {found.__name__: found.version for found in types if issubclass(found, Artifact)}


def declared_types() -> dict[str, int]:
    """Spec types of this process that saevx does not bring -> version; 0 for a description."""
    found = [known for known in known_types().values() if is_user_defined(known)]
    return {known.__name__: 0 for known in found} | versions_of(found)


class DeclaredTypes:
    """The spec types known to this process, and those that recorded runs have declared."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = sorted(runs, key=lambda run: run.began)
        self.versions = versions_of(known_types().values())
        """Present versions of the types of artifacts; of two files' types of one name, the highest
        one."""
        for run in self._runs:
            for name, version in run.types.items():
                if version and name not in known_types():
                    self.versions[name] = max(version, self.versions.get(name, version))

    @classmethod
    def in_store(cls, store: Store) -> DeclaredTypes:
        """By the runs that count in a store; by none, where its records cannot be read."""
        from store.gc.roots import Roots

        roots = Roots(store)
        try:
            roots.refresh()
        except StoreError:
            return cls([])
        return cls(roots.runs)

    def doubt(self, name: str) -> str | None:
        """Why a type may no longer be declared as it was recorded; None where it is."""
        doubt = None if name in known_types() else f"the spec type {name} is not known here"
        for run in self._runs if doubt else ():
            if name in run.types and run.path:
                changed = _change_since(run)
                if changed is None:
                    return None
                doubt = f"the spec type {name} is not known here: {run.path} {changed}"
        return doubt


def _change_since(run: Run) -> str | None:
    """What happened to an experiment file since its run began; None when it is as it was."""
    try:
        edited = os.stat(run.path).st_mtime > run.began
    except OSError:
        return "is not there any more"
    return "was edited after its latest run; run it again" if edited else None


def type_names_in(value: Any) -> Iterator[str]:
    """Names of the types of all documents within a document, itself among them."""
    if isinstance(value, list):
        for item in value:
            yield from type_names_in(item)
    elif isinstance(value, dict):
        if isinstance(value.get("type"), str) and isinstance(value.get("fields"), dict):
            yield value["type"]
        for item in value.values():
            yield from type_names_in(item)
