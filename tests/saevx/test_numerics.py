"""What a recipe computes does not depend on how the process around it has set torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel

from saevx.compute.numerics import exact_float32
from saevx.prototypes.random import random_prototypes
from saevx.recording.recipe import record_shards
from saevx.resolve.context import Context
from saevx.resolve.run_recipe import make
from saevx.traits.scores import image_scores
from spec import (
    ImageFolder,
    ImageScores,
    Keys,
    RandomInit,
    RandomPrototypes,
    Shards,
    Site,
    Squash,
    ViT,
)
from store import Store

VIT = ViT(name="test_vit", weights=RandomInit(seed=0), resize=Squash(size=32))

HAS_FP32_PRECISION = hasattr(torch.backends.mkldnn, "conv")
"""From torch 2.9 on."""


def legacy(read: Any) -> Any:
    """Read a setting by its old name, which torch may refuse where it was set by a new one."""
    try:
        return read()
    except RuntimeError:
        return "refused"


def read_settings() -> list[Any]:
    matmul, cudnn, cuda = torch.backends.cuda.matmul, torch.backends.cudnn, torch.backends.cuda
    found = [
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_default_device(),
        legacy(torch.get_float32_matmul_precision),
        legacy(lambda: matmul.allow_tf32),
        cudnn.benchmark,
        cudnn.deterministic,
        cuda.flash_sdp_enabled(),
        cuda.mem_efficient_sdp_enabled(),
        cuda.math_sdp_enabled(),
    ]
    if HAS_FP32_PRECISION:
        mkldnn = torch.backends.mkldnn
        found += [part.fp32_precision for part in (matmul, cudnn.conv, mkldnn.matmul, mkldnn.conv)]
    return found


@contextmanager
def changed(read: Any, write: Any, value: Any) -> Iterator[None]:
    before = read()
    write(value)
    try:
        yield
    finally:
        write(before)


def attribute(owner: Any, name: str, value: Any) -> Any:
    return changed(partial(getattr, owner, name), partial(setattr, owner, name), value)


AMBIENT = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float64": lambda: changed(torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "device": lambda: torch.device("meta"),
    "precision": lambda: changed(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "attention": lambda: sdpa_kernel([SDPBackend.MATH]),
    "tf32": lambda: attribute(torch.backends.cuda.matmul, "allow_tf32", True),
    "benchmark": lambda: attribute(torch.backends.cudnn, "benchmark", True),
}
if HAS_FP32_PRECISION:
    AMBIENT |= {
        "tf32 everywhere": lambda: attribute(torch.backends, "fp32_precision", "tf32"),
        "bf16 convolutions": lambda: attribute(
            torch.backends.mkldnn.conv, "fp32_precision", "bf16"
        ),
    }


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageFolder:
    root = tmp_path_factory.mktemp("images")
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.png")
    return ImageFolder(root=str(root))


def digests(images: ImageFolder, root: Any) -> dict[str, dict[str, Any]]:
    """Digests of all files of all artifacts from images to scores."""
    shards = Shards(images=images, vit=VIT, layer=4, batch_size=3, dtype="float32")
    scorer = RandomPrototypes(shards=shards, n=7)
    found = {}
    for recipe, spec in (
        (record_shards, shards),
        (random_prototypes, scorer),
        (image_scores, ImageScores(scorer=scorer, images=images)),
    ):
        with Context(Keys(Site()), Store(root)).batch((spec,)) as batch:
            make(recipe, batch)
        assert not batch.failed
        (artifact,) = batch.made.values()
        found[type(spec).__name__] = {
            name: file.xxh3 for name, file in artifact.manifest.files.items()
        }
    return found


@pytest.fixture(scope="module")
def expected(images, tmp_path_factory):
    return digests(images, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("name", AMBIENT)
def test_artifacts_are_the_same_however_torch_is_set(images, expected, tmp_path, name):
    start = torch.get_float32_matmul_precision()
    with AMBIENT[name]():
        before = read_settings()
        found = digests(images, tmp_path)
        assert read_settings() == before
    assert torch.get_float32_matmul_precision() == start  # what follows another setting still does
    assert found == expected


@pytest.mark.parametrize("name", AMBIENT)
def test_settings_within_the_block_do_not_depend_on_the_process(name):
    with exact_float32():
        plain = read_settings()
    with AMBIENT[name]():
        before = read_settings()
        with suppress(ZeroDivisionError), exact_float32():
            inside = read_settings()
            raise ZeroDivisionError
        assert read_settings() == before
    place = 2  # the default device is not set: code that makes tensors names a device
    assert [*inside[:place], *inside[place + 1 :]] == [*plain[:place], *plain[place + 1 :]]


def test_every_setting_is_set():
    with AMBIENT["precision"](), AMBIENT["autocast"](), AMBIENT["float64"](), exact_float32():
        assert not torch.is_autocast_enabled("cpu")
        assert torch.get_default_dtype() == torch.float32
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.benchmark
        assert (torch.rand(3, 3) @ torch.rand(3, 3)).dtype == torch.float32


@pytest.mark.skipif(not HAS_FP32_PRECISION, reason="torch before 2.9 has no such settings")
@pytest.mark.parametrize("general", ["none", "ieee", "tf32"])
@pytest.mark.parametrize("convolutions", ["none", "ieee", "tf32"])
def test_an_operation_follows_the_general_precision_afterwards_if_it_did_before(
    general: str, convolutions: str
) -> None:
    backends = torch.backends
    with (
        attribute(backends.cudnn.conv, "fp32_precision", convolutions),
        attribute(backends.cudnn.rnn, "fp32_precision", convolutions),
    ):
        with attribute(backends, "fp32_precision", general):
            before = backends.cudnn.conv.fp32_precision
            with exact_float32():
                assert backends.cudnn.conv.fp32_precision == "ieee"
            assert backends.cudnn.conv.fp32_precision == before
        assert backends.cudnn.conv.fp32_precision == convolutions
        assert backends.cudnn.rnn.fp32_precision == convolutions
