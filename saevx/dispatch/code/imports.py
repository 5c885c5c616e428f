"""What a user's code imports: modules that are neither Python's, nor installed, nor saevx.

Found among the modules that are loaded, and by the import statements of an experiment and of what
it imports: a recipe may well import something only when it runs.
"""

from __future__ import annotations

import importlib.util
import re
import site
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from saevx.dispatch.code.files import N_FILES, code_files, is_code
from saevx.errors import SaevxWarning

_IMPORTS = re.compile(rb"^[ \t]*(?:from[ \t]+(\w+)|import[ \t]+([\w., \t]+))", re.MULTILINE)


def imported(experiment: Path) -> Iterator[tuple[str, Path]]:
    """Files by their place on the search path, packages whole."""
    foreign = _installed()
    names = {name.partition(".")[0] for name in list(sys.modules) if name != "__main__"}
    asked = [name for name in sorted(names) if not name.startswith("saevx_experiment_")]
    asked += _names_in(experiment)
    known: set[str] = set()
    while asked:
        name = asked.pop()
        if name in known or name in sys.stdlib_module_names:
            continue
        known.add(name)
        for place, file in _files_of(name, foreign):
            yield place, file
            if file.suffix == ".py":
                asked += _names_in(file)


def _files_of(name: str, foreign: list[Path]) -> Iterator[tuple[str, Path]]:
    """The files of a module or package, by its name; none where it is not the user's."""
    spec = _find(name)
    if spec is None:
        return
    origin = Path(spec.origin) if spec.origin and is_code(spec.origin) else None
    folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    if origin is not None and not folders and not _is_in(origin, foreign):
        yield origin.name, origin
    for folder in folders:
        if not folder.is_dir() or _is_in(folder, foreign):
            continue
        found = list(islice(code_files(folder), N_FILES + 1))
        if origin is None:
            # Folders without __init__.py: anything may lie there.
            found = [file for file in found if is_code(file.name)][:N_FILES]
        elif len(found) > N_FILES:
            warnings.warn(
                f"the package {name} has more than {N_FILES} files, so jobs import it from "
                f"{folder}: what is edited there reaches those that are queued",
                SaevxWarning,
                stacklevel=2,
            )
            continue
        for file in found:
            yield f"{name}/{file.relative_to(folder)}", file


def _find(name: str) -> importlib.machinery.ModuleSpec | None:
    # What finders of others raise says only that it is not for us.
    with suppress(Exception):
        return importlib.util.find_spec(name)
    return None


def _names_in(file: Path) -> list[str]:
    """Top-level names that a file may import; more than it does, where its texts look like it."""
    with suppress(OSError):
        found = _IMPORTS.findall(file.read_bytes())
        texts = [whole for one, several in found for whole in (one or several).decode().split(",")]
        words = (text.split()[:1] for text in texts)
        return [word[0].partition(".")[0] for word in words if word]
    return []


def _is_in(file: Path, folders: list[Path]) -> bool:
    return any(file.resolve().is_relative_to(folder) for folder in folders)


def _installed() -> list[Path]:
    """Where Python, installed packages and saevx are."""
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    paths += [*site.getsitepackages(), site.getusersitepackages()]
    paths += [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    rooms = Path(__file__).resolve().parents[3]
    paths += [str(rooms / room) for room in ("saevx", "spec", "store")]
    return [Path(path).resolve() for path in paths if path]
