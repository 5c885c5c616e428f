"""Experiment files: Python that defines `targets`, and perhaps `report(table)` and `job_files`.

`targets` is a list of specs, or a function that returns one. The function may be a generator: each
`yield` of specs evaluates to their table (or, unless all are tables, to a list of what `saevx.load`
returns), so that a later choice is code.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from pkgutil import get_importer
from types import ModuleType
from typing import Any

from saevx.errors import ExperimentError
from saevx.experiments.experiment import Experiment, user_error
from saevx.experiments.shadowed_modules import refuse_shadowed_modules
from spec.keys.type_names import EXPERIMENT_MODULE

CODE = "SAEVX_CODE"
"""Environment variable: the folder of a copy of the code, from which experiments are read."""


def load_experiment(path: Path) -> Experiment:
    """Run an experiment file and return its `targets`, `report` and `job_files`.

    Raises ExperimentError when it does not exist, raises, or defines no targets.
    """
    code = os.environ.get(CODE)
    copy = copy_in(Path(code), path) if code else None
    if not (copy or path).is_file():
        raise ExperimentError(f"there is no experiment file {copy or path}")
    try:
        str(path.resolve()).encode()
    except UnicodeEncodeError:
        raise ExperimentError(f"{str(path)!a}: rename it or its folder in UTF-8") from None
    module = import_file(path.resolve(), copy)
    if not hasattr(module, "targets"):
        raise ExperimentError(
            f"{path} defines no targets: add `targets = [...]`, a list of specs, or a function "
            "`def targets(): ...` that gives or yields some"
        )
    report = getattr(module, "report", None)
    if report is not None and not callable(report):
        raise ExperimentError(f"{path}: report is {report!r}; it must be a function of a table")
    return Experiment(path, module.targets, report, _files(path, getattr(module, "job_files", ())))


def copy_in(code: Path, path: Path) -> Path:
    """Return the path of an experiment file in a copy of the code."""
    return code / "experiment" / path.resolve().name


def import_file(path: Path, copy: Path | None = None) -> ModuleType:
    """Run an experiment file, or a copy of it in its place.

    `__file__` is `path` in both cases, so that the file finds its data. Modules are first looked
    for beside the file that runs. Raises ExperimentError when it raises.
    """
    source = copy or path
    name = f"{EXPERIMENT_MODULE}{path.stem}"
    loader = _loader_of(copy)(name, str(copy)) if copy else None
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None or spec.loader is None:
        raise ExperimentError(f"{path} is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    refuse_shadowed_modules(source)
    if str(source.parent) not in sys.path:
        # As when Python runs the file. It stays, since functions may import later.
        sys.path.insert(0, str(source.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise user_error(path, error) from error
    return module


def _loader_of(copy: Path) -> type[SourceFileLoader]:
    """Return the loader of modules beside a copy; in a job it runs the bytes that were checked."""
    return getattr(get_importer(str(copy.parent)), "loader", SourceFileLoader)


def _files(path: Path, named: Any) -> tuple[Path, ...]:
    if not isinstance(named, list | tuple) or not all(isinstance(n, str | Path) for n in named):
        raise ExperimentError(f"{path}: job_files is {named!r:.200}; it must be a list of paths")
    return tuple(Path(os.path.abspath(path.resolve().parent / name)) for name in named)
