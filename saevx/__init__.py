"""saevx: experiments on vision transformers' activations, declared as specs and made once.

Everything a notebook or an experiment file needs is here; names are looked up when first used, so
that `import saevx` costs next to nothing.
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
    from saevx.resolve.parts import Parts, Todo
    from saevx.resolve.recipe import recipe
    from saevx.workspace import Workspace, open_workspace
    from spec import (
        CUB200,
        Artifact,
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

_SPEC_NAMES = (
    "Artifact CUB200 CUB200Images CenterCrop Exec HubWeights ImageFolder ImageScores ImageSet "
    "ImgFocus OpenMoji OpenMojiImages RandomInit RandomPrototypes Resize Scorer Shards Since Spec "
    "Squash TraitAP TraitSet ViT Weights WeightsFile"
)
_ERROR_NAMES = (
    "ConfigError CorruptArtifact DatasetError ExperimentError MissingArtifact QueryError "
    "RecipeError RunFailed SaevxError SaevxWarning SpecError StoreError WeightsError"
)
_HOMES: dict[str, str] = {
    **dict.fromkeys(_SPEC_NAMES.split(), "spec"),
    **dict.fromkeys(_ERROR_NAMES.split(), "saevx.errors"),
    **dict.fromkeys(["load", "run", "table"], "saevx.notebook"),
    **dict.fromkeys(["Workspace", "open_workspace"], "saevx.workspace"),
    "Batch": "saevx.resolve.batch",
    **dict.fromkeys(["Parts", "Todo"], "saevx.resolve.parts"),
    "recipe": "saevx.resolve.recipe",
}

__all__ = [
    "CUB200",
    "Artifact",
    "Batch",
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
    "Todo",
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


def _refuse_strangers() -> None:
    """saevx is three packages; `spec` and `store` are names that others use too."""
    ours = Path(__file__).resolve().parent.parent
    for name in ("spec", "store"):
        try:
            found = find_spec(name)
        except ValueError:  # a module without a __spec__ sits in sys.modules
            found = None
        origin = Path(found.origin).resolve() if found and found.origin else None
        if origin != ours / name / "__init__.py":
            raise ImportError(
                f"saevx needs its own package `{name}` at {ours / name}, but Python finds "
                f"{origin or 'none'}: rename that module, or move its folder behind saevx's on "
                "the path (a file of that name in the current folder comes first)"
            )


_refuse_strangers()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'saevx' has no attribute {name!r}")
    home = _HOMES[name]
    if home == "spec":
        import_module("saevx.workspace")  # lets specs see the store and saevx.toml
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
