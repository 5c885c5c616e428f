"""Specs: frozen models that declare an experiment. Their keys name its artifacts."""

from spec.base import Artifact, Spec
from spec.codec import Blosc
from spec.document import from_document, to_document
from spec.errors import DatasetError, SpecError
from spec.files.site import Site, current_site, set_default_site
from spec.images.base import ImageSet, TraitSet
from spec.images.cub200 import CUB200, CUB200Images
from spec.images.folder import ImageFolder
from spec.images.openmoji import OpenMoji, OpenMojiImages
from spec.keys.key import Keys
from spec.keys.markers import Exec, Since
from spec.keys.model import Kind
from spec.prototypes import RandomPrototypes, Scorer
from spec.scores import ImageScores
from spec.shards import Shards
from spec.traits import TraitAP
from spec.vit import (
    CenterCrop,
    HubWeights,
    ImgFocus,
    RandomInit,
    Resize,
    Squash,
    UntaggedWeights,
    ViT,
    Weights,
    WeightsFile,
)

__all__ = [
    "CUB200",
    "Artifact",
    "Blosc",
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
    "UntaggedWeights",
    "ViT",
    "Weights",
    "WeightsFile",
    "current_site",
    "from_document",
    "set_default_site",
    "to_document",
]
