"""Reading through the caches of network file systems, which may be seconds out of date."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from store.io import write_new

LISTING = ".listing."
"""Begins the names of the files that `drop_listing` creates and removes."""

LISTED_S = 30.0
"""How long a network file system may serve a stale listing of a folder: sshfs does for 20 s."""

OPENED_S = 5.0
"""How long a replaced file may keep its old size although it is opened anew: 1 s with FUSE. A stat
without opening the file may be stale for as long as a listing."""


def stat_opened(path: str | Path) -> os.stat_result:
    """Stat a file after opening it, which bypasses most caches. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def tries(seconds: float) -> Iterator[None]:
    """Yield at once, then at growing intervals, until a cache of that duration has expired."""
    end, pause_s = time.monotonic() + seconds, 0.001
    yield
    while time.monotonic() < end:
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 1.0)
        yield


def refresh_listing(folder: Path) -> None:
    """Make a network file system ask its server which names a folder holds now.

    Without it, NFS may report a new file as missing for half a minute.
    """
    with suppress(OSError):
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def drop_listing(folder: Path) -> None:
    """Make a network file system forget how it has listed a folder, by creating a file in it.

    Does nothing where no file can be created.
    """
    file = folder / f"{LISTING}{os.urandom(4).hex()}"
    with suppress(OSError):
        write_new(file, b"")
        file.unlink()
