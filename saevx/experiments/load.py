"""Experiment files: Python that defines `targets`, and perhaps `report(table)` and `job_files`.

`targets` is a list of specs, or a function. A function may be a generator: each `yield` of specs
comes back as their table (where they are not all tables, as a list of what `saevx.load` gives), so
a later choice is code.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from inspect import isgenerator, isgeneratorfunction
from pathlib import Path
from pkgutil import get_importer
from types import ModuleType
from typing import Any

from saevx.errors import ExperimentError
from spec import Artifact

CODE = "SAEVX_CODE"
"""Names a folder with a copy of the code, as dispatch makes it: experiments are read from there."""


@dataclass(frozen=True)
class Experiment:
    """What to make, and what to report of it: an experiment file's, or what a notebook gives."""

    path: Path | None
    """The file of its code, which jobs run a copy of; None for code of a notebook's cells."""
    targets: Any
    """Specs, or a function that gives some or yields several lists of them."""
    report: Callable[..., Any] | None = None
    """Takes the table of all results; gives frames and charts, by name."""
    files: tuple[Path, ...] = ()
    """What `job_files` names: files and folders, besides the code, that jobs get a copy of."""
    is_file: bool = True
    """Whether this is all that the file defines, so that its last run keeps what it wants."""

    @property
    def name(self) -> str:
        """The file's name without .py."""
        return self.path.stem if self.path else "notebook"

    @property
    def label(self) -> str:
        """What messages call it."""
        return str(self.path or self.name)

    @property
    def is_staged(self) -> bool:
        """Whether later specs may follow from the tables of earlier ones."""
        return isgeneratorfunction(self.targets) or _is_staged(self.targets)

    def stages(self, give_back: Callable[[list[Artifact]], Any]) -> Iterator[list[Artifact]]:
        """Lists of specs, each to be made before the next one is asked for.

        A staged experiment gets what `give_back` finds for them. Raises ExperimentError when the
        user's code fails, or gives something else than specs.
        """
        found = self.targets
        if callable(found):
            found = self.call(found)
        if not _is_staged(found):
            yield self._check(found)
            return
        specs = None
        while True:
            given = give_back(specs) if specs else None
            try:
                specs = found.send(given)
            except StopIteration:
                break
            except (Exception, SystemExit) as error:
                raise self.error(error) from error
            specs = self._check(specs)
            yield specs
        if not specs:
            raise ExperimentError(f"{self.label}: targets yield nothing: there is nothing to make")

    def call(self, code: Callable[..., Any], *args: Any) -> Any:
        """What the user's code gives. Raises ExperimentError, with its lines, when it fails."""
        try:
            return code(*args)
        except (Exception, SystemExit) as error:
            raise self.error(error) from error

    def error(self, error: BaseException) -> ExperimentError:
        return user_error(self.path, error)

    def _check(self, specs: Any) -> list[Artifact]:
        if isinstance(specs, Artifact) or not isinstance(specs, Iterable):
            raise ExperimentError(
                f"{self.label}: targets give {type(specs).__name__}; they must be a list of specs"
            )
        found: list[Artifact] = self.call(list, specs)
        if not found:
            raise ExperimentError(
                f"{self.label}: targets are an empty list: there is nothing to make"
            )
        for i, spec in enumerate(found):
            if not isinstance(spec, Artifact) or not hasattr(type(spec), "kind"):
                raise ExperimentError(
                    f"{self.label}: target {i} is {spec!r:.200}; each must be the spec of an "
                    "artifact, as Shards(...) or TraitAP(...)"
                )
        return found


def _is_staged(targets: Any) -> bool:
    """Whether it is a generator that gets something back, and no expression like one."""
    return isgenerator(targets) and targets.gi_code.co_name != "<genexpr>"


