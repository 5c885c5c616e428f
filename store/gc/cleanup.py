"""Removes what killed processes left beside the artifacts. It keeps nothing alive."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from store.gc.evicted import evicted_refs
from store.gc.reachability import Reachability
from store.gc.records import record_folders, roots_of
from store.io import names_in
from store.layout import KINDS, catalogue_file, collectors, dropped, dropped_file
from store.locks.liveness import age_of, may_be_alive
from store.locks.process import ProcessId
from store.network_caches import LISTING

SCRATCH_S = 86400.0
"""Writing a scratch file takes an instant: one older than this was left behind."""


def clean_up(reach: Reachability, patience_s: float) -> None:
    """Remove what was left behind, as far as permissions allow. Raises StoreError.

    That is: announcements of collections that have ended or are older than `patience_s`, records
    of runs that no longer count, manifests of evicted artifacts from which nothing reachable was
    made, and scratch files.
    """
    store = reach.store
    old = list(reach.roots.superseded)
    unused = (ref for ref in evicted_refs(store) if ref not in reach.reachable)
    old += [dropped_file(store.root, *ref) for ref in unused]
    for kind in KINDS:
        old += _scratch(dropped(store.root, kind))
        old += _scratch(catalogue_file(store.root_of(kind), kind, "any").parent)
    for root in roots_of(store):
        old += _announcements(collectors(root), patience_s)
        for folder in record_folders(root):
            old += _scratch(folder)
        # Other files in these two may have such names.
        old += [*_scratch(root, LISTING), *_scratch(collectors(root), LISTING)]
    for file in old:
        with suppress(OSError):
            file.unlink()


def _announcements(folder: Path, patience_s: float) -> Iterator[Path]:
    for name in names_in(folder):
        file, owner = folder / name, ProcessId.parse(name.rpartition(".")[0])
        if owner and (not may_be_alive(owner) or (age_of(file) or 0.0) > patience_s):
            yield file


def _scratch(folder: Path, prefix: str = "") -> Iterator[Path]:
    """Old files with names that only saevx gives to scratch files: 8 random digits at the end."""
    with suppress(OSError), os.scandir(folder) as items:
        for item in items:
            ours = item.name.startswith(prefix) and re.search(r".\.[0-9a-f]{8}$", item.name)
            if ours and time.time() - item.stat().st_mtime > SCRATCH_S:
                yield Path(item.path)
