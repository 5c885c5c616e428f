"""How well single prototypes detect traits."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, SerializeAsAny, model_validator

from spec.base import Artifact
from spec.errors import SpecError
from spec.files.site import Site
from spec.images.base import TraitSet
from spec.images.overlap import Overlap, overlap
from spec.keys.markers import Exec
from spec.keys.model import Kind
from spec.prototypes import Scorer
from spec.scores import ImageScores

SAME_IMAGES = (
    "train and test are the same images, so the test AP would be the train AP; "
    'use another split, such as split="test"'
)

SHOWN = 3
"""Shared images named in an error."""


class TraitAP(Artifact):
    """For each trait, the prototype with the highest train AP, and its test AP.

    The prototype is picked on `n_train` images, or on all when None. The subsets are nested: the
    64 images contain the 16.

    Train and test sets that share images, by name or content, are refused unless `allow_overlap`.
    """

    kind: ClassVar[Kind] = "results"

    scorer: SerializeAsAny[Scorer]
    train: SerializeAsAny[TraitSet]
    test: SerializeAsAny[TraitSet]
    n_train: Annotated[int, Field(ge=1)] | None = None
    allow_overlap: Annotated[bool, Exec()] = False

    @model_validator(mode="after")
    def _check_images(self) -> Self:
        if self.train.images == self.test.images:
            raise ValueError(SAME_IMAGES)
        return self

    def check_overlap(self, site: Site) -> None:
        """Raise SpecError when images are in both sets, unless `allow_overlap`."""
        train, test = self.train.images, self.test.images
        shared = overlap(test, train, site)
        if shared.n_images == test.n_images(site) == train.n_images(site):
            raise SpecError(f"{self.train!r} and {self.test!r}: {SAME_IMAGES}")
        if shared.n_images and not self.allow_overlap:
            raise SpecError(
                f"{self.train!r} and {self.test!r} share {_in_words(shared)}: take them out of one "
                "of the sets, or pass allow_overlap=True if they are meant to be in both"
            )

    def check_labels_unseen(self, site: Site) -> None:
        """Raise SpecError when the scorer used labels of test images."""
        for images in self.scorer.fit_images() if self.scorer.uses_labels else ():
            if (shared := overlap(self.test.images, images, site)).n_images:
                raise SpecError(
                    f"{type(self.scorer).__name__} used labels of {_in_words(shared)} of "
                    f"{self.test!r}: fit it on other images, such as those of the train set"
                )

    def n_test_fitted(self, site: Site) -> int:
        """Return how many of the test images the scorer was fitted on, without their labels."""
        test = self.test.images
        found = [overlap(test, images, site) for images in self.scorer.fit_images()]
        return len({name for shared in found for names in shared for name in names})

    @property
    def train_scores(self) -> ImageScores:
        """The scores on which prototypes are picked."""
        return ImageScores(scorer=self.scorer, images=self.train.images)

    @property
    def test_scores(self) -> ImageScores:
        """The scores on which the picked prototypes are tested."""
        return ImageScores(scorer=self.scorer, images=self.test.images)

    def derived(self) -> dict[str, Artifact]:
        return {"train_scores": self.train_scores, "test_scores": self.test_scores}

    def inputs(self) -> dict[str, Artifact]:
        return self.derived()


def _in_words(shared: Overlap) -> str:
    names = (*shared.by_content, *shared.by_name)
    more = ", ..." if len(names) > SHOWN else ""
    how = ", ".join(
        f"{len(found)} by {what}"
        for what, found in (("content", shared.by_content), ("name", shared.by_name))
        if found
    )
    return f"{len(names)} images ({how}), such as {', '.join(names[:SHOWN])}{more}"
