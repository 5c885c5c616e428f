"""Findings of a check: how bad something is, where it is, and what to do about it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from store.errors import NewerLayout, StoreError
from store.gc.records import R, read_record
from store.layout import NODE_FILE, Ref
from store.store import Store
from store.trash.move import Identity, move_to_trash_if_same

Severity = Literal["error", "warning", "info"]

NEWER = "newer layout"
"""Topic of what this saevx cannot read. Nothing is repaired in a store that holds any."""

RECOMPUTED = "the next run that needs it recomputes it"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or worth knowing."""

    severity: Severity
    topic: str
    """Its category, in a few words. Findings of one topic are shown together."""
    where: str
    what: str
    advice: str = ""
    ref: Ref | None = None
    fix: Callable[[], bool] | None = None
    """Repairs it; None if that takes a person. Returns False if it has changed since it was
    found. Raises StoreError."""


def foreign(path: Path, what: str = "is not an artifact") -> Finding:
    advice = "saevx neither reads nor touches it; move it elsewhere if it is yours"
    return Finding("info", "not ours", str(path), what, advice)


def damage(store: Store, ref: Ref, path: Path, identity: Identity, what: str) -> Finding:
    advice = f"`saevx doctor --fix` moves it to the trash; {RECOMPUTED}"
    return Finding(
        "error", "damaged", str(path), what, advice, ref, to_trash(store, ref, path, identity)
    )


def to_trash(store: Store, ref: Ref, path: Path, identity: Identity) -> Callable[[], bool]:
    """Return a fix: move what was found to the trash."""
    root = store.root_of(ref[0])
    return lambda: move_to_trash_if_same(root, *ref, path, identity) is not None


def unreadable(path: Path, error: OSError | StoreError, ref: Ref | None = None) -> Finding:
    """Report what cannot be read. Nothing else is known about it, so there is no fix."""
    severity: Severity = "error"
    cause = error.__cause__ if isinstance(error, StoreError) else error
    if isinstance(error, NewerLayout):
        severity, topic, what = "warning", NEWER, _fault_at(path, error)
        advice = "upgrade saevx; until then `saevx gc` and `saevx doctor --fix` refuse this store"
    elif isinstance(cause, OSError):
        closed = isinstance(cause, PermissionError)
        topic, what = "permissions" if closed else "unreadable", f"cannot be read: {cause.strerror}"
        advice = f"check {'its owner and mode' if closed else 'the device or file server'}"
    else:
        topic, what, advice = "unreadable", str(error), ""
    return Finding(severity, topic, str(path), what, advice, ref)


def _fault_at(path: Path, error: NewerLayout) -> str:
    """The first sentence of an error, without the path that a finding gives beside it."""
    text = str(error).removeprefix(f"{path}").removeprefix(f"/{NODE_FILE}")
    return text.lstrip().partition(". ")[0]


def names_of(folder: Path) -> Generator[Finding, None, list[str] | None]:
    """Return the sorted names in a folder, [] if there is no folder.

    Return None, and yield a finding, if the folder cannot be read.
    """
    try:
        names = sorted(os.listdir(folder))
        # Listing a folder takes another permission than opening what is in it.
        if not os.access(folder, os.R_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        yield unreadable(folder, error)
        return None
    return names


def writable(folder: Path, what: str) -> Iterator[Finding]:
    if not os.access(folder, os.W_OK):
        advice = f"you can read what is there, but not create {what}"
        yield Finding("info", "permissions", str(folder), "cannot be written to by you", advice)


def record(file: Path, kind: type[R]) -> Generator[Finding, None, R | None]:
    """Return the record in a file, None if it is gone. Yield a finding if it cannot be read."""
    try:
        return read_record(file, kind)
    except NewerLayout as error:
        yield unreadable(file, error)
    except StoreError as error:
        yield Finding("error", "records", str(file), str(error), "gc stops while it is there")
    return None
