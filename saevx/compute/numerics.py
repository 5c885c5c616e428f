"""What recipes compute in: plain float32, whatever the process around them has set torch to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Where a process may have autocast on."""


class _Setting(NamedTuple):
    read: Callable[[], Any]
    write: Callable[[Any], Any]
    value: Any
    """What holds while recipes compute."""


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute in float32: no autocast, no TF32 or bfloat16 products, kernels not chosen by a clock.

    A key does not count how torch was set when its artifact was made, so what is computed must not
    depend on that. What was set is there again at the end.
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
                continue  # torch refuses to read an old name of what was set by its new one
            before.append((setting, was))
        for setting, _ in before:
            setting.write(setting.value)
        yield
    finally:
        # In the order of setting: torch's old names of a setting also write its new ones.
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
        # Which kernels attention may choose among.
        _Setting(cuda.flash_sdp_enabled, cuda.enable_flash_sdp, True),
        _Setting(cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp, True),
        _Setting(cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp, True),
        _Setting(cuda.math_sdp_enabled, cuda.enable_math_sdp, True),
    ]
    # torch 2.9 names the precision of each operation, also of those on the CPU.
    for backend, operations in (
        (cuda, ("matmul",)),
        (cudnn, ("conv", "rnn")),
        (mkldnn, ("matmul", "conv", "rnn")),
    ):
        for operation in operations:
            owner = getattr(backend, operation, None)
            if hasattr(owner, "fp32_precision"):
                settings.append(_attribute(owner, "fp32_precision", "ieee"))
    return settings


def _attribute(owner: Any, name: str, value: Any) -> _Setting:
    return _Setting(partial(getattr, owner, name), partial(setattr, owner, name), value)
