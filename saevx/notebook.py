"""What notebooks call: load an artifact, make what is missing, one table over many specs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spec import Artifact, Keys, to_document
from store.roots import Recording

from .errors import RunFailed, SpecError
from .explode import explode
from .recipes import find_recipe
from .resolve.lookup import open_input, read
from .resolve.record import plan_recorded, run_recorded
from .resolve.run import Listener, explain
from .workspace import Workspace, open_workspace

if TYPE_CHECKING:
    import polars as pl


Where = str | Path | Workspace | None
"""A store's root, a workspace, or None for that of the current folder."""


def load(spec: Artifact, store: Where = None) -> Any:
    """What was made of `spec`.

    A polars frame for results, a `Tokens` handle for shards, a callable scorer for checkpoints.
    Raises MissingArtifact, saying what makes it, when the store does not have it.
    """
    workspace = _workspace(store)
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
    specs: Artifact | Iterable[Artifact], store: Where = None, *, explode_spec: bool = True
) -> pl.DataFrame:
    """The rows of all results among `specs` in one frame, with the spec's fields as columns.

    Columns that only some results have are null elsewhere. Raises MissingArtifact when one is not
    there, SpecError when a spec makes no table.
    """
    import polars as pl

    workspace = _workspace(store)
    keys = Keys(workspace)
    frames: list[pl.DataFrame] = []
    for spec in {keys.of(spec): spec for spec in _specs(specs)}.values():
        if spec.kind != "results":
            raise SpecError(f"{type(spec).__name__} is no table but {spec.kind}: use saevx.load")
        frame = _load(spec, workspace, keys)
        if explode_spec:
            columns = explode(to_document(spec, keys))
            clash = {name: f"spec.{name}" for name in columns.keys() & set(frame.columns)}
            frame = frame.with_columns(
                pl.lit(value).alias(clash.get(name, name)) for name, value in columns.items()
            )
        frames.append(frame)
    return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()


def _load(spec: Artifact, workspace: Workspace, keys: Keys) -> Any:
    return read(open_input(spec, keys, workspace.store), find_recipe(type(spec)))


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
