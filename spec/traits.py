"""How well single prototypes detect traits."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, SerializeAsAny, model_validator

from spec.base import Artifact
from spec.errors import SpecError
from spec.files.site import Site
from spec.images.base import TraitSet
from spec.keys.model import Kind
from spec.prototypes import Scorer
from spec.scores import ImageScores

SAME_IMAGES = (
    "train and test are the same images, so the test AP would be the train AP; "
    'use another split, such as split="test"'
)


class TraitAP(Artifact):
    """For each trait, the prototype with the highest train AP, and its test AP.

    The prototype is picked on `n_train` images, or on all when None. The subsets are nested: the
    64 images contain the 16.
    """

    kind: ClassVar[Kind] = "results"

    scorer: SerializeAsAny[Scorer]
    train: SerializeAsAny[TraitSet]
    test: SerializeAsAny[TraitSet]
    n_train: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _check_images(self) -> Self:
        if self.train.images == self.test.images:
            raise ValueError(SAME_IMAGES)
        return self

    def check_images_differ(self, site: Site) -> None:
        """Raise SpecError when train and test are the same images on disk.

        Specs that differ, such as by root or by the size of drawings, may list the same images.
        """
        train, test = (side.images.fingerprint(site) for side in (self.train, self.test))
        if train.digest == test.digest:
            raise SpecError(f"{self.train!r} and {self.test!r}: {SAME_IMAGES}")

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
