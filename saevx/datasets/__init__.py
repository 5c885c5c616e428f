"""Readers of datasets: images are decoded and labels are read here.

To add a dataset, subclass `spec.ImageSet` or `spec.TraitSet`, and register how its type is read:
with `decoder.register`, `read_traits.register` and, if names can be read without labels,
`trait_names.register`.
"""

from saevx.datasets import cub200, openmoji
from saevx.datasets.images import ImageSource, decoder, open_images
from saevx.datasets.labels import Labels, check_traits, read_labels, read_traits, trait_names

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
