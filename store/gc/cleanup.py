"""What killed processes leave beside the artifacts: it keeps nothing, and nobody waits for it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from store.gc.reachability import Reachability
from store.gc.records import roots_of
from store.gc.roots import superseded
from store.io import names_in
from store.layout import KINDS, catalogue_file, collectors, dropped, is_key, pins, runs
from store.locks.liveness import age_of, may_be_alive
from store.locks.process import ProcessId

SCRATCH_S = 86400.0
"""Writing a scratch file takes an instant: one that is older than this was left behind."""


def sweep(survey: Reachability, patience_s: float) -> None:
    """Removes what was left behind, as far as it can be.

    Announcements of collections that are dead or older than `patience_s`, records of runs that are
    over and do not count, manifests of what was given up and that nothing alive was made from any
    more, and scratch files. Raises StoreError where something cannot be looked at.
    """
    store = survey.store
    for root in roots_of(store):
        for file in _announcements(collectors(root), patience_s):
            _remove(file)
    for file in superseded(store):
        _remove(file)
    for kind in KINDS:
        for name in names_in(dropped(store.root, kind)):
            key = name.removesuffix(".json")
            if is_key(key) and (kind, key) not in survey.causes:
                _remove(dropped(store.root, kind) / name)
    folders = {catalogue_file(store.root_of(kind), kind, "any").parent for kind in KINDS}
    folders |= {dropped(store.root, kind) for kind in KINDS}
    for root in roots_of(store):
        folders |= {pins(root), *(runs(root) / name for name in names_in(runs(root)))}
    for folder in folders:
        for file in _scratch(folder):
            _remove(file)


def _announcements(folder: Path, patience_s: float) -> Iterator[Path]:
    for name in names_in(folder):
        file, owner = folder / name, ProcessId.parse(name.rpartition(".")[0])
        if owner and (not may_be_alive(owner) or (age_of(file) or 0.0) > patience_s):
            yield file


def _scratch(folder: Path) -> Iterator[Path]:
    """Files that were to be renamed to the names that they are named after."""
    with suppress(OSError), os.scandir(folder) as items:
        for item in items:
            name, _, token = item.name.rpartition(".")
            ours = name and len(token) == 8 and set(token) <= set("0123456789abcdef")
            if ours and time.time() - item.stat().st_mtime > SCRATCH_S:
                yield Path(item.path)


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink()
