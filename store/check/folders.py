"""Checks of the folders that a store lies in: are they there, and on one file system?"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

from store.check.report import Finding, foreign, names_of, unreadable, writable
from store.gc.records import roots_of
from store.layout import KINDS, is_key, is_prefix_folder
from store.store import Store


def root_folders(store: Store) -> Generator[Finding, None, list[Path]]:
    """Return the roots that can be entered. What lies in the others cannot be checked."""
    entered: list[Path] = []
    for root in roots_of(store):
        if (yield from _root(store, root)):
            entered.append(root)
    if store.root in entered:
        yield from _unused_artifacts(store)
    return entered


def _root(store: Store, root: Path) -> Generator[Finding, None, bool]:
    try:
        os.stat(root)
    except (FileNotFoundError, NotADirectoryError):
        yield _missing(root, root == store.root)
        return False
    except OSError as error:
        yield unreadable(root, error)
        return False
    names = yield from names_of(root)
    for name in names or []:
        if name in KINDS:
            yield from writable(root / name, "artifacts of this kind")
        elif name != "reports" and not name.startswith("."):
            yield foreign(root / name, "is not part of a store")
    if names is not None:
        yield from writable(root, "anything")
    return names is not None or os.access(root, os.X_OK)


def _missing(root: Path, is_main: bool) -> Finding:
    if is_main:
        advice = (
            "mount it, or check --store, SAEVX_STORE and saevx.toml; the first run creates a "
            "new store"
        )
        return Finding("error", "roots", str(root), "is not there: there is no store", advice)
    advice = "mount it; otherwise runs recompute what lay there and is needed"
    return Finding("warning", "roots", str(root), "is not there", advice)


def _unused_artifacts(store: Store) -> Iterator[Finding]:
    """Report artifacts in the main root of kinds that now have a root of their own."""
    for kind in KINDS:
        old, new = store.root / kind, store.root_of(kind) / kind
        n = 0
        if old != new:
            for folder in filter(is_prefix_folder, (yield from names_of(old)) or []):
                keys = (yield from names_of(old / folder)) or []
                n += sum(is_key(key) and key.startswith(folder) for key in keys)
        if n:
            what = f"holds {n:,} artifact{'s' * (n > 1)} that are not read: {kind} lie in {new} now"
            advice = f"move the folders in it to {new}"
            yield Finding("warning", "roots", str(old), what, advice)


def one_file_system(kind: Path, names: list[str]) -> Iterator[Finding]:
    """Report what lies in the folder of a kind on another file system: it cannot be renamed."""
    try:
        device = os.stat(kind).st_dev
    except OSError:
        return  # it has just been listed
    for name in names:
        try:
            other = os.stat(kind / name).st_dev
        except OSError:
            continue  # the check of this folder reports it
        if other != device:
            what = f"lies on another file system than {kind}, and publishing is one rename"
            advice = "remove the link or mount; a kind as a whole may have a root elsewhere"
            yield Finding("error", "file systems", str(kind / name), what, advice)
