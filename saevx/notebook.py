"""What notebooks call: load an artifact, make what is missing, one table over many specs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spec import Artifact, Keys, to_document
from store.roots import Recording

from .errors import MissingArtifact, RunFailed, SaevxWarning, SpecError
from .explode import explode
from .recipes import find_recipe
from .resolve.record import plan_recorded, run_recorded
from .resolve.run import Listener, explain
from .workspace import Workspace, open_workspace

if TYPE_CHECKING:
    import polars as pl

    from store import Artifact as Stored

    from .resolve.recipe import Recipe

Where = str | Path | Workspace | None
"""A store's root, a workspace, or None for that of the current folder."""


def load(spec: Artifact, store: Where = None) -> Any:
    """What was made of `spec`.

    A polars frame for results, a `Tokens` handle for shards, a callable scorer for checkpoints.
    Raises MissingArtifact, saying what makes it, when the store does not have it.
    """
    workspace = _workspace(store)
    keys = Keys(workspace)
    return _load(spec, workspace, keys)


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
    for spec in _specs(specs):
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


def read(artifact: Stored, recipe: Recipe[Any]) -> Any:
    """A stored artifact in the form that its recipe's readers get.

    Warns with SaevxWarning where the recipe found what it made suspicious.
    """
    for text in artifact.manifest.attributes.get("warnings", []):
        warnings.warn(
            f"{artifact.manifest.type} {artifact.key}: {text}", SaevxWarning, stacklevel=4
        )
    return artifact if recipe.load is None else recipe.load(artifact)


def _load(spec: Artifact, workspace: Workspace, keys: Keys) -> Any:
    key = keys.of(spec)
    artifact = workspace.store.find(spec.kind, key)
    if artifact is None:
        why = workspace.store.absence(spec.kind, key)
        raise MissingArtifact(
            spec.kind,
            key,
            str(workspace.store.root_of(spec.kind)),
            f"{why}.\nIt is a {type(spec).__name__}: `saevx run FILE.py` makes it, if FILE.py is "
            "an experiment with it among its targets; in Python, `saevx.run(spec)` does.",
        )
    return read(artifact, find_recipe(type(spec)))


def _workspace(store: Where) -> Workspace:
    return store if isinstance(store, Workspace) else open_workspace(store)


def _specs(specs: Artifact | Iterable[Artifact]) -> Sequence[Artifact]:
    found = [specs] if isinstance(specs, Artifact) else list(specs)
    for spec in found:
        if not isinstance(spec, Artifact):
            raise SpecError(f"{spec!r} is no spec of an artifact, as Shards or TraitAP are")
    return found
