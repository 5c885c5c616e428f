"""Random weights as a control: how far the blocks move the stream."""

from __future__ import annotations

import pytest
import torch

from saevx.recording.join_parts import MAX_COSINE_OF_CONTROL, _warnings_of_control
from saevx.vit.model import first_last_cosine, load_vit
from saevx.vit.random_init import noise
from spec import Keys, RandomInit, Site, Squash, ViT

NAMES = {
    "eva02_tiny_patch14_224": 56,
    "vit_pe_core_tiny_patch16_384": 64,
    "vit_small_patch16_dinov3": 64,
    "vit_small_patch14_dinov2": 56,
    "vit_tiny_patch16_224": 64,
}


def random_vit(name: str, **fields: float) -> ViT:
    return ViT(name=name, weights=RandomInit(**fields), resize=Squash(size=NAMES[name]))


def ratios(name: str, **fields: float) -> list[float]:
    """Mean |f(x)| / |x| of each block, by hooks on a plain forward."""
    loaded, found = load_vit(random_vit(name, **fields)), []

    def hook(block: torch.nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        x = inputs[0]
        found.append(float(((out - x).norm(dim=-1) / x.norm(dim=-1)).mean()))

    for block in loaded.model.blocks:
        block.register_forward_hook(hook)
    loaded.model.forward_features(noise(NAMES[name]))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_blocks_add_the_share_that_was_asked_for(name: str) -> None:
    assert all(ratio == pytest.approx(0.7, rel=0.15) for ratio in ratios(name, branch_ratio=0.7))
    vit = load_vit(random_vit(name, branch_ratio=0.7))
    assert first_last_cosine(vit, NAMES[name]) < 0.5


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "vit_pe_core_tiny_patch16_384"])
def test_timms_initialisation_leaves_the_patch_embedding(name: str) -> None:
    assert max(ratios(name)) < 0.1
    cosine = first_last_cosine(load_vit(random_vit(name)), NAMES[name])
    assert cosine > 0.98
    (warning,) = _warnings_of_control({"first_last_cosine": cosine})
    assert f"the first and the last block is {cosine}" in warning
    assert "branch_ratio=0.7" in warning


def test_only_a_cosine_near_one_is_warned_of() -> None:
    assert (
        _warnings_of_control({})
        == _warnings_of_control({"first_last_cosine": MAX_COSINE_OF_CONTROL})
        == []
    )


def test_a_ratio_changes_the_key_and_is_the_same_in_every_process() -> None:
    name = "vit_tiny_patch16_224"
    keys = Keys(Site())
    texts = {keys.text(RandomInit(branch_ratio=ratio)) for ratio in (None, 0.7, 0.8)}
    assert len(texts) == 3
    states = []
    for n_threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(n_threads)
        try:
            states.append(load_vit(random_vit(name, branch_ratio=0.7)).model.state_dict())
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
