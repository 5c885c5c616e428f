"""Settings of torch under which recipes compute: plain float32, whatever the process has set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")
"""The types of devices on which autocast may be on."""


class _Setting(NamedTuple):
    read: Callable[[], Any]
    write: Callable[[Any], Any]
    value: Any
    """The value while recipes compute."""


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute in float32: no autocast, no TF32 or bfloat16 products, no kernels chosen by timing.

    A key does not contain the settings of torch, so what is computed must not depend on them. The
    former settings are restored at the end.
    """
    import torch

    with ExitStack() as stack:
        for device in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(_set(_settings()))
        yield


@contextmanager
def _set(settings: list[_Setting]) -> Iterator[None]:
    before: list[tuple[_Setting, Any]] = []
    try:
        for setting in settings:
            try:
                was = setting.read()
            except RuntimeError:
                continue  # it was set by its new name, and torch refuses its old one
            before.append((setting, was))
        for setting, _ in before:
            setting.write(setting.value)
        yield
    finally:
        # In the same order: writing a setting by its old name also writes its new names.
        for setting, was in before:
            setting.write(was)


def _settings() -> list[_Setting]:
    import torch

    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    settings = [
        _Setting(torch.get_default_dtype, torch.set_default_dtype, torch.float32),
        _Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
        _attribute(cudnn, "enabled", True),
        _attribute(cudnn, "benchmark", False),
        _attribute(cudnn, "deterministic", True),
        _attribute(cudnn, "allow_tf32", False),
        # The kernels that attention may choose from.
        _Setting(cuda.flash_sdp_enabled, cuda.enable_flash_sdp, True),
        _Setting(cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp, True),
        _Setting(cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp, True),
        _Setting(cuda.math_sdp_enabled, cuda.enable_math_sdp, True),
    ]
    # torch 2.9 has a setting for the precision of each operation, on the CPU too.
    for backend, operation, general in (
        (cuda, "matmul", cudnn),  # one general setting for all that CUDA computes
        (cudnn, "conv", cudnn),
        (cudnn, "rnn", cudnn),
        (mkldnn, "matmul", mkldnn),
        (mkldnn, "conv", mkldnn),
        (mkldnn, "rnn", mkldnn),
    ):
        owner = getattr(backend, operation, None)
        if hasattr(owner, "fp32_precision"):
            settings.append(_precision(owner, (torch.backends, general)))
    return settings


def _precision(owner: Any, general: Sequence[Any]) -> _Setting:
    """Return the setting of an operation, which follows the `general` ones while it is "none".

    torch reports the value that an operation follows as its own. So the general settings are
    "none" while it is read.
    """

    def read() -> Any:
        with ExitStack() as stack:
            for above in general:
                former = above.fp32_precision
                stack.callback(setattr, above, "fp32_precision", former)
                above.fp32_precision = "none"
            return owner.fp32_precision

    return _attribute(owner, "fp32_precision", "ieee")._replace(read=read)


def _attribute(owner: Any, name: str, value: Any) -> _Setting:
    return _Setting(partial(getattr, owner, name), partial(setattr, owner, name), value)
