"""Copy the code of a run, so that edits of a checkout do not affect queued jobs.

code/packages/    saevx, spec and store
code/experiment/  the experiment file, the files beside it, and what else it imports
code/files.json   the digests of all files; checked_start.py compares them
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from itertools import chain
from pathlib import Path

from saevx.dispatch.code import checked_start
from saevx.dispatch.code.files import N_FILES, code_files
from saevx.dispatch.code.imports import PACKAGES, ROOT, imported
from saevx.errors import ExperimentError, SaevxWarning, StoreError
from saevx.experiments.load import CODE


class Snapshot:
    """The files of a run's code, read when this is constructed.

    `files` are the files and folders that the experiment names in `job_files`. Raises
    ExperimentError if one does not exist or has no place in the copy.
    """

    def __init__(self, experiment: Path | None, files: Iterable[Path] = ()) -> None:
        self._files: dict[str, bytes] = {}
        for name, file in _find_files(experiment, files):
            if name not in self._files:
                with suppress(OSError):  # it was removed meanwhile
                    self._files[name] = file.read_bytes()
        self._digests = {name: sha256(self._files[name]).hexdigest() for name in self._files}

    @property
    def digest(self) -> str:
        """Differs if any file differs."""
        return sha256(json.dumps(self._digests, sort_keys=True).encode()).hexdigest()

    def write(self, code: Path) -> str:
        """Write the copy into a new folder that others cannot write to.

        Returns the digest of its listing. Raises StoreError if it cannot be written.
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
            listing = json.dumps({"private": private, "sha256": self._digests}).encode()
            _write_new(code / checked_start.LISTING, listing)
        except OSError as error:
            raise StoreError(f"cannot copy code to {code}: {error}") from error
        return sha256(listing).hexdigest()


def command(code: Path, digest: str, module: str, *words: str) -> list[str]:
    """Return the command that checks a copy against its digest and runs a module of it.

    The current folder is not on the search path: it may hold the original experiment.
    """
    start = Path(checked_start.__file__).read_text()
    return [sys.executable, "-u", "-P", "-c", start, str(code), digest, module, *words]


def _write_new(file: Path, data: bytes) -> None:
    with open(file, "xb", opener=lambda path, flags: os.open(path, flags, 0o644)) as out:
        out.write(data)


def _find_files(experiment: Path | None, files: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Yield the files to copy, with their names in the copy. The first of one name counts."""
    if copied := os.environ.get(CODE):  # this process runs a copy: its jobs get the same
        for file in _all_files(Path(copied)):
            if file != Path(copied, checked_start.LISTING):
                yield str(file.relative_to(copied)), file
        return
    for package in PACKAGES:
        for file in code_files(ROOT / package):
            yield f"packages/{file.relative_to(ROOT)}", file
    if experiment is not None:
        experiment = experiment.resolve()
        for name, file in chain(_experiment_files(experiment), _job_files(experiment, files)):
            yield f"experiment/{name}", file


def _experiment_files(experiment: Path) -> Iterator[tuple[str, Path]]:
    """Yield the experiment, what it imports, and the code in its folder."""
    here = experiment.parent
    yield experiment.name, experiment
    yield from imported(experiment)
    for n, file in enumerate(code_files(here)):
        if n == N_FILES:
            warnings.warn(
                f"{here} holds more than {N_FILES} files of code: jobs get the first {N_FILES} and "
                f"what {experiment.name} imports. Keep experiments in a folder of their own",
                SaevxWarning,
                stacklevel=2,
            )
            return
        yield str(file.relative_to(here)), file


def _job_files(experiment: Path, files: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Yield what an experiment names in `job_files`, to lie beside the same modules as before."""
    tops = [experiment.parent, *(Path(os.path.abspath(place)) for place in sys.path if place)]
    for file in files:
        top = next((top for top in tops if file.is_relative_to(top)), None)
        if top is None or not file.exists():
            why = "does not exist" if top else "is neither beside it nor on the search path"
            raise ExperimentError(f"{experiment}: job_files names {file}, which {why}")
        for one in _all_files(file) if file.is_dir() else [file]:
            yield str(one.relative_to(top)), one


def _all_files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        yield from (Path(place, name) for name in sorted(names))
