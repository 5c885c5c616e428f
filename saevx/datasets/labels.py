"""Trait labels in the order of the images of a set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import singledispatch

import numpy as np
from numpy.typing import NDArray

from saevx.datasets.images import current_listing, unread_fields
from spec import DatasetError, Site, SpecError, TraitSet


@dataclass(frozen=True, eq=False)
class Labels:
    """Which image has which trait. Raises DatasetError when the fields are inconsistent."""

    images: tuple[str, ...]
    """Unique names of the images."""
    traits: tuple[str, ...]
    """Unique names of the traits."""
    y: NDArray[np.bool_]
    """(n_images, n_traits); read-only."""

    def __post_init__(self) -> None:
        faults = []
        for noun, names in (("image", self.images), ("trait", self.traits)):
            if not names:
                faults.append(f"there is no {noun}")
            if len(set(names)) != len(names):
                twice = [name for name, n in Counter(names).items() if n > 1]
                faults.append(f"more than one {noun} is called {', '.join(twice[:5])}")
        if self.y.dtype != np.bool_:
            faults.append(f"y is {self.y.dtype}, not bool")
        if self.y.shape != (len(self.images), len(self.traits)):
            faults.append(
                f"y is {self.y.shape}, for {len(self.images)} images and {len(self.traits)} traits"
            )
        if faults:
            raise DatasetError(f"labels are inconsistent: {'; '.join(faults)}")
        self.y.setflags(write=False)

    def select(self, traits: Sequence[str]) -> Labels:
        """Return the labels of the given traits, in order. Raises SpecError for unknown names."""
        check_known(traits, self.traits)
        column = {name: t for t, name in enumerate(self.traits)}
        return Labels(self.images, tuple(traits), self.y[:, [column[name] for name in traits]])

    def align(self, images: Sequence[str]) -> Labels:
        """Return the labels of the images, in order. Raises DatasetError for unlabelled images."""
        row = {name: i for i, name in enumerate(self.images)}
        missing = [name for name in images if name not in row]
        if missing:
            raise DatasetError(
                f"{len(missing)} of {len(images)} images have no labels: {', '.join(missing[:5])}"
                f"{', ...' if len(missing) > 5 else ''}; check that the label files are of this "
                "dataset"
            )
        return Labels(tuple(images), self.traits, self.y[[row[name] for name in images]])


def read_labels(trait_set: TraitSet, site: Site) -> Labels:
    """Return the labels of a trait set, one row per image of its listing.

    Raises DatasetError when files are missing, malformed or not those of the key, and SpecError
    when the set names unknown traits.
    """
    files = current_listing(trait_set.images, site).files
    labels = read_traits(trait_set, site).align(files)
    now = trait_set.label_fingerprint(Site(site.data_roots, site.cache))
    if now != trait_set.label_fingerprint(site):
        raise DatasetError(
            f"the label files of {type(trait_set).__name__} changed since this run was planned; "
            "run again"
        )
    return labels if trait_set.traits is None else labels.select(trait_set.traits)


def check_traits(trait_set: TraitSet, site: Site) -> None:
    """Raise SpecError when a trait set names unknown traits, or has a field that is not read.

    Reads no labels.
    """
    spec_type = type(trait_set)
    reader = next((base for base in spec_type.__mro__ if base in read_traits.registry), object)
    if reader is not object and (added := unread_fields(spec_type, reader)):
        raise SpecError(
            f"{spec_type.__name__} adds {', '.join(added)} to {reader.__name__}, whose reader does "
            f"not read them: register one for {spec_type.__name__} with read_traits.register"
        )
    if trait_set.traits is not None:
        check_known(trait_set.traits, trait_names(trait_set, site))


def check_known(names: Sequence[str], known: Sequence[str]) -> None:
    """Raise SpecError for names that are not among the `known`, with close matches."""
    known_set = set(known)
    faults = []
    for name in names:
        if name not in known_set:
            near = get_close_matches(name, known, n=3)
            faults.append(repr(name) + (f" (did you mean {' or '.join(near)}?)" if near else ""))
    if faults:
        raise SpecError(
            f"no trait is called {', '.join(faults)}; there are {len(known)}, such as {known[0]}"
        )


@singledispatch
def read_traits(trait_set: TraitSet, site: Site) -> Labels:
    """Return all labels in the files of a trait set, of any images in any order.

    Registered for each type of trait set. Raises DatasetError for malformed files.
    """
    raise SpecError(
        f"no reader is registered for {type(trait_set).__name__}: pass a function "
        "(trait_set, site) -> Labels to saevx.datasets.read_traits.register"
    )


@singledispatch
def trait_names(trait_set: TraitSet, site: Site) -> tuple[str, ...]:
    """Return the names of all traits, without reading labels if the type registers how."""
    return read_traits(trait_set, site).traits
