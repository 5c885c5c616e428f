"""The files of a folder that are code, found without reading the data sets that lie beside it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

N_ENTRIES = 100_000
"""So many names are looked at in a folder and below it."""

N_BELOW = 10_000
"""A folder further down that holds more than this is a data set."""

DEPTH = 2
"""Folders without code are looked into so far down only."""

TEXT_BYTES = 1_000_000
N_TEXTS = 100
"""Of a folder; where there are more, none of them counts as code."""

_TEXTS = {".cfg", ".csv", ".ini", ".json", ".toml", ".tsv", ".txt", ".yaml", ".yml"}
_SOURCES = {".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp"}
_SKIPPED = {"__pycache__", "node_modules", "site-packages"}
# A virtual environment, a store: not code that anybody edits.
_MARKS = {"pyvenv.cfg", ".leases"}


def is_code(name: str) -> bool:
    return name.endswith((".py", *EXTENSION_SUFFIXES))


def code_files(top: Path) -> Iterator[Path]:
    """The modules in a folder and below, and small texts beside them; what is near comes first.

    Links to folders are followed.
    """
    left = N_ENTRIES
    seen: set[tuple[int, int]] = set()
    queue = deque([(top, 0)])
    while queue and left > 0:
        folder, depth = queue.popleft()
        entries = _entries(folder, left if depth == 0 else min(left, N_BELOW), seen)
        left -= len(entries)
        if (depth and len(entries) > N_BELOW) or any(entry.name in _MARKS for entry in entries):
            continue
        files = [Path(entry.path) for entry in entries if not _is_folder(entry)]
        codes = [file for file in files if is_code(file.name)]
        yield from codes
        if codes:
            texts = [file for file in files if _is_small_text(file)]
            yield from texts if len(texts) <= N_TEXTS else []
        if codes or depth < DEPTH:
            inner = (entry for entry in entries if _is_folder(entry))
            queue += ((Path(entry.path), depth + 1) for entry in inner if not _is_skipped(entry))


def _entries(folder: Path, n: int, seen: set[tuple[int, int]]) -> list[os.DirEntry[str]]:
    """What a folder holds, by name; up to one more than `n`. Nothing at the second time."""
    found: list[os.DirEntry[str]] = []
    with suppress(OSError):
        at = os.stat(folder)
        if (at.st_dev, at.st_ino) in seen:
            return []
        seen.add((at.st_dev, at.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                found.append(entry)
                if len(found) > n:
                    break
    return sorted(found, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return entry.is_dir()
    return False


def _is_skipped(entry: os.DirEntry[str]) -> bool:
    return entry.name in _SKIPPED or entry.name.startswith(".")


def _is_small_text(file: Path) -> bool:
    with suppress(OSError):
        suffix = file.suffix.lower()
        return suffix in _TEXTS | _SOURCES and file.stat().st_size <= TEXT_BYTES
    return False
