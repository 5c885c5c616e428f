"""What a doctor finds: how bad it is, where, what, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from store.aside import Identity
from store.errors import StoreError
from store.holder import Holder
from store.records import Pin, Ref, Run, read_record

Severity = Literal["error", "warning", "info"]

AGAIN = "the next run that needs it makes it again"
NEWER = "upgrade saevx to use it; no collection moves it, nor what it was made from"
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
    holder: Holder | None = None
    fix: Literal["", "trash", "lease", "delete"] = ""
    """What `mend` does about it."""


def stranger(path: Path) -> Finding:
    advice = "saevx neither reads nor touches it; move it elsewhere if it is yours"
    return Finding("info", "not ours", str(path), "is no artifact", advice)


def access(path: Path, what: str) -> Iterator[Finding]:
    if not os.access(path, os.R_OK | os.X_OK):
        advice = "check its owner and mode"
        yield Finding("error", "permissions", str(path), "cannot be read by you", advice)
    elif not os.access(path, os.W_OK):
        advice = f"you can read what is there, but not make {what}"
        yield Finding("info", "permissions", str(path), "cannot be written to by you", advice)


def record(file: Path, kind: type[Run] | type[Pin]) -> Iterator[Finding]:
    try:
        read_record(file, kind)
    except StoreError as error:
        advice = "no collection runs while it is there"
        yield Finding("error", "records", str(file), str(error), advice, path=file)


def try_read(file: Path, kind: type[Pin]) -> Pin | None:
    try:
        return read_record(file, kind)
    except StoreError:
        return None
