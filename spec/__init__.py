"""Specs: frozen models that declare an experiment. Their keys name its artifacts."""

from .base import Artifact, Spec
from .document import from_document, to_document
from .errors import DatasetError, SpecError
from .images.base import ImageSet, TraitSet
from .images.cub200 import CUB200, CUB200Images
from .images.folder import ImageFolder
from .images.openmoji import OpenMoji, OpenMojiImages
from .key import Keys
from .markers import Exec, Since
from .model import Kind
from .prototypes import RandomPrototypes, Scorer
from .scores import ImageScores
from .shards import Shards
from .site import Site, current_site, set_default_site
from .traits import TraitAP
from .vit import (
    CenterCrop,
    HubWeights,
    ImgFocus,
    RandomInit,
    Resize,
    Squash,
    ViT,
    Weights,
    WeightsFile,
)

__all__ = [
    "CUB200",
    "Artifact",
    "CUB200Images",
    "CenterCrop",
    "DatasetError",
    "Exec",
    "HubWeights",
    "ImageFolder",
    "ImageScores",
    "ImageSet",
    "ImgFocus",
    "Keys",
    "Kind",
    "OpenMoji",
    "OpenMojiImages",
    "RandomInit",
    "RandomPrototypes",
    "Resize",
    "Scorer",
    "Shards",
    "Since",
    "Site",
    "Spec",
    "SpecError",
    "Squash",
    "TraitAP",
    "TraitSet",
    "ViT",
    "Weights",
    "WeightsFile",
    "current_site",
    "from_document",
    "set_default_site",
    "to_document",
]
