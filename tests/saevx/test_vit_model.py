"""The residual stream: what is captured, and what it does not depend on."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from pydantic import ValidationError

from saevx.compute.device import device
from saevx.datasets import check_traits
from saevx.errors import SpecError
from saevx.recording.recipe import check
from saevx.vit.data_config import data_config
from saevx.vit.model import LoadedViT, ViTFacts, capture, check_layers, inspect_vit, load_vit
from spec import (
    CUB200,
    CenterCrop,
    ImageFolder,
    Keys,
    RandomInit,
    Resize,
    Shards,
    Site,
    Squash,
    ViT,
)
from spec.files.listing import Listing
from spec.images.folder import list_photos

from .cub_tree import make_cub

NAMES = {
    "test_vit": (1, True),
    "vit_small_patch14_reg4_dinov2": (5, True),
    "vit_base_patch16_siglip_224": (0, False),
    "vit_small_patch16_dinov3": (5, True),
}
"""timm name -> number of tokens before the patches, and whether one is a class token."""


def random_vit(name: str, size: int) -> ViT:
    return ViT(name=name, weights=RandomInit(seed=0), resize=Squash(size=size))


@pytest.fixture(scope="module")
def vit() -> LoadedViT:
    return load_vit(random_vit("test_vit", 32))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_facts_need_no_weights(name):
    size = 56 if "patch14" in name else 64
    facts = inspect_vit(random_vit(name, size))
    assert (facts.n_prefix, facts.has_cls) == NAMES[name]
    assert facts.grid == (4, 4)
    with torch.device("meta"):
        whole = timm.create_model(name)
    assert (facts.d_model, facts.n_blocks) == (whole.embed_dim, len(whole.blocks))


def test_layers_are_block_outputs(vit, images):
    """Compare with a plain loop over the blocks, without hooks."""
    model, expected = vit.model, {}
    with torch.inference_mode():
        x = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))
        for layer, block in enumerate(model.blocks):
            x = block(x)
            expected[layer] = x.clone()
    found = vit.residual(images, range(6))
    assert found.keys() == expected.keys()
    for layer in expected:
        assert torch.equal(found[layer], expected[layer])


class InPlace(torch.nn.Module):
    """Blocks that add 1 to their input in place, as timm's may with `inplace` layers."""

    def __init__(self, n_blocks: int) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Identity() for _ in range(n_blocks))
        for block in self.blocks:
            block.forward = lambda x: x.add_(1)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize("layers", [[0], [3], [0, 1, 2, 3], [2, 0]])
def test_later_blocks_do_not_change_what_was_captured(layers):
    found = capture(InPlace(4), torch.zeros(2, 3), layers)
    assert {layer: acts_bd.unique().item() for layer, acts_bd in found.items()} == {
        layer: layer + 1 for layer in layers
    }


@pytest.mark.parametrize("layers", [[0], [5], [2, 4], [4, 2, 0]])
def test_a_layer_does_not_depend_on_the_others(vit, images, layers):
    everything = vit.residual(images, range(6))
    some = vit.residual(images, layers)
    assert sorted(some) == sorted(layers)
    for layer in layers:
        assert torch.equal(some[layer], everything[layer])


def test_the_pass_ends_after_the_highest_layer(vit, images):
    calls = []
    hooks = [
        block.register_forward_hook(lambda *_, i=i: calls.append(i))
        for i, block in enumerate(vit.model.blocks)
    ]
    vit.residual(images, [1, 3])
    for hook in hooks:
        hook.remove()
    assert calls == [0, 1, 2, 3]
    assert not any(block._forward_hooks for block in vit.model.blocks)


def test_an_image_does_not_depend_on_the_rest_of_its_batch(vit, images):
    alone = vit.residual(images, [5])[5]
    swapped = vit.residual(torch.stack([images[2], images[0] * 9, images[1]]), [5])[5]
    assert torch.equal(swapped[0], alone[2])
    assert torch.equal(swapped[2], alone[1])


def test_layers_out_of_range_are_named():
    vit = random_vit("test_vit", 32)
    check_layers(vit, [0, 5])
    with pytest.raises(SpecError, match=r"no layer 6, 40: its 6 blocks are layers 0 to 5"):
        check_layers(vit, [40, 5, 6])
    with pytest.raises(SpecError, match="no layer -1: "):
        check_layers(vit, [0, -1])


@pytest.mark.parametrize(
    "name", ["resnet18", "cait_s24_224", "samvit_base_patch16", "mixer_b16_224"]
)
def test_other_architectures_are_refused(name):
    with pytest.raises(SpecError, match=f"{name} cannot be recorded, since"):
        inspect_vit(random_vit(name, 224))


def test_patches_that_do_not_tile_are_refused():
    with pytest.raises(SpecError, match="100 px"):
        inspect_vit(random_vit("vit_base_r50_s16_224", 100))


def test_device(monkeypatch):
    monkeypatch.setenv("SAEVX_DEVICE", "cpu")
    assert device() == torch.device("cpu")
    for unusable in ("abacus", "cuda:99"):
        monkeypatch.setenv("SAEVX_DEVICE", unusable)
        with pytest.raises(SpecError, match=f"SAEVX_DEVICE={unusable}"):
            device()
    monkeypatch.delenv("SAEVX_DEVICE")
    assert "SAEVX_DEVICE" not in os.environ
    assert device().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_global_settings_are_restored(vit, images):
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic)
    vit.residual(images, [0])
    assert (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic) == before
    assert not torch.is_inference_mode_enabled()