def load_experiment(path: Path) -> Experiment:
    """Run an experiment file and take `targets`, `report` and `job_files` out of it.

    Raises ExperimentError when it is not there, raises, or defines no targets.
    """
    code = os.environ.get(CODE)
    copy = copy_in(Path(code), path) if code else None
    if not (copy or path).is_file():
        raise ExperimentError(f"there is no experiment file {copy or path}")
    try:
        str(path.resolve()).encode()
    except UnicodeEncodeError:
        raise ExperimentError(f"{str(path)!a}: rename it or its folder in UTF-8") from None
    module = _execute(path.resolve(), copy)
    if not hasattr(module, "targets"):
        raise ExperimentError(
            f"{path} defines no targets: add `targets = [...]`, a list of specs, or a function "
            "`def targets(): ...` that gives or yields some"
        )
    report = getattr(module, "report", None)
    if report is not None and not callable(report):
        raise ExperimentError(f"{path}: report is {report!r}; it must be a function of a table")
    return Experiment(path, module.targets, report, _files(path, getattr(module, "job_files", ())))


def _files(path: Path, named: Any) -> tuple[Path, ...]:
    if not isinstance(named, list | tuple) or not all(isinstance(n, str | Path) for n in named):
        raise ExperimentError(f"{path}: job_files is {named!r:.200}; it must be a list of paths")
    return tuple(Path(os.path.abspath(path.resolve().parent / name)) for name in named)


def copy_in(code: Path, path: Path) -> Path:
    """Return the path of an experiment file in a copy of the code."""
    return code / "experiment" / path.name


def import_copy(path: Path, copy: Path) -> ModuleType:
    """Run the copy of an experiment file for the spec types and recipes that it defines.

    It is told that it lies at `path`, where its data may lie beside it; modules that it imports
    are first looked for beside the copy. Raises ExperimentError when it raises.
    """
    return _execute(path, copy)


def _execute(path: Path, copy: Path | None = None) -> ModuleType:
    name = f"saevx_experiment_{path.stem}"
    loader = _loader_of(copy)(name, str(copy)) if copy else None
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None or spec.loader is None:
        raise ExperimentError(f"{path} is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    neighbours = str((copy or path).parent)
    _refuse_hidden(copy or path)
    if neighbours not in sys.path:
        # As if it were run, so that it can import its neighbours, within its functions too.
        sys.path.insert(0, neighbours)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise user_error(path, error) from error
    return module


def _loader_of(copy: Path) -> type[SourceFileLoader]:
    """That of the modules beside a copy: in a job, it takes the bytes that were checked."""
    return getattr(get_importer(str(copy.parent)), "loader", SourceFileLoader)


def _refuse_hidden(path: Path) -> None:
    """Raise ExperimentError where an experiment imports a module of its own named spec or store.

    Python would give it saevx's, which are imported already.
    """
    for name in ("spec", "store"):
        origin = getattr(importlib.util.find_spec(name), "origin", None)
        for own in (path.parent / f"{name}.py", path.parent / name / "__init__.py"):
            if not own.is_file() or (origin and own.samefile(origin)):
                continue
            for file, line, imported in _imports(path):
                if imported == name:
                    raise ExperimentError(
                        f"{file}, line {line}: the import of {name} gives saevx's own package of "
                        f"that name, not {own}: rename that module"
                    )


def _imports(path: Path) -> Iterator[tuple[Path, int, str]]:
    """What a file and the modules beside it that it imports import: file, line, top-level name."""
    files = [path]
    for file in files:
        try:
            nodes = list(ast.walk(ast.parse(file.read_bytes())))
        except (OSError, SyntaxError, ValueError):
            continue  # told when it is run
        for node in nodes:
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            else:
                continue
            for name in (full.partition(".")[0] for full in names):
                yield file, node.lineno, name
                beside = path.parent / f"{name}.py"
                if beside.is_file() and beside not in files:
                    files.append(beside)


def user_error(path: Path | None, error: BaseException) -> ExperimentError:
    """The error of a user's code, with the lines of that code that led to it."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not path or Path(f.filename).resolve() == path.resolve()]
    where = "".join(traceback.format_list(own[-3:]))
    text = "".join(traceback.format_exception_only(error)).strip()
    return ExperimentError(f"{path or 'the notebook'} raised an error:\n{where}{text}")
