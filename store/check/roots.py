"""A doctor's look at where a store lies: its roots, and what must be on one file system."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

from store.check.report import Finding, names_of, unreadable, writable
from store.gc.records import roots_of
from store.layout import KINDS, is_key, is_shelf
from store.store import Store


def roots(store: Store) -> Generator[Finding, None, list[Path]]:
    """Returns those that can be entered: nothing can be known of what lies in the others."""
    entered: list[Path] = []
    for root in roots_of(store):
        if (yield from _root(store, root)):
            entered.append(root)
    if store.root in entered:
        yield from _left_behind(store)
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
            yield from writable(root / name, "this kind of artifact")
        elif name != "reports" and not name.startswith("."):
            advice = "saevx neither reads nor touches it; move it elsewhere if it is yours"
            yield Finding("info", "not ours", str(root / name), "is no part of a store", advice)
    if names is not None:
        yield from writable(root, "anything")
    return names is not None or os.access(root, os.X_OK)


def _missing(root: Path, is_main: bool) -> Finding:
    if is_main:
        advice = (
            "mount it, or check --store, SAEVX_STORE and saevx.toml; if the store is new, "
            "the first run makes it"
        )
        return Finding("error", "roots", str(root), "is not there: there is no store", advice)
    advice = "mount it, or expect that what lay there is made again when needed"
    return Finding("warning", "roots", str(root), "is not there", advice)


def _left_behind(store: Store) -> Iterator[Finding]:
    """Artifacts in the main root, of kinds that have a root of their own by now."""
    for kind in KINDS:
        old, new = store.root / kind, store.root_of(kind) / kind
        if old == new:
            continue
        shelves = yield from names_of(old)
        n = 0
        for shelf in filter(is_shelf, shelves or []):
            keys = yield from names_of(old / shelf)
            n += sum(is_key(key) and key.startswith(shelf) for key in keys or [])
        if n:
            few = n == 1
            what = (
                f"{n:,} artifact{'s' * (not few)} of {kind} {'lies' if few else 'lie'} here, "
                f"which is not looked at"
            )
            advice = f"move {'it' if few else 'them'} to {new}, below folders of the same names"
            yield Finding("warning", "roots", str(old), what, advice)


def one_file_system(kind: Path, names: list[str]) -> Iterator[Finding]:
    """What lies within the folder of a kind, and on another file system: nothing can be renamed
    between the two.
    """
    try:
        device = os.stat(kind).st_dev
    except OSError:
        return  # it has just been listed
    for name in names:
        try:
            other = os.stat(kind / name).st_dev
        except OSError:
            continue  # whoever looks into it will say so
        if other != device:
            what = f"lies on another file system than {kind}, and publishing is one rename"
            advice = "remove the link or mount; a kind as a whole may have a root elsewhere"
            yield Finding("error", "file systems", str(kind / name), what, advice)
