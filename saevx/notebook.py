"""What notebooks call: load an artifact, make what is missing, one table over many specs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spec import Artifact, Keys, Kind, to_document
from spec.document import known_types
from store.roots import Recording

from .condition import Where as Conditions
from .declared import is_users
from .errors import RunFailed, SpecError
from .explode import explode
from .recipes import find_recipe
from .resolve.lookup import open_input, plain, read
from .resolve.record import plan_recorded, run_recorded
from .resolve.run import Listener, explain
from .tables import as_frame, found_table, joined
from .workspace import Workspace, open_workspace

if TYPE_CHECKING:
    import polars as pl

    from store import Store


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
    keys = Keys(workspace)
    return _load(_spec(spec), workspace, keys)


def run(
    targets: Artifact | Iterable[Artifact], store: Where = None, listener: Listener | None = None
) -> None:
    """Make the targets, and whatever they need that the store lacks, in this process.

    Raises SpecError when something cannot be made, RunFailed when something could not.
    """
    workspace = _workspace(store)
    keys = Keys(workspace)
    recording = Recording(workspace.store, None, "notebook")
    try:
        plan = plan_recorded(_specs(targets), keys, workspace.store, recording)
        plan, outcome = run_recorded(plan, keys, workspace.store, recording, find_recipe, listener)
    finally:
        recording.close()
    if not outcome.ok:
        causes = [
            f"{type(plan.nodes[key].spec).__name__} {key}: {explain(error)}"
            for key, error in outcome.failed.items()
        ]
        raise RunFailed(
            f"{len(outcome.failed)} failed and {len(outcome.blocked)} could not begin:\n"
            + "\n".join(causes)
        )


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
    keys = Keys(workspace)
    found = {keys.of(one): one for one in _specs(specs)}
    for one in found.values():
        if one.kind != "results":
            raise SpecError(f"{type(one).__name__} is no table but {one.kind}: use saevx.load")
    stored = [(open_input(one, keys, workspace.store), type(one)) for one in found.values()]
    return joined(
        [as_frame(artifact, read(artifact, find_recipe(type_))) for artifact, type_ in stored],
        [explode(to_document(one, keys)) if explode_spec else {} for one in found.values()],
    )


def _load(spec: Artifact, workspace: Workspace, keys: Keys) -> Any:
    return read(open_input(spec, keys, workspace.store), find_recipe(type(spec)))


def _load_key(key: str, store: Store) -> Any:
    from .cli.choice import find_one

    artifact = find_one(store, key).artifact
    stored = store.open(artifact.kind, artifact.key)
    known = known_types().get(stored.manifest.type)
    if known is None or is_users(known) or not issubclass(known, Artifact):
        return plain(stored)
    if known.version != stored.manifest.version:
        return plain(stored)
    return read(stored, find_recipe(known))


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
