"""Starts a module of a copy of the code, once the copy is known to be what was submitted.

python -c TEXT CODE DIGEST MODULE ARGUMENT...

TEXT is this file, and DIGEST that of the list of the copy's files. Both are part of the command of
a job, where others who can write to the store cannot change them. This file needs the standard
library only.
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
"""Holds {"private": ..., "sha256": {name: digest}}. Private is false on file systems that keep no
owners and modes; then only the digests are compared."""

WRITABLE = stat.S_IWGRP | stat.S_IWOTH


class Changed(Exception):
    """The copy is not as it was submitted."""


def read_checked(code: str, digest: str) -> dict[str, bytes]:
    """The source files of a copy, by path, and the names of the others. Raises Changed, OSError."""
    with open(os.path.join(code, LISTING), "rb") as file:
        listing = file.read()
    if hashlib.sha256(listing).hexdigest() != digest:
        raise Changed(f"{os.path.join(code, LISTING)} was changed")
    told = json.loads(listing)
    expected = {os.path.join(code, name): value for name, value in told["sha256"].items()}
    found = {}
    for path in walk(code):
        at = os.lstat(path)
        if told["private"] and at.st_uid != os.geteuid():
            raise Changed(f"{path} belongs to user {at.st_uid}, and this is {os.geteuid()}")
        if told["private"] and at.st_mode & WRITABLE and not stat.S_ISLNK(at.st_mode):
            raise Changed(f"{path} can be written by others: its mode is {at.st_mode & 0o7777:o}")
        if stat.S_ISDIR(at.st_mode) or path == os.path.join(code, LISTING):
            continue
        if path not in expected or not stat.S_ISREG(at.st_mode):
            raise Changed(f"{path} was added")
        with open(path, "rb") as file:
            data = file.read()
        if hashlib.sha256(data).hexdigest() != expected[path]:
            raise Changed(f"{path} was changed")
        found[path] = data if path.endswith(".py") else b""
    if missing := expected.keys() - found.keys():
        raise Changed(f"{min(missing)} is missing")
    return found


def walk(code: str) -> Iterator[str]:
    """All that lies in a copy, itself first."""
    yield code
    for place, folders, names in os.walk(code):
        # Recipes may leave other caches there, as numba does. Only bytecode could be imported.
        cached = os.path.basename(place) == "__pycache__"
        yield from (
            os.path.join(place, name)
            for name in [*folders, *names]
            if not cached or name.endswith(".pyc")
        )


def import_from(code: str, files: dict[str, bytes]) -> None:
    """Import modules of the copy from the bytes that were checked, never from disk or bytecode."""

    class Loader(SourceFileLoader):
        def get_code(self, fullname: str) -> CodeType:
            path = self.get_filename(fullname)
            return self.source_to_code(files[path], path)

    class Finder(FileFinder):
        loader = Loader

    def find_in(folder: str) -> Finder:
        if not folder.startswith(code + os.sep):
            raise ImportError
        return Finder(folder, (ExtensionFileLoader, EXTENSION_SUFFIXES), (Loader, SOURCE_SUFFIXES))

    sys.path_hooks.insert(0, find_in)
    first = [os.path.join(code, part) for part in ("rooms", "files")]
    sys.path[:0] = first
    # For processes that the module starts: bytecode that they write would count as added.
    later = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*first, *([later] if later else [])])
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def main() -> None:
    code, digest, module, *arguments = sys.argv[1:]
    try:
        files = read_checked(code, digest)
    except (Changed, OSError) as error:
        sys.exit(
            f"saevx runs nothing from the copy of the code, which is not as it was submitted: "
            f"{error}. Code must write no files beside itself. Cancel this run and start it again"
        )
    import_from(code, files)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
