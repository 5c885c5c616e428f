"""saevx: experiments on vision transformers' activations, declared as specs and made once.

This module has all names that notebooks and experiment files need. They are imported when first
used, so that `import saevx` is fast.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saevx.errors import (
        ConfigError,
        CorruptArtifact,
        DatasetError,
        ExperimentError,
        MissingArtifact,
        QueryError,
        RecipeError,
        RunFailed,
        SaevxError,
        SaevxWarning,
        SpecError,
        StoreError,
        WeightsError,
    )
    from saevx.notebook import load, run, table
    from saevx.resolve.batch import Batch
    from saevx.resolve.parts import Parts, PendingParts
    from saevx.resolve.recipe import recipe
    from saevx.workspace import Workspace, open_workspace
    from spec import (
        CUB200,
        Artifact,
        Blosc,
        CenterCrop,
        CUB200Images,
        Exec,
        HubWeights,
        ImageFolder,
        ImageScores,
        ImageSet,
        ImgFocus,
        OpenMoji,
        OpenMojiImages,
        RandomInit,
        RandomPrototypes,
        Resize,
        Scorer,
        Shards,
        Since,
        Spec,
        Squash,
        TraitAP,
        TraitSet,
        ViT,
        Weights,
        WeightsFile,
    )

_HOMES = (
    "spec",
    "saevx.errors",
    "saevx.workspace",
    "saevx.resolve.batch",
    "saevx.resolve.parts",
    "saevx.resolve.recipe",
    "saevx.notebook",
)
"""The modules that define the names below."""

__all__ = [
    "CUB200",
    "Artifact",
    "Batch",
    "Blosc",
    "CUB200Images",
    "CenterCrop",
    "ConfigError",
    "CorruptArtifact",
    "DatasetError",
    "Exec",
    "ExperimentError",
    "HubWeights",
    "ImageFolder",
    "ImageScores",
    "ImageSet",
    "ImgFocus",
    "MissingArtifact",
    "OpenMoji",
    "OpenMojiImages",
    "Parts",
    "PendingParts",
    "QueryError",
    "RandomInit",
    "RandomPrototypes",
    "RecipeError",
    "Resize",
    "RunFailed",
    "SaevxError",
    "SaevxWarning",
    "Scorer",
    "Shards",
    "Since",
    "Spec",
    "SpecError",
    "Squash",
    "StoreError",
    "TraitAP",
    "TraitSet",
    "ViT",
    "Weights",
    "WeightsError",
    "WeightsFile",
    "Workspace",
    "load",
    "open_workspace",
    "recipe",
    "run",
    "table",
]


def _check_packages() -> None:
    """Raise ImportError if another module hides `spec` or `store`, which are parts of saevx."""
    root = Path(__file__).resolve().parent.parent
    for name in ("spec", "store"):
        try:
            found = find_spec(name)
        except ValueError:  # a module without a __spec__ is in sys.modules
            found = None
        origin = Path(found.origin).resolve() if found and found.origin else None
        if origin != root / name / "__init__.py":
            raise ImportError(
                f"saevx needs its own package `{name}` at {root / name}, but Python finds "
                f"{origin or 'none'}: rename that module, or move its folder behind saevx's on "
                "the path (a file of that name in the current folder comes first)"
            )


_check_packages()


def __getattr__(name: str) -> Any:
    if name in __all__:
        import_module("saevx.workspace")  # lets specs see the store and saevx.toml
        for home in map(import_module, _HOMES):
            if hasattr(home, name):
                return globals().setdefault(name, getattr(home, name))
    raise AttributeError(f"module 'saevx' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
