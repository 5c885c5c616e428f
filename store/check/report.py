"""What a doctor finds: how bad it is, where, what, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from store.errors import StoreError
from store.gc.records import R, read_record
from store.layout import Ref
from store.locks.owner import LeaseOwner
from store.trash.move import Identity

Severity = Literal["error", "warning", "info"]

AGAIN = "the next run that needs it makes it again"
NEWER = "upgrade saevx; until then `saevx gc` and `saevx doctor --fix` refuse this store"
FIX = f"`saevx doctor --fix` moves it to the trash; {AGAIN}"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing."""

    severity: Severity
    topic: str
    """What kind of finding, in a few words; findings of one topic are told together."""
    where: str
    what: str
    advice: str = ""
    ref: Ref | None = None
    path: Path | None = None
    identity: Identity | None = None
    holder: LeaseOwner | None = None
    fix: Literal["", "trash", "lease", "delete"] = ""
    """What `mend` does about it."""


def stranger(path: Path) -> Finding:
    advice = "saevx neither reads nor touches it; move it elsewhere if it is yours"
    return Finding("info", "not ours", str(path), "is no artifact", advice)


def damage(path: Path, what: str, ref: Ref, identity: Identity) -> Finding:
    return Finding("error", "damaged", str(path), what, FIX, ref, path, identity, fix="trash")


def newer(path: Path, what: str, ref: Ref) -> Finding:
    return Finding("warning", "newer layout", str(path), what, NEWER, ref)


def unreadable(path: Path, error: OSError | StoreError, ref: Ref | None = None) -> Finding:
    """What could not be looked at: nothing is known of it, so nothing is done about it."""
    cause = error.__cause__ if isinstance(error, StoreError) else error
    if isinstance(cause, OSError):
        topic = "permissions" if isinstance(cause, PermissionError) else "unreadable"
        what, advice = f"cannot be read: {cause.strerror}", "check its owner and mode"
        if topic == "unreadable":
            advice = "check the device or file server, and look again"
        return Finding("error", topic, str(path), what, advice, ref)
    return Finding("error", "unreadable", str(path), str(error), "", ref)


def names_of(folder: Path) -> Generator[Finding, None, list[str] | None]:
    """What lies in a folder, in order; nothing where there is none. None when it is closed to us,
    which is a finding.
    """
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        yield unreadable(folder, error)
        return None
    # Who may list a folder may still not be let in to what it lists.
    if not os.access(folder, os.R_OK | os.X_OK):
        advice = "check its owner and mode"
        yield Finding("error", "permissions", str(folder), "cannot be read by you", advice)
        return None
    return names


def writable(folder: Path, what: str) -> Iterator[Finding]:
    if not os.access(folder, os.W_OK):
        advice = f"you can read what is there, but not make {what}"
        yield Finding("info", "permissions", str(folder), "cannot be written to by you", advice)


def record(file: Path, kind: type[R]) -> Generator[Finding, None, R | None]:
    """What a record says; None where it is gone, or cannot be read, which is a finding."""
    try:
        return read_record(file, kind)
    except StoreError as error:
        advice = "no collection runs while it is there"
        yield Finding("error", "records", str(file), str(error), advice, path=file)
        return None
