"""Spec types that users declare, as recorded runs list them.

Commands that only read a store import no experiment file: its path comes from the store, so anyone
who can write there could make them run code. A run records the types that it declared instead.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from saevx.errors import StoreError
from spec import Artifact
from spec.keys.type_names import former_names, is_user_defined, named_types, type_name

if TYPE_CHECKING:
    from store import Store
    from store.gc.records import Run


def artifact_versions() -> dict[str, int]:
    """Return the version of each artifact type of this process, by its name in keys."""
    types = named_types().items()
    return {name: found.version for name, found in types if issubclass(found, Artifact)}


def declared_types() -> dict[str, int]:
    """Return the user-defined spec types of this process with their versions.

    The version of a description, which is no artifact, is 0.
    """
    versions = artifact_versions()
    types = named_types().items()
    return {name: versions.get(name, 0) for name, found in types if is_user_defined(found)}


class DeclaredTypes:
    """The spec types known to this process, and those that recorded runs declared."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = sorted(runs, key=lambda run: run.began)
        self._known = named_types().keys()
        self.versions = artifact_versions()
        """Current versions of artifact types; the highest where two files declare one name."""
        for run in self._runs:
            for name, version in run.types.items():
                if version and name not in self._known:
                    self.versions[name] = max(version, self.versions.get(name, version))

    @classmethod
    def in_store(cls, store: Store) -> DeclaredTypes:
        """Read the recorded runs of a store; records that cannot be read count as none."""
        from store.gc.roots import Roots

        roots = Roots(store)
        try:
            roots.refresh()
        except StoreError:
            return cls([])
        return cls(roots.runs)

    def doubt(self, name: str) -> str | None:
        """Return why a type may differ from its recorded declaration; None if it does not."""
        doubt = None if name in self._known else f"the spec type {name} is not known here"
        for run in self._runs if doubt else ():
            if name in run.types and run.path:
                changed = _change_since(run)
                if changed is None:
                    return None
                doubt = f"the spec type {name} is not known here: {run.path} {changed}"
        return doubt


def _change_since(run: Run) -> str | None:
    """Return what happened to an experiment file since its run began; None if unchanged."""
    try:
        edited = os.stat(run.path).st_mtime > run.began
    except OSError:
        return "is not there any more"
    return "was edited after its latest run; run it again" if edited else None


def notes_on_names(specs: Iterable[Artifact], store: Store) -> Iterator[str]:
    """Yield what a plan says about types that were renamed, or may have been.

    Reads which types the store has if user-defined types are among the specs.
    """
    from saevx.query.search import bare_name, catalogue

    known = named_types()
    stored: dict[str, Counter[str]] = {}
    for spec_type in dict.fromkeys(type(spec) for spec in specs):
        if not is_user_defined(spec_type):
            continue
        name, kind = type_name(spec_type), spec_type.kind
        if former_names(spec_type):
            yield f"{spec_type.__name__} keeps the keys of its former name, {name}"
        if kind not in stored:
            stored[kind] = Counter(entry.type for entry in catalogue(store).entries(kind))
        for other, n in sorted(stored[kind].items()):
            if other not in known and bare_name(other) == bare_name(name):
                yield (
                    f"the store has {n} of {other}: if {spec_type.__name__} is that type under a "
                    f'new name, write `formerly = ("{other}",)` in its class to find them'
                )


def documents_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield all spec documents within a JSON value, outer ones first, including the value."""
    if isinstance(value, dict):
        if isinstance(value.get("type"), str) and isinstance(value.get("fields"), dict):
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from documents_in(item)
