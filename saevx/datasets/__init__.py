"""Datasets at work: images decoded, labels read.

A new image set or trait set is a class of `spec.ImageSet` or `spec.TraitSet`; how it is read is
registered here for its type, with `decoder.register`, `read_traits.register` and, where names are
had cheaply, `trait_names.register`.
"""

from . import cub200, openmoji
from .images import ImageSource, decoder, open_images
from .labels import Labels, check_traits, read_labels, read_traits, trait_names

__all__ = [
    "ImageSource",
    "Labels",
    "check_traits",
    "cub200",
    "decoder",
    "open_images",
    "openmoji",
    "read_labels",
    "read_traits",
    "trait_names",
]
