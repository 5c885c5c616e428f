"""Find what an experiment imports, except the standard library, installed packages and saevx.

The search starts from the modules that are loaded and from the import statements of the experiment,
and follows the import statements of the files that it finds: recipes may import when they run.
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
from spec.keys.type_names import EXPERIMENT_MODULE

PACKAGES = ("saevx", "spec", "store")
ROOT = Path(__file__).resolve().parents[3]
"""The folder that holds the packages."""

_IMPORTS = re.compile(rb"^[ \t]*(?:from[ \t]+(\w+)|import[ \t]+([\w., \t]+))", re.MULTILINE)


def imported(experiment: Path) -> Iterator[tuple[str, Path]]:
    """Yield the imported files, whole packages, with their paths relative to the search path."""
    foreign = _foreign_folders()
    loaded = {name.partition(".")[0] for name in list(sys.modules) if name != "__main__"}
    queue = [name for name in sorted(loaded) if not name.startswith(EXPERIMENT_MODULE)]
    queue += _imported_names(experiment)
    seen = set(sys.stdlib_module_names)
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        seen.add(name)
        for place, file in _files_of(name, foreign):
            yield place, file
            if file.suffix == ".py":
                queue += _imported_names(file)


def _files_of(name: str, foreign: list[Path]) -> Iterator[tuple[str, Path]]:
    """Yield the files of a top-level module or package; none if it is in a foreign folder."""
    spec = None
    with suppress(Exception):  # finders of other packages may raise anything
        spec = importlib.util.find_spec(name)
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
            # A namespace package: its folder may hold anything.
            found = [file for file in found if is_code(file.name)][:N_FILES]
        elif len(found) > N_FILES:
            warnings.warn(
                f"the package {name} has more than {N_FILES} files, so jobs import it from "
                f"{folder} and not from a copy: edits there affect jobs in the queue",
                SaevxWarning,
                stacklevel=2,
            )
            continue
        for file in found:
            yield f"{name}/{file.relative_to(folder)}", file


def _imported_names(file: Path) -> list[str]:
    """Return the top-level names that a file imports; text that looks like an import counts."""
    with suppress(OSError):
        found = _IMPORTS.findall(file.read_bytes())
        texts = [text for one, several in found for text in (one or several).decode().split(",")]
        return [text.split()[0].partition(".")[0] for text in texts if text.strip()]
    return []


def _is_in(file: Path, folders: list[Path]) -> bool:
    return any(file.resolve().is_relative_to(folder) for folder in folders)


def _foreign_folders() -> list[Path]:
    """Return the folders of Python, of installed packages and of saevx."""
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    paths += [*site.getsitepackages(), site.getusersitepackages()]
    paths += [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    folders = [*map(Path, filter(None, paths)), *(ROOT / package for package in PACKAGES)]
    return [folder.resolve() for folder in folders]
