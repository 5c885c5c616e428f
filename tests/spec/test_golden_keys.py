"""Golden keys: a change here makes years of artifacts again, so it must be intended.

A key may only change together with a raised `version`, or through a new field without `Since`. To
accept the keys of the present code, run `python tests/spec/test_golden_keys.py`.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from spec import (
    CUB200,
    Artifact,
    Blosc,
    CenterCrop,
    CUB200Images,
    HubWeights,
    ImageFolder,
    ImageScores,
    ImageSet,
    ImgFocus,
    Keys,
    OpenMoji,
    OpenMojiImages,
    RandomInit,
    RandomPrototypes,
    Resize,
    Scorer,
    Shards,
    Site,
    Spec,
    Squash,
    TraitAP,
    TraitSet,
    UntaggedWeights,
    ViT,
    Weights,
    WeightsFile,
)
from spec.files.site import Fingerprint

GOLDEN = Path(__file__).with_name("golden_keys.json")

ABSTRACT = {Spec, Artifact, ImageSet, TraitSet, Weights, UntaggedWeights, Resize, Scorer}
"""Listed here, so that no type can avoid its golden key by declaring itself abstract."""


class FixedSite(Site):
    """Returns the same content for every name, without reading a disk."""

    def fingerprint(self, *args: object, **options: object) -> Fingerprint:
        return Fingerprint("0123456789abcdef" * 2, 3)


VIT = ViT(name="vit_small_patch14_dinov2", weights=ImgFocus(), resize=Squash(size=112))
TRAIN, TEST = OpenMoji(split="train"), OpenMoji(split="test")
SHARDS = Shards(images=TRAIN.images, vit=VIT, layer=9)
PROTOTYPES = RandomPrototypes(shards=SHARDS, n=128, seed=17)

SPECS: dict[str, Spec] = {
    "Blosc": Blosc(),
    "CUB200": CUB200(split="train", root="/cub"),
    "CUB200Images": CUB200Images(split="test", root="/cub"),
    "CenterCrop": CenterCrop(size=224),
    "HubWeights": HubWeights(),
    "ImageFolder": ImageFolder(root="/photos", split="train"),
    "ImageScores": ImageScores(scorer=PROTOTYPES, images=TEST.images),
    "ImageScores compressed": ImageScores(
        scorer=PROTOTYPES, images=TEST.images, codec=Blosc(cname="lz4")
    ),
    "ImgFocus": ImgFocus(),
    "OpenMoji": TRAIN,
    "OpenMojiImages": OpenMojiImages(split="test", size=112, skin_tones=True),
    "RandomInit": RandomInit(seed=3),
    "RandomPrototypes": PROTOTYPES,
    "Shards": SHARDS,
    "Squash": Squash(size=112),
    "TraitAP": TraitAP(scorer=PROTOTYPES, train=TRAIN, test=TEST, n_train=64),
    "TraitAP of all images": TraitAP(scorer=PROTOTYPES, train=TRAIN, test=TEST),
    "ViT": ViT(name="vit_large_patch14_reg4_dinov2.lvd142m"),
    "WeightsFile": WeightsFile(path="/weights.safetensors"),
}


def keys_now() -> dict[str, str]:
    """The key of each artifact, and the canonical text of each description."""
    keys = Keys(FixedSite())
    return {
        name: keys.of(spec) if isinstance(spec, Artifact) else keys.text(spec)
        for name, spec in SPECS.items()
    }


@pytest.mark.parametrize("name", SPECS)
def test_keys_equal_the_golden_keys(name: str):
    assert keys_now()[name] == json.loads(GOLDEN.read_text())[name]


def test_every_spec_type_has_a_golden_key():
    def below(base: type[Spec]) -> set[type[Spec]]:
        return {base}.union(*(below(each) for each in base.__subclasses__()))

    ours = {each for each in below(Spec) if each.__module__.split(".")[0] == "spec"}
    assert {each for each in ours if each.is_abstract()} == ABSTRACT
    assert {each.__name__ for each in ours - ABSTRACT} == {type(s).__name__ for s in SPECS.values()}


def test_keys_do_not_depend_on_paths():
    keys = Keys(FixedSite())
    move: dict[str, Callable[[], Spec]] = {
        "CUB200": lambda: CUB200(split="train", root="/elsewhere"),
        "CUB200Images": lambda: CUB200Images(split="test", root="/elsewhere"),
        "ImageFolder": lambda: ImageFolder(root="/elsewhere", split="train"),
        "WeightsFile": lambda: WeightsFile(path="/elsewhere.pt"),
    }
    for name, moved in move.items():
        assert keys.text(moved()) == keys.text(SPECS[name])


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(keys_now(), indent=2) + "\n")
