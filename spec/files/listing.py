"""Listings: the files of an image set, as they lie on disk."""

import errno
import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import xxhash

from spec.errors import DatasetError


class FileStat(NamedTuple):
    """What shows that a file has changed, of the file that links resolve to."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, stat: os.stat_result) -> "FileStat":
        size, mtime_ns, ctime_ns, inode = _facts(stat)
        return cls(size, mtime_ns, ctime_ns, inode & _MAX_INT64)


_facts = attrgetter("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
_MAX_INT64 = (1 << 63) - 1


@dataclass(frozen=True)
class Listing:
    """The files of an image set, in the order in which they are recorded."""

    root: Path
    files: tuple[str, ...]
    """Names of the files within the set, with forward slashes; the same on every machine."""
    paths: tuple[str, ...]
    """Path of each file relative to root. Usually equal to `files`."""
    stats: tuple[FileStat, ...]
    digests: tuple[str, ...] | None = None
    """xxh3_128 of each file's bytes, where they are known."""
    folders: tuple[str, ...] = ()
    """Folders that were searched, relative to root, for sets defined by what a folder holds."""

    def __len__(self) -> int:
        return len(self.files)

    @property
    def stamp(self) -> str:
        """A digest that changes when a file is added, removed, renamed or written to."""
        state = xxhash.xxh3_128(encode_stats(self.stats))
        state.update("\0".join(self.paths).encode("utf-8", "surrogateescape"))
        return state.hexdigest()

    @property
    def digest(self) -> str:
        """xxh3_128 over the names, in order, with the digests of the files, else their sizes."""
        facts = self.digests or [stat.size for stat in self.stats]
        return digest_text(f"{name}\0{fact}" for name, fact in zip(self.files, facts, strict=True))


def digest_text(lines: Iterable[str]) -> str:
    """Return the xxh3_128, in hex, of lines of text, each ended by a newline."""
    text = "\n".join([*lines, ""])
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogateescape"))


def encode_stats(stats: Iterable[FileStat]) -> bytes:
    """Return 32 bytes for each file."""
    return array("q", chain.from_iterable(stats)).tobytes()


def stat_files(root: Path, paths: Sequence[str]) -> tuple[FileStat, ...]:
    """Return the stat of each file. Raises DatasetError naming up to five that are missing."""
    stats: list[FileStat] = []
    missing: list[str] = []
    for path in paths:
        try:
            stats.append(FileStat.of(os.stat(os.path.join(root, path))))
        except OSError:
            missing.append(path)
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise DatasetError(
            f"{len(missing)} of {len(paths)} files are missing below {root}: {shown}; "
            "download or unpack the dataset again"
        )
    return tuple(stats)


def list_files(root: Path, accept: Callable[[str], bool]) -> Listing:
    """List all files below `root` whose name `accept` takes, sorted.

    Hidden files and folders are skipped. Links are followed, except to a folder that contains the
    link. Raises DatasetError when `root` is not a folder, or naming all folders and files that
    cannot be read.
    """
    if not os.path.isdir(root):
        raise DatasetError(f"there is no folder {root}: put the dataset there, or set another root")
    files: list[tuple[str, FileStat]] = []
    folders: list[str] = []
    faults: list[str] = []
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while waiting:
        inside, above = waiting.pop()
        path = os.path.join(root, inside)
        prefix = f"{inside}/" if inside else ""
        try:
            stat = os.stat(path)
            here = (stat.st_dev, stat.st_ino)
            if here in above:
                continue
            with os.scandir(path) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith("."):
                        continue
                    if _is_dir(entry):
                        waiting.append((prefix + name, above | {here}))
                    elif accept(name):
                        files.append((prefix + name, FileStat.of(entry.stat())))
        except OSError as error:
            faults.append(f"{error.filename or path} ({error.strerror})")
            continue
        folders.append(inside)
    if faults:
        raise DatasetError(
            f"{len(faults)} paths below {root} cannot be read: {', '.join(sorted(faults))}; "
            "make them readable, or move them out of the set"
        )
    files.sort()
    names = tuple(name for name, _ in files)
    stats = tuple(stat for _, stat in files)
    return Listing(root, names, names, stats, folders=tuple(sorted(folders)))


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself, like a dangling one, is no folder
            return False
        raise
