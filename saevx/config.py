"""saevx.toml: what a machine or a project says once instead of at every command.

[store]
root = "/data/saevx"                  # relative to this file
roots = { shards = "/scratch/saevx" } # one kind elsewhere

[data]
cub200 = "/data/CUB_200_2011"

[profiles.cluster]                    # docs/dispatch.md; `profile = "cluster"` above all tables
executor = "slurm"                    # makes it the one in use
"""

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from store import KINDS, Store

FILE_NAME = "saevx.toml"

DEFAULT = ".saevx"
"""The store where nothing names one, in the current folder."""


@dataclass(frozen=True)
class Config:
    """The contents of a saevx.toml, with paths made absolute."""

    file: Path | None = None
    store_root: Path | None = None
    store_roots: dict[str, Path] = field(default_factory=dict)
    """Kind of artifact -> folder."""
    data_roots: dict[str, Path] = field(default_factory=dict)
    """Dataset name -> folder."""
    profile: str | None = None
    """Name of the profile used unless another is asked for."""
    profiles: dict[str, Any] = field(default_factory=dict)
    """Name -> table, as saevx.dispatch.profiles understands it."""


def read_config(folder: Path) -> Config:
    """The nearest saevx.toml in `folder` or above it; an empty Config when there is none.

    Raises ConfigError for what cannot be parsed or is not known.
    """
    for place in (folder, *folder.parents):
        file = place / FILE_NAME
        if file.is_file():
            return _read(file)
    return Config()


def open_store(root: str | Path | None = None, config: Config | None = None) -> Store:
    """The store at `root`, else SAEVX_STORE, else where saevx.toml says, else in ./.saevx.

    However it is named, it has the `roots` of the saevx.toml that names it: that of the current
    folder, or the nearest one at the store or above it.
    Raises ConfigError when a saevx.toml cannot be used, or the store is no folder.
    """
    if root is not None and not str(root):
        _refuse('the store\'s root is empty, as --store "$NAME" gives it where NAME is not set')
    config = config or read_config(Path.cwd())
    default = config.store_root or Path(DEFAULT).absolute()
    elsewhere = root or os.environ.get("SAEVX_STORE")
    place = Path(elsewhere).expanduser().absolute() if elsewhere else default
    roots = config.store_roots
    if place.resolve() != default.resolve():  # another store: its kinds lie where its own file says
        other = read_config(place)
        roots = other.store_roots if _names(other, place) else {}
    for folder in (place, *roots.values()):
        if folder.exists() and not folder.is_dir():
            _refuse(f"{folder} is a file, and a store is a folder")
    return Store(place, roots=roots)


def _names(config: Config, place: Path) -> bool:
    """Whether the store at `place` is the one of a saevx.toml."""
    if config.file is None:
        return False
    named = config.store_root or config.file.parent / DEFAULT
    return named.resolve() == place.resolve()


def _read(file: Path) -> Config:
    try:
        tables = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        _refuse(f"cannot read {file}: {error}")
    _only(file, "", tables, {"store", "data", "profile", "profiles"})
    store = _table(file, "store", tables)
    _only(file, "store.", store, {"root", "roots"})
    unknown = sorted(_table(file, "roots", store).keys() - set(KINDS))
    if unknown:
        _refuse(f"{file}: store.roots.{unknown[0]} is no kind; kinds are {', '.join(KINDS)}")
    profile = tables.get("profile")
    if profile is not None and not isinstance(profile, str):
        _refuse(f"{file}: profile is {profile!r}; it must be the name of a profile")
    root = _paths(file, "store", {"root": store["root"]} if "root" in store else {})
    return Config(
        file=file,
        store_root=root.get("root"),
        store_roots=_paths(file, "store.roots", _table(file, "roots", store)),
        data_roots=_paths(file, "data", _table(file, "data", tables)),
        profile=profile,
        profiles=_table(file, "profiles", tables),
    )


def _table(file: Path, name: str, tables: dict[str, Any]) -> dict[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, dict):
        _refuse(f"{file}: {name} is {table!r}; it must be a table of names and values")
    return table


def _only(file: Path, prefix: str, table: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(table.keys() - known)
    if unknown:
        names = ", ".join(prefix + name for name in unknown)
        _refuse(f"{file}: {names} is not known; known are {', '.join(sorted(known))}")


def _paths(file: Path, name: str, table: dict[str, Any]) -> dict[str, Path]:
    for entry, value in table.items():
        if not isinstance(value, str) or not value:
            _refuse(f"{file}: {name}.{entry} is {value!r}; it must be a path in quotes")
    return {
        entry: (file.parent / Path(value).expanduser()).absolute() for entry, value in table.items()
    }


def _refuse(message: str) -> NoReturn:
    from saevx.errors import (
        ConfigError,  # here, since it loads every spec, which `saevx ls` can spare
    )

    raise ConfigError(message)
