"""The code of a run, copied, so that editing a checkout changes nothing that is queued.

code/rooms/      saevx, spec and store
code/files/      the experiment file, its neighbours, and what else the user's code imports
code/files.json  the digests of all these; its own is part of the job, as checked_start.py says
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import xxhash

from saevx.dispatch.code import checked_start
from saevx.dispatch.code.files import N_FILES, code_files
from saevx.dispatch.code.imports import imported
from saevx.errors import ExperimentError, SaevxWarning, StoreError
from saevx.experiments.load import CODE

ROOMS = ("saevx", "spec", "store")


class Snapshot:
    """The files that a run's code is made of, as they are now.

    `files` are files and folders that it needs besides. Raises ExperimentError for one that is not
    there, or that has no place in the copy.
    """

    def __init__(self, experiment: Path | None, files: Iterable[Path] = ()) -> None:
        rooms = Path(__file__).resolve().parents[3]
        self.experiment = experiment.resolve() if experiment else None
        self._files: dict[str, bytes] = {}
        copied = os.environ.get(CODE)
        if copied:  # this process itself runs a copy: hand on the same
            for part in ("rooms", "files"):
                for file in _all_files(Path(copied) / part):
                    self._add(str(file.relative_to(copied)), file)
            return
        for room in ROOMS:
            for file in code_files(rooms / room):
                self._add(f"rooms/{file.relative_to(rooms)}", file)
        if self.experiment:
            for name, file in _users_files(self.experiment):
                self._add(f"files/{name}", file)
            for name, file in _data_files(self.experiment, files):
                self._add(f"files/{name}", file)

    def _add(self, name: str, file: Path) -> None:
        # One that goes while we look was no code of ours.
        with suppress(OSError):
            self._files.setdefault(name, file.read_bytes())

    @property
    def digest(self) -> str:
        """Differs when any of the files does."""
        digest = xxhash.xxh3_128()
        for name, data in sorted(self._files.items()):
            digest.update(f"{name}\0{len(data)}\0".encode() + data)
        return digest.hexdigest()

    def write(self, code: Path) -> str:
        """Copy the code into a new folder, which others cannot write to. Returns its digest.

        Raises StoreError where it cannot be written.
        """
        if os.pathsep in str(code):
            raise StoreError(
                f"jobs cannot import code from {code}: PYTHONPATH takes no path that holds "
                f"{os.pathsep!r}. Use another store"
            )
        folders = {folder for name in self._files for folder in (code / name).parents}
        try:
            # Created without write permission for others, so that neither a umask of 0 nor a
            # default ACL of the store can grant it.
            for folder in sorted(folder for folder in folders if folder.is_relative_to(code)):
                os.mkdir(folder, 0o755)
            for name, data in self._files.items():
                _write_new(code / name, data)
            at = code.stat()
            private = at.st_uid == os.geteuid() and not at.st_mode & checked_start.WRITABLE
            digests = {name: sha256(data).hexdigest() for name, data in self._files.items()}
            listing = json.dumps({"private": private, "sha256": digests}).encode()
            _write_new(code / checked_start.LISTING, listing)
        except OSError as error:
            raise StoreError(f"cannot copy code to {code}: {error}") from error
        return sha256(listing).hexdigest()

    def experiment_in(self, code: Path) -> Path | None:
        """The copy of the experiment file."""
        return code / "files" / self.experiment.name if self.experiment else None


def command(code: Path, digest: str, module: str, *words: str) -> list[str]:
    """The command that runs a module of a copy, if that is as it was when its digest was taken.

    The current folder, in which an experiment may lie, stays off the path: there is the original.
    """
    start = Path(checked_start.__file__).read_text()
    return [sys.executable, "-u", "-P", "-c", start, str(code), digest, module, *words]


def _write_new(file: Path, data: bytes) -> None:
    with open(file, "xb", opener=lambda path, flags: os.open(path, flags, 0o644)) as out:
        out.write(data)


def _users_files(experiment: Path) -> Iterator[tuple[str, Path]]:
    """Files by name in the copy: what the experiment imports, and what lies beside it."""
    here = experiment.parent
    yield experiment.name, experiment
    yield from imported(experiment)
    for n, file in enumerate(code_files(here)):
        if n == N_FILES:
            warnings.warn(
                f"{here} holds more than {N_FILES} files of code: jobs get so many, and what "
                f"{experiment.name} imports. Keep experiments in a folder of their own",
                SaevxWarning,
                stacklevel=2,
            )
            return
        yield str(file.relative_to(here)), file


def _data_files(experiment: Path, files: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """What an experiment names in `job_files`, by its place beside the modules of the copy."""
    tops = [experiment.parent, *(Path(os.path.abspath(place)) for place in sys.path if place)]
    for file in files:
        top = next((top for top in tops if file.is_relative_to(top)), None)
        if top is None or not file.exists():
            why = "does not exist" if top else "lies neither beside it nor where it imports from"
            raise ExperimentError(f"{experiment}: job_files names {file}, which {why}")
        for one in _all_files(file) if file.is_dir() else [file]:
            yield str(one.relative_to(top)), one


def missing_file_hint(error: BaseException | None, code: Path) -> str:
    """What helps where a copied module does not find a file beside it; "" for other errors."""
    while error is not None:
        if isinstance(error, FileNotFoundError | NotADirectoryError) and str(code) in str(error):
            return (
                "\njobs run a copy of the code, which lacks this file: "
                "name it in `job_files = [...]` of the experiment, as docs/dispatch.md says"
            )
        error = error.__cause__ or error.__context__
    return ""


def _all_files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        yield from (Path(place, name) for name in sorted(names))
