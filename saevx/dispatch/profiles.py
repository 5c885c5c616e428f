"""Profiles: what jobs ask for, as saevx.toml says it. Nothing of it is ever in a key.

profile = "cluster"                 # used where no --profile says otherwise

[profiles.cluster]
executor = "slurm"
account = "vision"
hours = 4
memory_gb = 16
setup = ["module load cuda"]        # lines of shell that each job runs first
environment = { HF_HOME = "/scratch/hf" }

[profiles.cluster.recipes.Shards]   # for one recipe
gpus = 1

[[profiles.cluster.match]]          # for specs whose columns are so; the last one that fits counts
where = { type = "TraitAP", n = 32768 }
memory_gb = 64
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import msgspec

from saevx.errors import ConfigError

EXECUTORS = ("inline", "local", "slurm")

MOST_HOURS = 2**31 // 3600 - 1
"""Slurm counts the seconds of a time limit in 32 bits."""


class Resources(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one job asks for. None leaves the choice to the cluster."""

    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    constraint: str | None = None
    hours: float = 1.0
    memory_gb: float | None = None
    cpus: int = 1
    gpus: int = 0
    setup: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    parallelism: int = 256
    """Elements of one array that may run at the same time."""
    pack: int | None = None
    """Batches of specs that one job makes in turn. None: as many as keep arrays small."""

    parts: int | None = None
    """Jobs that share one batch of a recipe that works in parts. None: as many as there are
    processes to use on one machine, and one on a cluster."""

    def with_memory(self, least_gb: float) -> Resources:
        """The same with so much memory at least, for what ran out of it; 0 for no more."""
        if least_gb <= (self.memory_gb or 0.0):
            return self
        return msgspec.structs.replace(self, memory_gb=least_gb)

    @property
    def text(self) -> str:
        """Jobs for which this is equal may share an array."""
        return msgspec.json.encode(self, order="sorted").decode()


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """Resources for specs whose exploded columns have some values."""

    where: dict[str, Any]
    changes: dict[str, Any]

    def fits(self, columns: Mapping[str, Any]) -> bool:
        return all(columns.get(name) == value for name, value in self.where.items())


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A named way to run things."""

    name: str = "default"
    executor: str = "inline"
    jobs: int | None = None
    """Processes of the local executor."""
    follow_hours: float = 24.0
    """Of the job that `--follow` makes; it puts itself back into the queue when they are over."""
    base: Resources = Resources()
    recipes: dict[str, dict[str, Any]] = {}
    """Type of spec -> what differs for it."""
    matches: tuple[Match, ...] = ()

    def resources(self, type_name: str, columns: Callable[[], Mapping[str, Any]]) -> Resources:
        """What a spec's job asks for. `columns` gives the spec exploded; called only if needed."""
        changes = dict(self.recipes.get(type_name, {}))
        if self.matches:
            row = columns()
            for match in self.matches:
                if match.fits(row):
                    changes |= match.changes
        return msgspec.structs.replace(self.base, **changes) if changes else self.base


def read_profile(profiles: Mapping[str, Any], name: str | None, file: object) -> Profile:
    """The profile of that name in the tables of a saevx.toml; an empty one for None.

    Raises ConfigError when there is none of that name, or it says what cannot be understood.
    """
    if name is None:
        return Profile()
    if name not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        _refuse(f"there is no profile {name!r} in {file or 'any saevx.toml'}; known are: {known}")
    table, where = profiles[name], f"{file}: profiles.{name}"
    if not isinstance(table, dict):
        _refuse(f"{where} is {table!r}; it must be a table")
    table = dict(table)
    executor, jobs = table.pop("executor", "slurm"), table.pop("jobs", None)
    if executor not in EXECUTORS:
        _refuse(f"{where}.executor is {executor!r}; it must be one of {', '.join(EXECUTORS)}")
    if jobs is not None and (not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1):
        _refuse(f"{where}.jobs is {jobs!r}; it must be a number of processes")
    recipes, matches = table.pop("recipes", {}), table.pop("match", [])
    if jobs is not None and executor != "local":
        _refuse(
            f"{where}.jobs is the number of local processes, and its executor is {executor}: "
            'use executor = "local", or `parallelism`'
        )
    follow_hours = table.pop("follow_hours", 24.0)
    if not isinstance(follow_hours, int | float) or isinstance(follow_hours, bool):
        _refuse(f"{where}.follow_hours is {follow_hours!r}; it must be a number of hours")
    _check_hours(follow_hours, f"{where}.follow_hours")
    if not isinstance(recipes, dict) or not isinstance(matches, list):
        _refuse(f"{where}: recipes must be tables by type of spec, match a list of tables")
    made = Profile(
        name=name,
        executor=executor,
        jobs=jobs,
        follow_hours=float(follow_hours),
        base=_resources(table, where),
        recipes={one: _changes(what, f"{where}.recipes.{one}") for one, what in recipes.items()},
        matches=tuple(_match(one, f"{where}.match[{i}]") for i, one in enumerate(matches)),
    )
    return made


def _match(table: Any, where: str) -> Match:
    if not isinstance(table, dict) or not isinstance(table.get("where"), dict):
        _refuse(f"{where} needs `where`, a table of columns and values as `saevx ls` shows them")
    changes = {name: value for name, value in table.items() if name != "where"}
    return Match(where=table["where"], changes=_changes(changes, where))


def _changes(table: Any, where: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        _refuse(f"{where} is {table!r}; it must be a table")
    checked = _resources(table, where)
    return {name: getattr(checked, name) for name in table}


def _resources(table: dict[str, Any], where: str) -> Resources:
    try:
        made = msgspec.convert(table, Resources, strict=True)
    except msgspec.ValidationError as error:
        known = ", ".join(Resources.__struct_fields__)
        _refuse(f"{where}: {error}; known are {known}")
    for name in ("hours", "memory_gb", "cpus", "parallelism", "pack", "parts"):
        value = getattr(made, name)
        if value is not None and not 0 < value < float("inf"):
            _refuse(f"{where}.{name} is {value}; it must be above zero")
    _check_hours(made.hours, f"{where}.hours")
    if made.gpus < 0:
        _refuse(f"{where}.gpus is {made.gpus}; it must be zero or above")
    return made


def _check_hours(hours: float, where: str) -> None:
    if not 0 < hours <= MOST_HOURS:
        _refuse(f"{where} is {hours}; it must be above zero, and {MOST_HOURS:,} at most")


def _refuse(message: str) -> NoReturn:
    raise ConfigError(message)
