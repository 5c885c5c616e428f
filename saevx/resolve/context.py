"""What artifacts are made with: keys, a store, recipes, and the code that it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from saevx.resolve.provenance import Origin
from saevx.resolve.recipe import FindRecipe, declared_recipe
from spec import Keys

if TYPE_CHECKING:
    from store import Store


@dataclass
class Context:
    """Everything beside a plan that running it needs."""

    keys: Keys
    store: Store
    find_recipe: FindRecipe = declared_recipe
    origin: Origin = field(default_factory=Origin)
    """The code, for provenance: taken when the context is made."""
