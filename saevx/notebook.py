"""What notebooks call: load an artifact, make what is missing, one table over many specs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from inspect import isgenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saevx.dispatch.execution import Execution
from saevx.errors import RunFailed, SpecError, explain
from saevx.experiments.experiment import Experiment
from saevx.experiments.load import load_experiment
from saevx.query.conditions import Where as Conditions
from saevx.query.tables import found_table, table_of
from saevx.query.tables import load as read_spec
from saevx.recipes import find_recipe
from saevx.resolve.lookup import load_stored, plain
from saevx.resolve.run import Listener
from saevx.session import Display, Session
from saevx.user_types import is_user_defined
from saevx.workspace import Workspace, open_workspace
from spec import Artifact, Keys, Kind
from spec.document import known_types

if TYPE_CHECKING:
    import polars as pl

    from saevx.experiments.report import Report
    from store import Store

Targets = Artifact | Iterable[Artifact] | Callable[[], Any] | str | Path
"""Specs, a function that gives some, or the path of an experiment file."""

Where = str | Path | Workspace | None
"""A store's root, a workspace, or None for that of the current folder."""


def load(spec: Artifact | str, store: Where = None) -> Any:
    """What was made of `spec`, a spec or a key, or the beginning of one.

    A polars frame for results, a `Tokens` handle for shards, a callable scorer for checkpoints.
    By key, no code of users runs: what a type from outside of saevx made is a frame or an array,
    or a dict of them by name where it holds several.
    Raises MissingArtifact, saying what makes it, when the store does not have it.
    """
    workspace = _workspace(store)
    if isinstance(spec, str):
        return _load_key(spec, workspace.store)
    return read_spec(_spec(spec), Keys(workspace), workspace.store)


def run(
    targets: Targets,
    store: Where = None,
    listener: Listener | None = None,
    *,
    report: Callable[..., Any] | None = None,
    executor: str | None = None,
    jobs: int | None = None,
    profile: str | None = None,
    retry_failed: bool = False,
) -> Report | None:
    """Make the targets, and whatever they need that the store lacks, as `saevx run` does.

    `targets` are specs, a function that returns some or yields several lists of them, or the path
    of an experiment file. Returns what `report` (by default that of the file) makes of the results,
    and saves it in the store's reports. Without `executor`, `jobs` or `profile`, everything is made
    in this process.

    Raises SpecError when something cannot be made, RunFailed when something could not.
    """
    if not (jobs or profile):
        executor = executor or "inline"
    execution = Execution(executor, jobs, profile, retry_failed=retry_failed)
    workspace = _workspace(store)
    session = Session(_experiment(targets, report), workspace, execution, Display(listener))
    *_, (plan, outcome) = session.run()  # to its end, so that its record is closed
    if not outcome.ok:
        causes = [
            f"{type(plan.nodes[key].spec).__name__} {key}: {explain(error)}"
            for key, error in outcome.failed.items()
        ]
        raise RunFailed(
            f"{len(outcome.failed)} failed and {len(outcome.blocked)} could not begin:\n"
            + "\n".join(causes)
        )
    made = session.report()
    if made is not None:
        made.save(workspace.reports)
    return made


def table(
    specs: Artifact | Iterable[Artifact] | None = None,
    store: Where = None,
    *,
    kind: Kind = "results",
    spec: type[Artifact] | str | None = None,
    where: Conditions = None,
    older_versions: bool = False,
    explode_spec: bool = True,
) -> pl.DataFrame:
    """The rows of many results in one frame, with their specs' fields as columns.

    With `specs`, those of all results among them. Without, those of all results in the store, of
    whatever experiment: of type `spec`, and for which the conditions `where` hold, as
    `"layer>=12"`, `["layer>=12", "n_train=null"]` or `{"layer": [12, 13], "n_train": None}`; what
    an older version of a recipe made is left out, unless `older_versions`.

    Columns that only some results have are null elsewhere. Raises MissingArtifact when the store
    lacks one of `specs`, SpecError when something is no table, QueryError for conditions that
    cannot be understood.
    """
    workspace = _workspace(store)
    if specs is None:
        return found_table(
            workspace.store,
            kind=kind,
            spec=spec,
            where=where,
            older_versions=older_versions,
            explode_spec=explode_spec,
        )
    if spec is not None or where is not None:
        raise SpecError("give either specs, or what to search for: spec=..., where=...")
    return table_of(_specs(specs), Keys(workspace), workspace.store, explode_spec=explode_spec)


def _experiment(targets: Targets, report: Callable[..., Any] | None) -> Experiment:
    if isinstance(targets, str | Path):
        found = load_experiment(Path(targets))
        return replace(found, report=report) if report else found
    if isgenerator(targets) or (callable(targets) and not isinstance(targets, type)):
        return Experiment(_code_of([targets]), targets, report, is_file=False)
    specs = _specs(targets)  # type: ignore[arg-type]
    return Experiment(_code_of(map(type, specs)), specs, report, is_file=False)


def _code_of(things: Iterable[Any]) -> Path | None:
    """The file of the first function or type that is the user's: jobs need a copy of it."""
    for thing in things:
        name = getattr(thing, "__module__", None) or "__main__"
        if name.partition(".")[0] not in ("__main__", "saevx", "spec"):
            file = getattr(sys.modules.get(name), "__file__", None)
            return Path(file) if file else None
    return None


def _load_key(key: str, store: Store) -> Any:
    from saevx.query.key_lookup import find_by_prefix

    artifact = find_by_prefix(store, key).artifact
    stored = store.open(artifact.kind, artifact.key)
    known = known_types().get(stored.manifest.type)
    if known is None or is_user_defined(known) or not issubclass(known, Artifact):
        return plain(stored)
    if known.version != stored.manifest.version:
        return plain(stored)
    return load_stored(stored, find_recipe(known).load)


def _workspace(store: Where) -> Workspace:
    if isinstance(store, Workspace):
        return store
    if store is not None and not isinstance(store, str | Path):
        raise TypeError(f"store is {store!r}; give the root of a store, or a Workspace")
    return open_workspace(store)


def _specs(specs: Artifact | Iterable[Artifact]) -> Sequence[Artifact]:
    """The specs of artifacts that were given."""
    if isinstance(specs, str) or not isinstance(specs, Artifact | Iterable):
        raise SpecError(f"{specs!r:.200} is no spec of an artifact, nor a list of them")
    return [_spec(spec) for spec in ([specs] if isinstance(specs, Artifact) else specs)]


def _spec(spec: Artifact) -> Artifact:
    if not isinstance(spec, Artifact) or not hasattr(type(spec), "kind"):
        raise SpecError(
            f"{spec!r:.200} is no spec of an artifact, as Shards(...) or TraitAP(...) are"
        )
    return spec
