"""The device that models and scorers run on."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

from spec import SpecError

if TYPE_CHECKING:
    import torch


def describe(on: torch.device) -> dict[str, str | int]:
    """Return what, besides the batch size, may change the last bits of a result on a device."""
    import torch

    if on.type == "cuda":
        return {"device": on.type, "device_name": torch.cuda.get_device_name(on)}
    return {
        "device": on.type,
        "device_name": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def device() -> torch.device:
    """Return SAEVX_DEVICE ("cpu", "cuda", "cuda:1") if it is set, else a GPU if there is one.

    Raise SpecError for a device that does not exist.
    """
    import torch

    wanted = os.environ.get("SAEVX_DEVICE", "").strip()
    if not wanted:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(wanted)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise SpecError(f"SAEVX_DEVICE={wanted} cannot be used: {reason}") from error
    return found
