"""A frozen ViT that returns its residual stream, and facts that need no weights."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from saevx.compute.device import device
from saevx.compute.numerics import exact_float32
from saevx.vit.data_config import data_config
from saevx.vit.random_init import noise
from saevx.vit.weights import build, create
from spec import (
    CenterCrop,
    HubWeights,
    ImgFocus,
    RandomInit,
    Resize,
    Site,
    SpecError,
    Squash,
    ViT,
    Weights,
    WeightsFile,
)

if TYPE_CHECKING:
    import torch
    from torch import nn


KNOWN_TYPES = {
    ViT: (ViT,),
    Weights: (HubWeights, WeightsFile, ImgFocus, RandomInit),
    Resize: (CenterCrop, Squash),
}
"""The types of ViTs, weights and resize policies that recording knows."""


ONE_GRID = ("blocks", "embed_dim", "num_prefix_tokens", "patch_embed.grid_size")
"""What timm's models have whose blocks all work on one grid of tokens."""


@dataclass(frozen=True)
class ViTFacts:
    """Facts about a ViT that follow from its timm name and image size."""

    d_model: int
    n_blocks: int
    n_prefix: int
    """Tokens before the patches: class token and registers."""
    has_cls: bool
    """Whether the first token is a class token."""
    grid: tuple[int, int]
    """Patches per image: rows, columns."""
    mean: tuple[float, float, float]
    """Subtracted from pixels in [0, 1]: red, green, blue, from timm's data config."""
    std: tuple[float, float, float]
    """The divisor, likewise."""
    interpolation: str
    """Resampling of images, such as "bicubic"."""

    @property
    def n_patches(self) -> int:
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class LoadedViT:
    """A ViT on a device, in evaluation mode and float32, without gradients."""

    model: nn.Module
    facts: ViTFacts
    device: torch.device
    revision: str | None = None
    """Commit of the weights on the hub, if they come from there."""

    def residual(
        self, images_bchw: torch.Tensor, layers: Collection[int]
    ) -> dict[int, torch.Tensor]:
        """Return the residual stream after each block: (b, n_prefix + n_patches, d), float32.

        The forward pass ends after the highest of `layers`. The result for a layer does not depend
        on the others.
        """
        import torch

        with torch.inference_mode(), exact_float32():
            return capture(self.model, images_bchw.to(self.device), layers)


def load_vit(vit: ViT, on: torch.device | None = None, site: Site | None = None) -> LoadedViT:
    """Return the ViT with its weights on the device `on`, by default `device()`.

    With a site, weights on disk must be those whose digest it gave for keys. Raises SpecError when
    timm has no such ViT, and WeightsError when its weights cannot be loaded or have changed.
    """
    import torch

    facts = inspect_vit(vit)
    with exact_float32(), torch.device("cpu"):
        model, revision = create(vit, site)
    on = on or device()
    return LoadedViT(model.eval().requires_grad_(False).float().to(on), facts, on, revision)


def check_layers(vit: ViT, layers: Collection[int]) -> None:
    """Raise SpecError when timm has no such ViT, or the ViT no such blocks. Loads no weights."""
    n_blocks = inspect_vit(vit).n_blocks
    if outside := sorted(layer for layer in layers if not 0 <= layer < n_blocks):
        raise SpecError(
            f"{vit.name} has no layer {', '.join(map(str, outside))}: its {n_blocks} blocks are "
            f"layers 0 to {n_blocks - 1}"
        )


def inspect_vit(vit: ViT) -> ViTFacts:
    """Return the facts of a ViT, without weights. Raises SpecError when timm cannot build it."""
    check_types(vit)
    config = data_config(vit)
    return ViTFacts(
        **_inspect(vit.name, config.resize.size),
        mean=config.mean,
        std=config.std,
        interpolation=config.interpolation,
    )


