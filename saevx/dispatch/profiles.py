"""Profiles: what jobs request, as saevx.toml says it. Nothing of it is ever in a key.

profile = "cluster"                 # used unless --profile names another

[profiles.cluster]
executor = "slurm"
account = "vision"
hours = 4
memory_gb = 16
setup = ["module load cuda"]        # lines of shell that each job runs first
environment = { HF_HOME = "/scratch/hf" }

[profiles.cluster.recipes.Shards]   # for one type of spec
gpus = 1

[[profiles.cluster.match]]          # for specs with these columns; later matches override earlier
where = { type = "TraitAP", n = 32768 }
memory_gb = 64
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import msgspec
from msgspec import Meta, Struct

from saevx.errors import ConfigError

if TYPE_CHECKING:
    from saevx.resolve.plan import Plan
    from spec import Keys

EXECUTORS = ("inline", "local", "slurm")

MOST_HOURS = 2**31 // 3600 - 1
"""Slurm counts the seconds of a time limit in 32 bits."""

Hours = Annotated[float, Meta(gt=0, le=MOST_HOURS)]
Number = Annotated[int, Meta(gt=0)]
T = TypeVar("T", bound=Struct)


class Resources(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one job requests. None leaves the choice to the cluster."""

    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    constraint: str | None = None
    hours: Hours = 1.0
    memory_gb: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    cpus: Number = 1
    gpus: Annotated[int, Meta(ge=0)] = 0
    setup: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    parallelism: Number = 256
    """Tasks of one array that may run at the same time."""
    pack: Number | None = None
    """Batches of specs that one job makes in turn. None: as many as keep arrays small."""
    parts: Number | None = None
    """Jobs that share one batch of a recipe that works in parts. None: as many as there are
    processes to use on one machine, and one on a cluster."""

    def with_memory(self, least_gb: float) -> Resources:
        """The same with at least so much memory; 0 for no more."""
        if least_gb <= (self.memory_gb or 0.0):
            return self
        return msgspec.structs.replace(self, memory_gb=least_gb)

    @property
    def text(self) -> str:
        """Jobs for which this is equal may share an array."""
        return msgspec.json.encode(self, order="sorted").decode()


class Match(Struct, frozen=True, kw_only=True):
    """Resources for specs whose exploded columns have some values."""

    where: dict[str, Any]
    changes: dict[str, Any]

    def fits(self, columns: Mapping[str, Any]) -> bool:
        return all(columns.get(name) == value for name, value in self.where.items())


class Profile(Struct, frozen=True, kw_only=True):
    """A named way to run things."""

    name: str = "default"
    executor: str = "inline"
    jobs: Number | None = None
    """Processes of the local executor."""
    follow_hours: Hours = 24.0
    """Time limit of the job of `--follow`, which is requeued when it is reached."""
    base: Resources = Resources()
    recipes: dict[str, dict[str, Any]] = {}
    """Type of spec -> what differs for it."""
    matches: tuple[Match, ...] = ()

    def resources(self, type_name: str, columns: Callable[[], Mapping[str, Any]]) -> Resources:
        """What a spec's job requests. `columns` gives the spec exploded; called only if needed."""
        changes = dict(self.recipes.get(type_name, {}))
        if self.matches:
            row = columns()
            for match in self.matches:  # a user's type, with its namespace or without
                if match.fits(row) or match.fits({**row, "type": type_name}):
                    changes |= match.changes
        return msgspec.structs.replace(self.base, **changes) if changes else self.base


def read_profile(profiles: Mapping[str, Any], name: str | None, file: object) -> Profile:
    """Read a profile from the tables of a saevx.toml; an empty one if `name` is None.

    Raise ConfigError when there is none of that name, or a setting is wrong.
    """
    if name is None:
        return Profile()
    if name not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        _refuse(f"there is no profile {name!r} in {file or 'any saevx.toml'}; known are: {known}")
    where = f"{file}: profiles.{name}"
    table = dict(_table(profiles[name], where))
    recipes, matches = table.pop("recipes", {}), table.pop("match", [])
    names = [key for key in ("executor", "jobs", "follow_hours") if key in table]
    profile = _convert(
        {"executor": "slurm"} | {key: table.pop(key) for key in names}, Profile, where
    )
    if profile.executor not in EXECUTORS:
        options = ", ".join(EXECUTORS)
        _refuse(f"{where}.executor is {profile.executor!r}; it must be one of {options}")
    if profile.jobs is not None and profile.executor != "local":
        _refuse(
            f"{where}.jobs is the number of local processes, and its executor is "
            f'{profile.executor}: use executor = "local", or `parallelism`'
        )
    if not isinstance(matches, list):
        _refuse(f"{where}.match is {matches!r}; it must be a list of tables")
    return msgspec.structs.replace(
        profile,
        name=name,
        base=_convert(table, Resources, where),
        recipes={
            spec_type: _changes(changes, f"{where}.recipes.{spec_type}")
            for spec_type, changes in _table(recipes, f"{where}.recipes").items()
        },
        matches=tuple(_match(one, f"{where}.match[{i}]") for i, one in enumerate(matches)),
    )


def _match(table: Any, where: str) -> Match:
    changes = dict(_table(table, where))
    columns = changes.pop("where", None)
    if not isinstance(columns, dict):
        _refuse(f"{where} needs `where`, a table of columns and values as `saevx ls` shows them")
    return Match(where=columns, changes=_changes(changes, where))


def _changes(table: Any, where: str) -> dict[str, Any]:
    checked = _convert(_table(table, where), Resources, where)
    return {name: getattr(checked, name) for name in table}


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(f"{where} is {value!r}; it must be a table")
    return value


def _convert(table: dict[str, Any], struct: type[T], where: str) -> T:
    try:
        return msgspec.convert(table, struct)
    except msgspec.ValidationError as error:
        known = ", ".join(struct.__struct_fields__)
        _refuse(f"{where}: {error}; known settings: {known}")


def _refuse(message: str) -> NoReturn:
    raise ConfigError(message)


def lint_profile(profile: Profile, plan: Plan, keys: Keys) -> list[str]:
    """Report types and columns of a profile that do not exist: such settings change no job.

    A profile serves many experiments: types and columns need not be in this plan.
    """
    from saevx.query.flatten import explode
    from spec import to_document
    from spec.keys.type_names import all_types

    types = {found.__name__ for found in all_types()}
    fields = {"type", "key", *(name for found in all_types() for name in found.model_fields)}
    found = [
        f"profile {profile.name}: recipes.{name}: no type of spec has that name"
        for name in profile.recipes
        if name not in types
    ]
    for i, match in enumerate(profile.matches):
        name = match.where.get("type")
        name = name.rpartition(".")[2] if isinstance(name, str) else name
        where = f"profile {profile.name}: match[{i}]"
        if name is not None and name not in types:
            found.append(f"{where}: no type of spec has the name {name!r}")
            continue
        specs = [node.spec for node in plan.nodes.values() if type(node.spec).__name__ == name]
        columns = {column for spec in specs for column in explode(to_document(spec, keys))}
        for column in match.where:
            if columns and column not in columns:
                found.append(f"{where}: {name} has no column {column!r}")
            elif not columns and column.rpartition(".")[2] not in fields:
                found.append(f"{where}: no type of spec has a field {column!r}")
    return found
