"""Digests of the code that makes users' types: what their recipes are, not only their versions.

A key counts the version of a type, which is raised by hand. The digest tells when somebody forgot,
and when a colleague's type of the same name found the artifacts of this one.
"""

from __future__ import annotations

import ast
import inspect
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import xxhash

from saevx.resolve.recipe import Recipe, declared_recipes
from spec.keys.type_names import is_user_defined, type_name

_CONSTANTS = (bool, int, float, complex, str, bytes, tuple, frozenset, type(None))

_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})


def source_digests() -> dict[str, str]:
    """Return the digest of the code of each user-defined type with a recipe, by its name in keys.

    It covers the type, its recipe, and all functions, classes and constants that these use, as far
    as they are the user's own. Comments, formatting and docstrings do not count.
    """
    return {
        type_name(recipe.spec_type): _digest(recipe)
        for recipe in declared_recipes()
        if is_user_defined(recipe.spec_type)
    }


def _digest(recipe: Recipe[Any]) -> str:
    texts: dict[tuple[str, str], str] = {}
    """Module and name of what is used -> its code, or value."""
    parts = (recipe.parts.count, recipe.parts.make) if recipe.parts else ()
    waiting = [recipe.spec_type, recipe.make, recipe.batch_by, recipe.load, *parts]
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, FunctionType | type) and _is_own(thing.__module__):
            place = thing.__module__, thing.__qualname__
            if place not in texts:
                texts[place] = _source(thing)
                for module, name, used in _uses(thing):
                    if isinstance(used, _CONSTANTS):
                        texts[module, name] = repr(used)
                    else:
                        waiting.append(used)
    # Without the names of modules: a file may be renamed.
    code = sorted((name, text) for (_, name), text in texts.items())
    return xxhash.xxh3_128_hexdigest(repr(code).encode())


def _is_own(module: str) -> bool:
    """Return whether a module is the user's, not saevx's nor that of an installed package."""
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    installed = module == "builtins" or file.startswith(_INSTALLED)
    return not installed and module.partition(".")[0] not in ("saevx", "spec", "store")


def _source(thing: FunctionType | type) -> str:
    """Return the code without comments, formatting and docstrings; "" where it is not known."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError, SyntaxError):
        return ""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        if isinstance(node, ast.ClassDef):
            node.body = [line for line in node.body if not _names_type(line)]
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            node.body = node.body or [ast.Pass()]
    return ast.unparse(tree)


def _names_type(line: ast.stmt) -> bool:
    """Return whether a line of a class sets its name in keys, and no more."""
    targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
    return any(isinstance(t, ast.Name) and t.id in ("formerly", "namespace") for t in targets)


def _uses(thing: FunctionType | type) -> Iterator[tuple[str, str, Any]]:
    """Yield module, name and value of the globals that a function or a class's methods mention."""
    if isinstance(thing, type):
        yield from ((base.__module__, base.__qualname__, base) for base in thing.__bases__)
        for member in vars(thing).values():
            function = getattr(member, "fget", None) or getattr(member, "__func__", member)
            if isinstance(function, FunctionType):
                yield from _uses(function)
        return
    names = sorted(set(_names_in(thing.__code__)))
    for name in names:
        value = thing.__globals__.get(name, ...)
        if not isinstance(value, ModuleType):
            yield thing.__module__, name, value
        elif _is_own(value.__name__):  # as in `helpers.fit(...)`
            yield from ((value.__name__, n, vars(value)[n]) for n in names if n in vars(value))


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)
