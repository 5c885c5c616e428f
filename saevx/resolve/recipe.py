"""Recipes: how the artifacts of one spec type are made, and read back.

@recipe(Shards, batch_by=lambda spec: (spec.images, spec.vit), preflight=check, load=Tokens)
def record(batch: Batch[Shards]) -> None: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from saevx.errors import RecipeError
from saevx.resolve.batch import A, Batch
from saevx.resolve.lookup import Loader
from saevx.resolve.parts import Parts
from spec import Artifact, Site


@dataclass(frozen=True)
class Recipe(Generic[A]):
    """How the artifacts of a spec type are made and loaded."""

    spec_type: type[A]
    make: Callable[[Batch[A]], None]
    """Makes all artifacts of a batch. The result for a spec must not depend on the other specs."""
    batch_by: Callable[[A], Any]
    """Specs for which this is equal are made together. Any value that a spec's field may have."""
    preflight: Callable[[Sequence[A], Site], None] | None
    """Raises SpecError where a spec cannot be made, before anything runs. May import torch."""
    load: Loader | None
    """What `saevx.load` gives for the artifact. None: the one table that results hold, or else the
    artifact itself."""
    parts: Parts[A] | None = None
    """How artifacts are made in parts, which `make` then joins. None: without parts."""
    notes: Callable[[Sequence[A]], Iterable[str]] | None = None
    """What `saevx plan` says about specs to make, such as a choice that is rarely meant. May import
    torch."""
    inspect: Callable[[A, Mapping[str, Any]], Iterable[str]] | None = None
    """What `saevx doctor` warns of in an artifact, by its spec and attributes. May import torch."""


_recipes: dict[type[Artifact], Recipe[Any]] = {}


def recipe(
    spec_type: type[A],
    *,
    batch_by: Callable[[A], Any] | None = None,
    preflight: Callable[[Sequence[A], Site], None] | None = None,
    load: Loader | None = None,
    parts: Parts[A] | None = None,
    notes: Callable[[Sequence[A]], Iterable[str]] | None = None,
    inspect: Callable[[A, Mapping[str, Any]], Iterable[str]] | None = None,
) -> Callable[[Callable[[Batch[A]], None]], Recipe[A]]:
    """Declare a function as the recipe of `spec_type`. Without `batch_by`, each spec is a batch."""

    def declare(make: Callable[[Batch[A]], None]) -> Recipe[A]:
        batches = batch_by or (lambda spec: spec)
        declared = Recipe(spec_type, make, batches, preflight, load, parts, notes, inspect)
        _recipes[spec_type] = declared
        return declared

    return declare


def declared_recipes() -> list[Recipe[Any]]:
    """Return the recipes of all modules imported so far."""
    return list(_recipes.values())


FindRecipe = Callable[[type[Artifact]], Recipe[Any]]


def declared_recipe(spec_type: type[Artifact]) -> Recipe[Any]:
    """Return the recipe declared for a type, or for a base class that has all of its fields.

    Only modules imported so far count. A base's recipe would not read a field that a subclass adds,
    so two specs would differ in key and not in content. Raise RecipeError for that, and if there is
    no recipe.
    """
    for base in spec_type.__mro__:
        if base not in _recipes:
            continue
        added = sorted(spec_type.model_fields.keys() - base.model_fields.keys())
        if added:
            raise RecipeError(
                f"{spec_type.__name__} adds {', '.join(added)} to {base.__name__}, whose recipe "
                f"does not read them: declare one with @recipe({spec_type.__name__})"
            )
        return _recipes[base]
    raise RecipeError(
        f"no recipe makes {spec_type.__name__}: declare one with @recipe({spec_type.__name__})"
    )
