"""Where an artifact came from: code, packages, machine, time and memory."""

from __future__ import annotations

import functools
import os
import platform
import resource
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "polars", "zarr", "resvg-py")
"""Packages whose versions may change a result in its last digits."""


class Origin:
    """Taken when a batch begins; says of each artifact where it came from."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = time.process_time()
        self._code = _commit(Path(__file__).resolve().parent)
        self._experiment_code = _commit(Path.cwd())

    def provenance(self, *, n_batch: int) -> dict[str, Any]:
        """The provenance of an artifact that was made in this process.

        Times count from the beginning of the batch, whose `n_batch` artifacts share them.
        """
        return {
            "host": platform.node(),
            "user": os.environ.get("USER", ""),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "wall_s": round(time.perf_counter() - self._wall, 3),
            "cpu_s": round(time.process_time() - self._cpu, 3),
            "n_batch": n_batch,
            "peak_memory_bytes": _peak_memory_bytes(),
            "python": platform.python_version(),
            "packages": _versions(),
            "code": self._code,
            "experiment_code": self._experiment_code,
        }


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@functools.cache
def _versions() -> dict[str, str]:
    versions = {}
    for package in ("saevx", *PACKAGES):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _commit(folder: Path) -> dict[str, Any] | None:
    """The git commit that `folder` is at and whether tracked files differ; None outside git."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return None
