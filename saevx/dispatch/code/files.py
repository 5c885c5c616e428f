"""Find the code files of a folder without reading the data sets that lie beside them.

A folder below the top counts as code if it holds a module and at most N_FILES entries. Modules in
such folders are found, and so are the small text files beside them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import EXTENSION_SUFFIXES
from itertools import islice
from pathlib import Path

N_FILES = 2000
"""Most entries of a folder of code, and most files that are copied of one package or experiment."""

TEXT_BYTES = 1_000_000

_TEXTS = {".cfg", ".csv", ".ini", ".json", ".toml", ".tsv", ".txt", ".yaml", ".yml"}
_SOURCES = {".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp"}


def is_code(name: str) -> bool:
    return name.endswith((".py", *EXTENSION_SUFFIXES))


def code_files(top: Path) -> Iterator[Path]:
    """Yield the modules of a folder and of folders of code below it, then small text files.

    Modules come breadth first. Links to folders are followed.
    """
    beside: list[os.DirEntry[str]] = []
    seen: set[str] = set()
    queue = deque([top])
    while queue:
        folder = queue.popleft()
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        entries = _entries(folder, None if folder == top else N_FILES + 1)
        modules = [Path(entry.path) for entry in entries if is_code(entry.name)]
        if folder != top and (not modules or len(entries) > N_FILES):
            continue
        yield from modules
        beside += entries
        inner = (Path(entry.path) for entry in entries if _is_folder(entry))
        queue += islice(inner, N_FILES)
    yield from (Path(entry.path) for entry in beside if _is_small_text(entry))


def _entries(folder: Path, n: int | None) -> list[os.DirEntry[str]]:
    """Return the first `n` entries of a folder, sorted by name; none if it cannot be read."""
    with suppress(OSError), os.scandir(folder) as entries:
        return sorted(islice(entries, n), key=lambda entry: entry.name)
    return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return entry.is_dir() and not entry.name.startswith(".")
    return False


def _is_small_text(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        is_text = os.path.splitext(entry.name)[1].lower() in _TEXTS | _SOURCES
        return is_text and entry.is_file() and entry.stat().st_size <= TEXT_BYTES
    return False
