"""Which module holds the recipe of which spec type: the one place that knows them all.

Modules are imported when a recipe is first needed, so that a plan costs no torch. An experiment
file may declare recipes for its own spec types with the same decorator.
"""

from importlib import import_module
from typing import Any

from saevx.resolve.recipe import Recipe, declared_recipe
from spec import Artifact

MODULES = {
    "Shards": "saevx.vit.recording",
    "RandomPrototypes": "saevx.prototypes.random",
    "ImageScores": "saevx.traits.scores",
    "TraitAP": "saevx.traits.trait_ap",
}


def find_recipe(spec_type: type[Artifact]) -> Recipe[Any]:
    """The recipe of a spec type, its module imported. Raises RecipeError when none is known."""
    for base in spec_type.__mro__:
        if base.__name__ in MODULES:
            import_module(MODULES[base.__name__])
    return declared_recipe(spec_type)
