"""The files of a folder that are code, found without reading the data sets that lie beside it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import EXTENSION_SUFFIXES
from itertools import islice
from pathlib import Path

N_FILES = 2000
"""Folders that hold more are data sets, and no more files of one folder of code are copied."""

TEXT_BYTES = 1_000_000

_TEXTS = {".cfg", ".csv", ".ini", ".json", ".toml", ".tsv", ".txt", ".yaml", ".yml"}
_SOURCES = {".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp"}


def is_code(name: str) -> bool:
    return name.endswith((".py", *EXTENSION_SUFFIXES))


def code_files(top: Path) -> Iterator[Path]:
    """The modules in a folder and in the folders of modules below it, what is near first; then the
    small texts that lie beside modules.

    Links to folders are followed.
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
        modules = [entry for entry in entries if is_code(entry.name)]
        if folder != top and (not modules or len(entries) > N_FILES):
            continue
        yield from (Path(entry.path) for entry in modules)
        beside += entries
        inner = (entry for entry in entries if _is_folder(entry) and entry.name[0] != ".")
        queue += (Path(entry.path) for entry in islice(inner, N_FILES))
    yield from (Path(entry.path) for entry in beside if _is_small_text(entry))


def _entries(folder: Path, n: int | None) -> list[os.DirEntry[str]]:
    """What a folder holds, by name; `n` of it at most."""
    with suppress(OSError), os.scandir(folder) as entries:
        return sorted(islice(entries, n), key=lambda entry: entry.name)
    return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return entry.is_dir()
    return False


def _is_small_text(entry: os.DirEntry[str]) -> bool:
    if os.path.splitext(entry.name)[1].lower() not in _TEXTS | _SOURCES:
        return False
    with suppress(OSError):
        return entry.is_file() and entry.stat().st_size <= TEXT_BYTES
    return False
