"""The code of a run, copied, so that editing a checkout changes nothing that is queued.

code/rooms/      saevx, spec and store
code/files/      the experiment file, its neighbours, and what else the user's code has imported
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import xxhash

from ..errors import StoreError
from ..experiment import CODE

ROOMS = ("saevx", "spec", "store")

N_FILES = 2000
"""Of the files beside an experiment, at most so many are copied."""

_SKIPPED = {"__pycache__", "node_modules", "site-packages"}


class Snapshot:
    """The files that a run's code is made of, as they are now."""

    def __init__(self, experiment: Path | None) -> None:
        rooms = Path(__file__).resolve().parents[2]
        self.experiment = experiment.resolve() if experiment else None
        self._files: dict[str, bytes] = {}
        copied = os.environ.get(CODE)
        if copied:  # this process itself runs a copy: hand on the same
            for file in _python_files(Path(copied)):
                self._add(str(file.relative_to(copied)), file)
            return
        for room in ROOMS:
            for file in _python_files(rooms / room):
                self._add(f"rooms/{file.relative_to(rooms)}", file)
        if self.experiment:
            for name, file in _users_files(self.experiment):
                self._add(f"files/{name}", file)

    def _add(self, name: str, file: Path) -> None:
        # One that goes while we look was no code of ours.
        with suppress(OSError):
            self._files.setdefault(name, file.read_bytes())

    @property
    def digest(self) -> str:
        """Differs when any file does."""
        digest = xxhash.xxh3_128()
        for name, data in sorted(self._files.items()):
            digest.update(f"{name}\0{len(data)}\0".encode() + data)
        return digest.hexdigest()

    def write(self, code: Path) -> Path | None:
        """Copy the code into a folder. Returns the copy of the experiment file.

        Raises StoreError where it cannot be written.
        """
        try:
            for folder in {(code / name).parent for name in self._files}:
                folder.mkdir(parents=True, exist_ok=True)
            for name, data in self._files.items():
                (code / name).write_bytes(data)
        except OSError as error:
            raise StoreError(f"cannot copy code to {code}: {error}") from error
        return code / "files" / self.experiment.name if self.experiment else None


def search_path(code: Path) -> list[str]:
    """What goes first on the path of a process that runs this code."""
    return [str(code / "rooms"), str(code / "files")]


def _users_files(experiment: Path) -> Iterator[tuple[str, Path]]:
    """Files by name in the copy: beside the experiment, and modules that it has imported."""
    here = experiment.parent
    yield experiment.name, experiment
    for n, file in enumerate(_python_files(here)):
        if n >= N_FILES:
            break
        yield str(file.relative_to(here)), file
    yield from _imported(here)


def _imported(here: Path) -> Iterator[tuple[str, Path]]:
    """Modules loaded from neither Python, an installed package, saevx, nor the folder `here`."""
    known = [here, Path(__file__).resolve().parents[2], *_installed()]
    for name, module in list(sys.modules.items()):
        origin = getattr(module, "__file__", None)
        if not origin or not origin.endswith(".py") or name == "__main__":
            continue
        file = Path(origin).resolve()
        if any(file.is_relative_to(folder) for folder in known) or not file.is_file():
            continue
        parts = name.split(".")
        below = file.name if file.stem == parts[-1] else f"{parts[-1]}/{file.name}"
        yield "/".join([*parts[:-1], below]), file


def _installed() -> list[Path]:
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    paths += [*site.getsitepackages(), site.getusersitepackages()]
    paths += [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    return [Path(path).resolve() for path in paths if path]


def _python_files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_skipped(Path(place, name)))
        yield from (Path(place, name) for name in sorted(names) if name.endswith(".py"))


def _is_skipped(folder: Path) -> bool:
    name = folder.name
    # A virtual environment, a store: not code that anybody edits.
    return (
        name in _SKIPPED
        or name.startswith(".")
        or (folder / "pyvenv.cfg").exists()
        or (folder / ".leases").exists()
    )
