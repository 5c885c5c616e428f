"""The modules of the recipes that saevx brings, by spec type.

A module is imported when its recipe is first needed, so that planning needs no torch. Experiment
files declare recipes for their own spec types with the same decorator.
"""

from importlib import import_module
from typing import Any

from saevx.resolve.recipe import Recipe, declared_recipe
from spec import Artifact

MODULES = {
    "Shards": "saevx.recording.recipe",
    "RandomPrototypes": "saevx.prototypes.random",
    "ImageScores": "saevx.traits.scores",
    "TraitAP": "saevx.traits.trait_ap",
}


def find_recipe(spec_type: type[Artifact]) -> Recipe[Any]:
    """Import and return the recipe of a spec type. Raise RecipeError if there is none."""
    for base in spec_type.__mro__:
        if base.__name__ in MODULES:
            import_module(MODULES[base.__name__])
    return declared_recipe(spec_type)
