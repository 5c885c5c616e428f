"""Spec types that experiment files declare, found by the runs that a store has recorded."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from spec.document import known_types

from .errors import ExperimentError, StoreError
from .experiment import import_copy

if TYPE_CHECKING:
    from store import Store
    from store.records import Run


class Declared:
    """Makes spec types known by loading the experiment files of recorded runs, the latest first.

    A file is loaded only where a type is asked for that nothing has declared so far: it is code of
    its user, and may take its time. Keep this for as long as the types are needed.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        latest_first = sorted(runs, key=lambda run: run.began, reverse=True)
        self._files = list(dict.fromkeys(run.path for run in latest_first if run.path))
        self._modules: list[ModuleType] = []
        """Kept here: of two files of one name, only one stays in `sys.modules`."""
        self._asked: set[str] = set()
        self.problems: list[str] = []
        """Which files could not be loaded, and why, a line each."""

    @classmethod
    def in_store(cls, store: Store) -> Declared:
        """By the runs that count in a store; by none, where its records cannot be read."""
        from store.roots import Roots

        roots = Roots(store)
        try:
            roots.refresh()
        except StoreError:
            return cls([])
        return cls(roots.runs)

    def learn(self, names: Iterable[str]) -> bool:
        """Loads files until all of these types are known, or all are loaded; whether it did."""
        missing = set(filter(None, names)) - self._asked  # a damaged artifact tells no type
        self._asked |= missing
        missing -= known_types().keys()
        found = False
        while missing and self._files:
            self._load(Path(self._files.pop(0)))
            missing -= known_types().keys()
            found = True
        return found

    def _load(self, file: Path) -> None:
        if not os.path.isfile(file):  # Path.is_file raises where it may not look
            self._add_problem(file, "there is no such file")
            return
        try:
            with redirect_stdout(sys.stderr):  # a command's own output may be for programs
                self._modules.append(import_copy(file, file))
        except ExperimentError as error:
            cause = error.__cause__ or error
            first_line = next(iter(str(cause).splitlines()), "")
            self._add_problem(file, f"{type(cause).__name__}: {first_line}")

    def _add_problem(self, file: Path, why: str) -> None:
        self.problems.append(
            f"spec types of {file} may not be known, as it cannot be loaded: {why}"
        )


def types_in(value: Any) -> Iterator[str]:
    """Names of the types of all documents within a document, itself among them."""
    if isinstance(value, list):
        for item in value:
            yield from types_in(item)
    elif isinstance(value, dict):
        if isinstance(value.get("type"), str) and isinstance(value.get("fields"), dict):
            yield value["type"]
        for item in value.values():
            yield from types_in(item)