class TestSubclassesOfDescriptions:
    """A field that nothing reads would give two keys with the same numbers."""

    def test_unknown_resize_policies_weights_and_vits_are_refused(self) -> None:
        class Padded(Squash):
            pad: int = 0

        class Pruned(RandomInit):
            share: float = 0.5

        class Longer(ViT):
            more: int = 1

        name = "vit_tiny_patch16_224"
        for vit, known in (
            (ViT(name=name, weights=RandomInit(), resize=Padded(size=32)), "CenterCrop or Squash"),
            (ViT(name=name, weights=Pruned()), "HubWeights or WeightsFile"),
            (Longer(name=name, weights=RandomInit()), "use ViT"),
        ):
            with pytest.raises(SpecError, match=rf"recording does not know .*{known}"):
                check_layers(vit, [0])

    def test_image_sets_with_a_field_that_is_not_read_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "1.jpg").write_bytes(b"1")

        class Half(ImageFolder):
            part: int = 0

        class First(Half):
            def listing(self, site: Site) -> Listing:
                return list_photos(self.folder(site))

        def shards(images: ImageFolder) -> Shards:
            return Shards(images=images, vit=ViT(name="test_vit", weights=RandomInit()), layer=0)

        with pytest.raises(SpecError, match="Half adds part to ImageFolder, which does not read"):
            check([shards(Half(root=str(tmp_path)))], Site())
        check([shards(First(root=str(tmp_path)))], Site())
        check([shards(ImageFolder(root=str(tmp_path)))], Site())

    def test_trait_sets_with_a_field_that_is_not_read_are_refused(self, tmp_path: Path) -> None:
        class Sure(CUB200):
            surest: bool = False

        class Renamed(CUB200):
            pass

        root = str(make_cub(tmp_path).root)
        with pytest.raises(SpecError, match="Sure adds surest to CUB200, whose reader does not"):
            check_traits(Sure(split="train", root=root), Site())
        check_traits(Renamed(split="train", root=root), Site())


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("swin_tiny_patch4_window7_224", "it has no blocks, num_prefix_tokens"),
        ("convnext_tiny", "it takes images of any size"),
        ("hiera_tiny_224", r"it has no .*patch_embed\.grid_size"),
        ("convit_tiny", r"block 0 returns tokens of shape \(196, 192\), not \(197, 192\)"),
        ("cait_xxs24_224", r"block 0 returns tokens of shape \(196, 192\), not \(197, 192\)"),
        ("resnet18", "it takes images of any size"),
    ],
)
def test_models_without_one_token_grid_are_refused_in_a_sentence(name: str, why: str) -> None:
    """convit passed, and failed halfway: its class token joins the patches after ten blocks."""
    message = rf"{name} cannot be recorded, since its blocks do not all .* \({why}\): use a plain"
    with pytest.raises(SpecError, match=message):
        check_layers(random_vit(name, 224), [11])


def test_untagged_weights_take_the_normalisation_of_a_tag_or_their_own() -> None:
    name = "vit_base_patch16_224"

    def facts(**fields: Any) -> ViTFacts:
        return inspect_vit(ViT(name=name, weights=RandomInit(**fields)))

    tagged = inspect_vit(ViT(name=f"{name}.mae"))
    assert tagged.mean != facts().mean, "timm's default for the architecture is another tag"
    assert facts(pretrained_cfg="mae").mean == tagged.mean
    assert facts(pretrained_cfg="mae").std == tagged.std
    own = facts(mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    assert (own.mean, own.std) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    keys = Keys(Site())
    texts = [keys.text(RandomInit(pretrained_cfg=tag)) for tag in (None, "mae", "dino")]
    assert len(set(texts)) == 3
    with pytest.raises(SpecError, match="no weights 'maee' for vit_base_patch16_224"):
        facts(pretrained_cfg="maee")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mean": (0, 0, 0)}, "mean and std belong together"),
        ({"mean": (0, 0, 0), "std": (1, 0, 1)}, "all three must be above 0"),
        ({"mean": (0, 0, 0), "std": (1, 1, 1), "pretrained_cfg": "openai"}, "pass either"),
    ],
)
def test_normalisations_that_make_no_sense_are_refused(fields: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RandomInit(**fields)


@pytest.mark.parametrize(
    ("name", "resize"),
    [
        ("vit_small_patch14_dinov2.lvd142m", CenterCrop(size=518)),
        ("vit_base_patch16_siglip_512.v2_webli", CenterCrop(size=512)),
        ("eva02_base_patch14_448.mim_in22k_ft_in22k", Squash(size=448)),
        ("vit_base_patch32_clip_224.openai", CenterCrop(size=224)),
        ("vit_base_patch16_clip_384.laion2b_ft_in1k", Squash(size=384)),
    ],
)
def test_without_a_resize_the_size_and_crop_of_the_weights_hold(name: str, resize: Resize) -> None:
    assert data_config(ViT(name=name)).resize == resize
    own = ViT(name=name, resize=CenterCrop(size=64 if "14" not in name else 56))
    assert data_config(own).resize == own.resize
    side = resize.size // int(re.findall(r"patch(\d+)", name)[0])
    assert inspect_vit(ViT(name=name)).grid == (side, side)
