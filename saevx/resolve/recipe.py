"""Recipes: how the artifacts of one spec type are made, and read back.

@recipe(Shards, batch_by=lambda spec: (spec.images, spec.vit), preflight=check, load=Tokens)
def record(batch: Batch[Shards]) -> None: ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from saevx.errors import RecipeError
from spec import Artifact, Site

if TYPE_CHECKING:
    from saevx.resolve.batch import Batch
    from saevx.resolve.parts import Parts
    from store import StoredArtifact

A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True)
class Recipe(Generic[A]):
    """Everything that the resolver knows of a spec type."""

    spec_type: type[A]
    make: Callable[[Batch[A]], None]
    """Makes all artifacts of a batch. What it makes of a spec must not depend on the others."""
    batch_by: Callable[[A], Any]
    """Specs for which this is equal are made together. Any value that may stand in a spec."""
    preflight: Callable[[Sequence[A], Site], None] | None
    """Raises SpecError where a spec cannot be made, before anything runs. May import torch."""
    load: Callable[[StoredArtifact], Any] | None
    """What `saevx.load` gives for the artifact. None: the one table that results hold, or else the
    artifact itself."""
    parts: Parts[A] | None = None
    """How artifacts are made in parts first; `make` then joins them. None: in one go."""


_recipes: dict[type[Artifact], Recipe[Any]] = {}


def recipe(
    spec_type: type[A],
    *,
    batch_by: Callable[[A], Any] | None = None,
    preflight: Callable[[Sequence[A], Site], None] | None = None,
    load: Callable[[StoredArtifact], Any] | None = None,
    parts: Parts[A] | None = None,
) -> Callable[[Callable[[Batch[A]], None]], Recipe[A]]:
    """Declare a function the recipe of `spec_type`. Without `batch_by` each spec runs alone."""

    def declare(make: Callable[[Batch[A]], None]) -> Recipe[A]:
        batches = batch_by or (lambda spec: spec)
        declared = Recipe(spec_type, make, batches, preflight, load, parts)
        _recipes[spec_type] = declared
        return declared

    return declare


FindRecipe = Callable[[type[Artifact]], Recipe[Any]]


def declared_recipe(spec_type: type[Artifact]) -> Recipe[Any]:
    """The recipe declared for a type, or for a base that has all of its fields.

    Looks among the modules imported so far. A base's recipe would not read a field that a subclass
    adds, so two specs would differ in key and not in content. Raises RecipeError for that, and
    where there is none.
    """
    for base in spec_type.__mro__:
        if base not in _recipes:
            continue
        added = sorted(spec_type.model_fields.keys() - base.model_fields.keys())
        if added:
            raise RecipeError(
                f"{spec_type.__name__} adds {', '.join(added)} to {base.__name__}, whose recipe "
                f"knows nothing of that: declare one with @recipe({spec_type.__name__})"
            )
        return _recipes[base]
    raise RecipeError(
        f"no recipe makes {spec_type.__name__}: declare one with @recipe({spec_type.__name__})"
    )
