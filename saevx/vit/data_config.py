"""The images that a ViT expects: size, crop and pixel normalisation, from timm's data configs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from spec import (
    CenterCrop,
    HubWeights,
    Resize,
    SpecError,
    Squash,
    UntaggedWeights,
    ViT,
    WeightsFile,
)

Channels = tuple[float, float, float]
"""Red, green, blue."""


@dataclass(frozen=True)
class DataConfig:
    """How images are brought to the input of a ViT."""

    resize: Resize
    mean: Channels
    """Subtracted from pixels in [0, 1]."""
    std: Channels
    """The divisor."""
    interpolation: str
    """Resampling of images, such as "bicubic"."""

    def as_json(self) -> dict[str, Any]:
        return {
            "resize": type(self.resize).__name__,
            "size": self.resize.size,
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
        }


def data_config(vit: ViT) -> DataConfig:
    """Return the size and crop of the ViT's `resize`, else those that its weights were trained
    with, and the normalisation of its weights.

    Weights without a tag have that of their `pretrained_cfg` or `mean` and `std`, else timm's
    default for the architecture. Raises SpecError for names that timm does not have.
    """
    weights, own = vit.weights, _of_tag(_tagged_name(vit))
    mean, std = own.mean, own.std
    if isinstance(weights, UntaggedWeights) and weights.mean and weights.std:
        mean, std = weights.mean, weights.std
    return DataConfig(vit.resize or own.resize, mean, std, own.interpolation)


def _tagged_name(vit: ViT) -> str:
    if isinstance(vit.weights, UntaggedWeights) and vit.weights.pretrained_cfg is not None:
        return f"{vit.name}.{vit.weights.pretrained_cfg}"
    return vit.name


def note_on_resize(vit: ViT) -> str | None:
    """Say that a ViT gets images of another size or crop than its weights were trained on.

    None if it gets the same, or if the weights are not those that timm has a data config for.
    """
    if vit.resize is None or not isinstance(vit.weights, HubWeights | WeightsFile):
        return None
    own = _of_tag(_tagged_name(vit)).resize
    if own == vit.resize:
        return None
    return (
        f"{vit.name} gets images by {vit.resize!r}, and its weights were trained with {own!r}: "
        "leave `resize` out for that"
    )


def differences(vit: ViT, attributes: Mapping[str, Any]) -> Iterator[str]:
    """Yield how the input that a recording was made from differs from what this code gives."""
    for name, value in data_config(vit).as_json().items():
        if attributes.get(name) != value:
            yield (
                f"was recorded with {name} {attributes.get(name)}, and the installed timm gives "
                f"{vit.name} {value}: a new recording would differ"
            )


@lru_cache
def _of_tag(name: str) -> DataConfig:
    """Return the data config of a model of timm, or of one of its tags."""
    from timm.data.config import resolve_data_config
    from timm.models import get_pretrained_cfg

    check_name(name)
    config = get_pretrained_cfg(name)
    known: dict[str, Any] = dict(vars(config)) if config is not None else {}
    found: dict[str, Any] = resolve_data_config(pretrained_cfg=known)  # type: ignore[no-untyped-call]
    _, height, width = found["input_size"]
    if height != width:
        raise SpecError(
            f"{name} was trained on images of {height} x {width} px: pass resize=Squash(size=...) "
            "or CenterCrop(size=...) for square ones"
        )
    resize = Squash if found["crop_mode"] == "squash" else CenterCrop
    mean, std = _three(found["mean"]), _three(found["std"])
    return DataConfig(resize(size=height), mean, std, str(found["interpolation"]))


def check_name(name: str) -> None:
    """Raise SpecError, with close matches, for a name that timm does not have."""
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise SpecError(f"timm {timm.__version__} has no model {architecture!r}{hint}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        known = ", ".join(f"{architecture}.{t}" for t in tags) or "none"
        raise SpecError(
            f"timm {timm.__version__} has no weights {tag!r} for {architecture}; it has {known}"
        )


def _three(values: Sequence[float]) -> Channels:
    red, green, blue = map(float, values)
    return red, green, blue
