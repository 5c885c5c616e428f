"""Run a module from a copy of the code, after checking that the copy is what was submitted.

python -c TEXT CODE DIGEST MODULE ARGUMENT...

TEXT is this file, CODE the folder of the copy, and DIGEST the SHA-256 of its listing. TEXT and
DIGEST are part of the job's command line, where other users who can write to the store cannot
change them. For that reason this file imports the standard library only.
"""

import hashlib
import json
import os
import runpy
import stat
import sys
from collections.abc import Iterator
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from types import CodeType

LISTING = "files.json"
"""Holds {"private": ..., "sha256": {name: digest}}. Private is false on file systems without owners
and modes; there only the digests are compared."""

WRITABLE = stat.S_IWGRP | stat.S_IWOTH


class Changed(Exception):
    """The copy is not what was submitted."""


def read_checked(code: str, digest: str) -> dict[str, bytes]:
    """Check all files of a copy. Return the source files by path. Raise Changed or OSError."""
    listing = os.path.join(code, LISTING)
    text = read(listing)
    if hashlib.sha256(text).hexdigest() != digest:
        raise Changed(f"{listing} was changed")
    listed = json.loads(text)
    expected = {os.path.join(code, name): value for name, value in listed["sha256"].items()}
    sources = {}
    for path in walk(code):
        at = os.lstat(path)
        if listed["private"] and at.st_uid != os.geteuid():
            raise Changed(f"{path} belongs to user {at.st_uid}, not to user {os.geteuid()}")
        if listed["private"] and at.st_mode & WRITABLE and not stat.S_ISLNK(at.st_mode):
            raise Changed(f"others can write to {path}: its mode is {at.st_mode & 0o7777:o}")
        if stat.S_ISDIR(at.st_mode) or path == listing:
            continue
        if path not in expected or not stat.S_ISREG(at.st_mode):
            raise Changed(f"{path} was added")
        data = read(path)
        if hashlib.sha256(data).hexdigest() != expected.pop(path):
            raise Changed(f"{path} was changed")
        if path.endswith(".py"):
            sources[path] = data
    if expected:
        raise Changed(f"{min(expected)} is missing")
    return sources


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def walk(code: str) -> Iterator[str]:
    """Yield the folder of a copy, and the path of everything below it that could be imported."""
    yield code
    for folder, folders, names in os.walk(code):
        # Tools such as numba leave other caches in __pycache__; only bytecode can be imported.
        in_cache = os.path.basename(folder) == "__pycache__"
        for name in [*folders, *names]:
            if not in_cache or name.endswith(".pyc"):
                yield os.path.join(folder, name)


def import_from(code: str, sources: dict[str, bytes]) -> None:
    """Import modules of the copy from the bytes that were checked, never from disk or bytecode."""

    class Loader(SourceFileLoader):
        def get_code(self, fullname: str) -> CodeType:
            path = self.get_filename(fullname)
            return self.source_to_code(sources[path], path)

    class Finder(FileFinder):
        loader = Loader

    def find_in(folder: str) -> Finder:
        if not folder.startswith(code + os.sep):
            raise ImportError
        return Finder(folder, (ExtensionFileLoader, EXTENSION_SUFFIXES), (Loader, SOURCE_SUFFIXES))

    sys.path_hooks.insert(0, find_in)
    tops = [os.path.join(code, part) for part in ("packages", "experiment")]
    sys.path[:0] = tops
    # For processes that the module starts: bytecode that they write would count as added.
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*tops, inherited] if inherited else tops)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def main() -> None:
    code, digest, module, *arguments = sys.argv[1:]
    try:
        sources = read_checked(code, digest)
    except (Changed, OSError) as error:
        sys.exit(
            f"saevx runs nothing from its copy of the code, which is not as it was submitted: "
            f"{error}. Code must not write files beside its modules. Cancel this run and start "
            "it again"
        )
    import_from(code, sources)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
