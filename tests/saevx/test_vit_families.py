"""Each family of ViTs, with random weights, against hooks on a plain forward pass of timm."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from saevx.vit.model import load_vit
from spec import RandomInit, Squash, ViT, WeightsFile

FAMILIES = {
    "supervised": ("vit_tiny_patch16_224", 1, True),
    "DINOv2": ("vit_small_patch14_dinov2", 1, True),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", 5, True),
    "DINOv3": ("vit_small_patch16_dinov3", 5, True),
    "SigLIP 2": ("vit_base_patch32_siglip_256", 0, False),
    "CLIP": ("vit_base_patch32_clip_224", 1, True),
    "BioCLIP 2's kind": ("vit_xsmall_patch16_clip_224", 1, True),
    "PE core": ("vit_pe_core_tiny_patch16_384", 1, True),
    "PE spatial": ("vit_pe_spatial_tiny_patch16_512", 1, True),
    "MAE": ("vit_base_patch16_224", 1, True),
    "DeiT": ("deit_tiny_patch16_224", 1, True),
    "DeiT distilled": ("deit_tiny_distilled_patch16_224", 2, True),
    "DeiT III": ("deit3_small_patch16_224", 1, True),
    "EVA-02": ("eva02_tiny_patch14_224", 1, True),
    "BEiT": ("beit_base_patch16_224", 1, True),
    "BEiT v2": ("beitv2_base_patch16_224", 1, True),
}
"""timm name, number of tokens before the patches, and whether one is a class token."""


def side_of(name: str) -> int:
    """Return the size of an image of 4 x 4 patches."""
    patch = name.partition("patch")[2]
    return 4 * int(patch[:2])


def plain_pass(model: torch.nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Return the output of every block, kept by a hook on each, after the whole forward pass."""
    found: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(lambda block, inputs, output: found.append(output.clone()))
        for block in model.blocks
    ]
    with torch.inference_mode():
        model(images)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_those_of_a_plain_pass_in_any_order(family: str):
    name, n_prefix, has_cls = FAMILIES[family]
    side = side_of(name)
    vit = load_vit(ViT(name=name, weights=RandomInit(seed=1), resize=Squash(size=side)))
    assert (vit.facts.n_prefix, vit.facts.has_cls, vit.facts.grid) == (n_prefix, has_cls, (4, 4))
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    model = timm.create_model(name, img_size=side, num_classes=0).eval()
    model.load_state_dict(vit.model.state_dict())
    expected = plain_pass(model, images.to(vit.device))
    last = vit.facts.n_blocks - 1
    for layers in [*permutations((0, last // 2, last)), range(vit.facts.n_blocks)]:
        found = vit.residual(images, list(layers))
        assert set(found) == set(layers)
        for layer in layers:
            assert torch.equal(found[layer], expected[layer]), f"layer {layer}"


def open_clip_names(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of a CLIP of timm under the names that open_clip gives them."""
    renamed = {
        "cls_token": "class_embedding",
        "pos_embed": "positional_embedding",
        "patch_embed.proj.weight": "conv1.weight",
        "norm_pre": "ln_pre",
        "norm": "ln_post",
        "norm1": "ln_1",
        "norm2": "ln_2",
        "fc1": "c_fc",
        "fc2": "c_proj",
    }
    found = {}
    for name, tensor in model.state_dict().items():
        if name in ("cls_token", "pos_embed"):
            tensor = tensor.reshape(-1, tensor.shape[-1]).squeeze(0)
        if name in renamed:
            new = renamed[name]
        else:
            parts = [renamed.get(part, part) for part in name.split(".")]
            new = ".".join(parts).replace("blocks.", "transformer.resblocks.")
            new = new.replace("attn.qkv.", "attn.in_proj_").replace("attn.proj.", "attn.out_proj.")
        found[f"visual.{new}"] = tensor.contiguous()
    found["visual.proj"] = torch.zeros(model.embed_dim, 8)
    found["token_embedding.weight"] = torch.zeros(5, 8)  # of the text model
    found["logit_scale"] = torch.zeros(())
    return found


@pytest.mark.parametrize("suffix", ["safetensors", "bin", "pth"])
def test_weights_of_open_clip_load_by_their_own_names(tmp_path: Path, suffix: str):
    """As those of BioCLIP 2 are published."""
    name, _, _ = FAMILIES["BioCLIP 2's kind"]
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0).eval()
    path = tmp_path / f"open_clip_model.{suffix}"
    save = save_file if suffix == "safetensors" else torch.save
    save(open_clip_names(model), path)
    weights = WeightsFile(path=str(path), mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28))
    vit = load_vit(ViT(name=name, weights=weights, resize=Squash(size=224)))
    assert vit.facts.mean == (0.48, 0.46, 0.41)
    loaded = vit.model.state_dict()
    for key, tensor in model.state_dict().items():
        assert torch.equal(loaded[key].cpu(), tensor), key
