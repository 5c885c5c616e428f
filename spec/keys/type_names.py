"""Names of spec types in keys: bare for saevx's own, with a namespace for users' types.

Without the namespace, two people's `KMeans` with equal fields would share artifacts.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from spec.errors import SpecError
from spec.keys.model import SpecModel

EXPERIMENT_MODULE = "saevx_experiment_"
"""Before the stem of an experiment's file, the name of the module that it is loaded as."""

_OURS = ("spec", "saevx")
"""Packages whose types count by their bare name."""


def is_user_defined(thing: Any) -> bool:
    """Return whether a class or function was declared outside saevx."""
    return str(thing.__module__).partition(".")[0] not in _OURS


def type_name(spec_type: type[SpecModel]) -> str:
    """Return the name of a spec type in keys and documents, as `Shards` or `my_study.KMeans`.

    A type with `formerly` keeps the first of its former names, so that its keys stay. Raises
    SpecError for a type declared in a notebook without a `namespace`.
    """
    if former := former_names(spec_type):
        return former[0]
    if not is_user_defined(spec_type):
        return spec_type.__name__
    return f"{_namespace(spec_type)}.{spec_type.__name__}"


def former_names(spec_type: type[SpecModel]) -> tuple[str, ...]:
    """Return what the type itself, not a base, declares as `formerly`."""
    names: tuple[str, ...] = vars(spec_type).get("formerly", ())
    return names


def _namespace(spec_type: type[SpecModel]) -> str:
    if spec_type.namespace is not None:
        return spec_type.namespace
    module = spec_type.__module__
    if module in ("__main__", "__mp_main__"):
        if not spec_type._file:
            raise SpecError(
                f"{spec_type.__name__} is declared in a notebook or at a prompt, so its name alone "
                "may be that of another type tomorrow: give its class a namespace, as in "
                '`namespace: ClassVar[str] = "my_study"`, or declare it in a file'
            )
        return Path(spec_type._file).stem
    return module.removeprefix(EXPERIMENT_MODULE)


def check_type_names(spec_type: type[SpecModel]) -> None:
    """Raise TypeError for a `namespace` or `formerly` that is no name."""
    namespace, former = spec_type.namespace, former_names(spec_type)
    if namespace is not None and not _is_dotted(namespace):
        raise TypeError(
            f"{spec_type.__name__}.namespace is {namespace!r}; it must be a dotted name, as in "
            '"my_lab.birds"'
        )
    if not isinstance(former, tuple) or not all(isinstance(n, str) and n for n in former):
        raise TypeError(
            f"{spec_type.__name__}.formerly is {former!r}; it must be a tuple of former names with "
            'their namespaces, the oldest first, as in ("old_study.KMeans",)'
        )


def _is_dotted(name: object) -> bool:
    return isinstance(name, str) and all(part.isidentifier() for part in name.split("."))


def check_is_only(spec_type: type[SpecModel], others: Iterable[type[SpecModel]]) -> None:
    """Raise SpecError if one of the other types has the same name in keys.

    A notebook's cell that runs again, and a module that is reloaded, declare a type anew: the later
    declaration replaces the earlier one.
    """
    name, home = type_name(spec_type), _home(spec_type)
    for other in others:
        if _home(other) != home and _name_or_none(other) == name:
            raise SpecError(
                f"two spec types are called {name} in keys, so they would share artifacts: {home} "
                f"and {_home(other)}; give one of the classes a namespace of its own, as in "
                '`namespace: ClassVar[str] = "my_study"`'
            )


def _home(spec_type: type[SpecModel]) -> str:
    """Return where a type is declared. Local classes are told apart by their module alone."""
    inside = spec_type.__qualname__
    place = spec_type.__name__ if "<locals>" in inside else inside
    return f"{spec_type.__module__}.{place}" + (f" of {spec_type._file}" if spec_type._file else "")


def present_types() -> Iterator[type[SpecModel]]:
    """Yield `all_types` but those of modules that another file has replaced since."""
    for found in all_types():
        if file_of(found.__module__) == found._file:
            yield found


def file_of(module: str) -> str:
    """Return the file of an imported module; "" for a notebook."""
    return getattr(sys.modules.get(module), "__file__", None) or ""


def _name_or_none(spec_type: type[SpecModel]) -> str | None:
    try:
        return type_name(spec_type)
    except SpecError:
        return None


def all_types() -> Iterator[type[SpecModel]]:
    """Yield the spec types of all imported modules, each after its bases."""
    waiting: list[type[SpecModel]] = [SpecModel]
    for found in waiting:
        if found._is_declared:
            yield found
        # In order of declaration: a notebook cell that runs again declares its types again.
        waiting.extend(found.__subclasses__())


def named_types() -> dict[str, type[SpecModel]]:
    """Return the spec types of all imported modules by present and former names; the latest
    declaration where a name was declared again.
    """
    types: dict[str, type[SpecModel]] = {}
    for found in all_types():
        names = (_name_or_none(found), *former_names(found))
        types |= {name: found for name in names if name is not None}
    return types
