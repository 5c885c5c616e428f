"""Modules of the user that saevx's own packages would hide."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from saevx.errors import ExperimentError


def refuse_shadowed_modules(path: Path) -> None:
    """Raise ExperimentError if an experiment imports its own module named spec or store.

    Python would give it saevx's package of that name, which is imported already.
    """
    own = {name: file for name in ("spec", "store") if (file := _own_module(path.parent, name))}
    for file, line, name in _imports(path) if own else ():
        if name in own:
            raise ExperimentError(
                f"{file}, line {line}: the import of {name} gives saevx's own package of that "
                f"name, not {own[name]}: rename that module"
            )


def _own_module(folder: Path, name: str) -> Path | None:
    origin = getattr(importlib.util.find_spec(name), "origin", None)
    for file in (folder / f"{name}.py", folder / name / "__init__.py"):
        if file.is_file() and not (origin and file.samefile(origin)):
            return file
    return None


def _imports(path: Path) -> Iterator[tuple[Path, int, str]]:
    """Yield file, line and top-level name of imports, also in imported modules beside `path`."""
    files = [path]
    for file in files:
        try:
            nodes = list(ast.walk(ast.parse(file.read_bytes())))
        except (OSError, SyntaxError, ValueError):
            continue  # reported when Python runs it
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
