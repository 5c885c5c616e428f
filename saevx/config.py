"""saevx.toml: settings of a machine or a project, so that commands need not repeat them.

[store]
root = "/data/saevx"                  # relative to this file
roots = { shards = "/scratch/saevx" } # one kind elsewhere

[data]
cub200 = "/data/CUB_200_2011"

[profiles.cluster]                    # docs/dispatch.md
executor = "slurm"

`profile = "cluster"`, above all tables, makes that profile the default.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec

from store import KINDS, Store

FILE_NAME = "saevx.toml"

DEFAULT = ".saevx"
"""The store in the current folder, used if nothing names another one."""

Kind = Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(KINDS)})$")]

HELP = "It may have the name profile and the tables store (with root and roots), data and profiles."


class StoreConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table [store], with absolute paths."""

    root: Path | None = None
    roots: dict[Kind, Path] = {}
    """Kind of artifact -> its own folder."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of a saevx.toml, with absolute paths."""

    store: StoreConfig = StoreConfig()
    data: dict[str, Path] = {}
    """Dataset name -> folder."""
    profile: str | None = None
    """Name of the default profile."""
    profiles: dict[str, Any] = {}
    """Name -> table, which saevx.dispatch.profiles reads."""


def find_config(folder: Path) -> Path | None:
    """Return the saevx.toml in `folder` or the nearest one above it, None if there is none."""
    files = (place / FILE_NAME for place in (folder, *folder.parents))
    return next(filter(Path.is_file, files), None)


def read_config(file: Path | None) -> Config:
    """Return the contents of a saevx.toml; an empty Config without one.

    Raise ConfigError if the file cannot be read, or has names or values that it cannot have.
    """
    if file is None:
        return Config()

    def to_path(_: type, value: object) -> Path:
        if not isinstance(value, str) or not value:
            raise ValueError(f"{value!r} must be a path in quotes")
        return (file.parent / Path(value).expanduser()).absolute()

    try:
        tables = tomllib.loads(file.read_text("utf-8"))
        return msgspec.convert(tables, Config, dec_hook=to_path)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        _refuse(f"cannot read {file}: {error}")
    except msgspec.ValidationError as error:
        fault = (
            str(error).replace("`object`", "a table").replace("`$.", "`").replace(" - at `$`", "")
        )
        _refuse(f"{file}: {fault}. {HELP}")


def open_store(root: str | Path | None = None) -> Store:
    """Return the store at `root`, else at SAEVX_STORE, else where saevx.toml says, else ./.saevx.

    The store has the `roots` of the saevx.toml that names it: that of the current folder, or the
    one nearest to the store. Raise ConfigError if a saevx.toml is not valid or the store is a file.
    """
    if root is not None and not str(root):
        _refuse('the store\'s root is empty, as --store "$NAME" gives it where NAME is not set')
    config = read_config(find_config(Path.cwd()))
    default = config.store.root or Path(DEFAULT).absolute()
    chosen = root or os.environ.get("SAEVX_STORE")
    place = Path(chosen).expanduser().absolute() if chosen else default
    roots = config.store.roots if place.resolve() == default.resolve() else _roots_of(place)
    for folder in (place, *roots.values()):
        if folder.exists() and not folder.is_dir():
            _refuse(f"{folder} is a file, and a store is a folder")
    return Store(place, roots=roots)


def _roots_of(place: Path) -> dict[Kind, Path]:
    """Return the roots of the store at `place` if the nearest saevx.toml names that store."""
    file = find_config(place)
    config = read_config(file)
    named = config.store.root or (file.parent / DEFAULT if file else None)
    return config.store.roots if named and named.resolve() == place.resolve() else {}


def _refuse(message: str) -> NoReturn:
    # Imported here: it loads every spec, which commands such as `saevx ls` do not need.
    from saevx.errors import ConfigError

    raise ConfigError(message)
