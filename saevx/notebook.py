"""Functions for notebooks: load an artifact, run an experiment, build a table of many specs."""

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
from saevx.query.key_lookup import find_by_prefix
from saevx.query.tables import found_table, table_of
from saevx.query.tables import load as read_spec
from saevx.recipes import find_recipe
from saevx.resolve.lookup import load_stored, plain
from saevx.resolve.run import Listener
from saevx.session import Display, Session
from saevx.workspace import Workspace, open_workspace
from spec import Artifact, Keys, Kind
from spec.keys.type_names import is_user_defined, named_types

if TYPE_CHECKING:
    import polars as pl

    from saevx.experiments.report import Report
    from store import Store

Targets = Artifact | Iterable[Artifact] | Callable[[], Any] | str | Path
"""Specs, a function that returns or yields some, or the path of an experiment file."""

Where = str | Path | Workspace | None
"""A store's root, a workspace, or None for the workspace of the current folder."""


def load(spec: Artifact | str, store: Where = None) -> Any:
    """Load the artifact of a spec, or of a key or unique prefix of one.

    Return a polars frame for results, a `Tokens` handle for shards, a scorer for checkpoints.
    Loading by key runs no code of users: an artifact of a type from outside saevx is returned as a
    frame or an array, or as a dict of them by name if it holds several.
    Raise MissingArtifact, saying what makes it, if the store lacks it.
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
    """Make the targets, and all that they need and the store lacks, as `saevx run` does.

    `targets` are specs, a function that returns some or yields several lists of them, or the path
    of an experiment file. Return what `report` (by default that of the file) makes of the results,
    and save it in the store's folder of reports. Without `executor`, `jobs` or `profile`,
    everything is made in this process.

    Raise SpecError, before anything runs, if a spec cannot be made, and RunFailed if making failed.
    """
    if not (jobs or profile):
        executor = executor or "inline"
    execution = Execution(executor, jobs, profile, retry_failed=retry_failed)
    workspace = _workspace(store)
    session = Session(_experiment(targets, report), workspace, execution, Display(listener))
    *_, (plan, result) = session.run()  # to its end, which closes its record
    if not result.ok:
        causes = [
            f"{type(plan.nodes[key].spec).__name__} {key}: {explain(error)}"
            for key, error in result.failed.items()
        ]
        raise RunFailed(
            f"{len(result.failed)} failed and {len(result.blocked)} could not begin:\n"
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
    """Return the rows of many results in one frame, with the fields of their specs as columns.

    With `specs`, these are the results of the specs. Without, they are all results in the store
    that are of type `spec` and match the conditions `where`, for example `"layer>=12"`,
    `["layer>=12", "n_train=null"]` or `{"layer": [12, 13], "n_train": None}`. Results that an older
    version of a recipe made are left out, unless `older_versions`.

    Columns that only some results have are null elsewhere. Raise MissingArtifact if the store lacks
    one of `specs`, SpecError if one is not a table, and QueryError if a condition is not valid.
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
    """Return the file of the first user-defined function or type, of which jobs need a copy."""
    for thing in things:
        name = getattr(thing, "__module__", None) or "__main__"
        if name.partition(".")[0] not in ("__main__", "saevx", "spec"):
            file = getattr(sys.modules.get(name), "__file__", None)
            return Path(file) if file else None
    return None


def _load_key(key: str, store: Store) -> Any:
    artifact = find_by_prefix(store, key).artifact
    stored = store.open(artifact.kind, artifact.key)
    known = named_types().get(stored.manifest.type)
    if (
        known is not None
        and issubclass(known, Artifact)
        and not is_user_defined(known)
        and known.version == stored.manifest.version
    ):
        return load_stored(stored, find_recipe(known).load)
    return plain(stored)


def _workspace(store: Where) -> Workspace:
    if isinstance(store, Workspace):
        return store
    if store is not None and not isinstance(store, str | Path):
        raise TypeError(f"store is {store!r}; give the root of a store, or a Workspace")
    return open_workspace(store)


def _specs(specs: Artifact | Iterable[Artifact]) -> Sequence[Artifact]:
    """Return one or several specs as a list. Raise SpecError for anything else."""
    if isinstance(specs, str) or not isinstance(specs, Artifact | Iterable):
        raise SpecError(f"{specs!r:.200} is no spec of an artifact, nor a list of them")
    return [_spec(spec) for spec in ([specs] if isinstance(specs, Artifact) else specs)]


def _spec(spec: Artifact) -> Artifact:
    if not isinstance(spec, Artifact) or not hasattr(type(spec), "kind"):
        raise SpecError(
            f"{spec!r:.200} is no spec of an artifact, as Shards(...) or TraitAP(...) are"
        )
    return spec