def check_types(vit: ViT) -> None:
    """Raise SpecError for a type that recording does not know.

    It would not read a field that a subclass adds, so two values of the field would be two keys of
    the same activations.
    """
    for value, base in ((vit, ViT), (vit.weights, Weights), (vit.resize or Squash(), Resize)):
        if type(value) not in KNOWN_TYPES[base]:
            names = " or ".join(known.__name__ for known in KNOWN_TYPES[base])
            raise SpecError(
                f"recording does not know {type(value).__name__}, and would ignore fields that it "
                f"adds: use {names}"
            )


@lru_cache
def _inspect(name: str, size: int) -> dict[str, Any]:
    """Return the facts of a model that do not depend on weights."""
    import torch

    try:
        with exact_float32(), torch.device("meta"), torch.inference_mode():
            model = build(name, img_size=size, num_classes=0).eval()
            if lacking := [part for part in ONE_GRID if not _has(model, part)]:
                raise _no_grid(name, f"it has no {', '.join(lacking)}")
            rows, columns = model.patch_embed.grid_size
            d_model, n_prefix = model.embed_dim, model.num_prefix_tokens
            n_blocks = len(model.blocks)
            acts = capture(model, torch.empty(1, 3, size, size), range(n_blocks))
    except SpecError:
        raise
    except Exception as error:  # timm's models raise all sorts of errors
        if "unexpected keyword argument 'img_size'" in str(error):
            raise _no_grid(name, "it takes images of any size") from error
        raise SpecError(
            f"{name} does not work on images of {size} px ({error}): use another size or model"
        ) from error
    if size % rows or size % columns:
        raise SpecError(
            f"{name} cuts images of {size} px into {rows} x {columns} patches, which do not tile "
            "them: use a multiple of its patch size"
        )
    expected = (1, n_prefix + rows * columns, d_model)
    odd = [layer for layer, act in acts.items() if act.shape != expected]
    if odd:
        shape = tuple(acts[odd[0]].shape[1:])
        raise _no_grid(name, f"block {odd[0]} returns tokens of shape {shape}, not {expected[1:]}")
    return {
        "d_model": int(d_model),
        "n_blocks": n_blocks,
        "n_prefix": int(n_prefix),
        "has_cls": getattr(model, "cls_token", None) is not None,
        "grid": (int(rows), int(columns)),
    }


def _has(model: Any, path: str) -> bool:
    for name in path.split("."):
        if not hasattr(model, name):
            return False
        model = getattr(model, name)
    return True


def _no_grid(name: str, why: str) -> SpecError:
    return SpecError(
        f"{name} cannot be recorded, since its blocks do not all return one token per patch of one "
        f"grid ({why}): use a plain ViT, such as DINOv2, CLIP, SigLIP or DeiT"
    )


class _StopForward(Exception):
    """Ends a forward pass."""


def capture(
    model: Any, images_bchw: torch.Tensor, layers: Collection[int]
) -> dict[int, torch.Tensor]:
    """Return the output of each block of `layers`; the forward pass ends after the highest."""
    found: dict[int, torch.Tensor] = {}
    last = max(layers)

    def keep(layer: int) -> Any:
        def hook(block: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            # A copy, since a later block may add to its input in place.
            found[layer] = output.clone() if layer < last else output
            if layer == last:
                raise _StopForward

        return hook

    hooks = [model.blocks[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        model.forward_features(images_bchw)
    except _StopForward:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return found


def first_last_cosine(vit: LoadedViT, size: int) -> float | None:
    """Return the mean cosine of tokens after the first and the last block, on an image of noise.

    None where a token is not finite, which recording refuses.
    """
    import torch

    last = vit.facts.n_blocks - 1
    with torch.inference_mode(), exact_float32():
        acts = capture(vit.model, noise(size).to(vit.device), {0, last})
    found = torch.nn.functional.cosine_similarity(acts[0], acts[last], dim=-1)
    mean = float(found.mean())
    return round(mean, 4) if math.isfinite(mean) else None
