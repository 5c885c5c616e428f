"""Where an artifact came from: code, packages, machine, time and memory."""

from __future__ import annotations

import functools
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "polars", "zarr", "resvg-py")
"""Packages whose versions may change a result in its last digits."""


class Stopwatch:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    @property
    def wall_s(self) -> float:
        return round(time.perf_counter() - self._wall, 3)

    @property
    def cpu_s(self) -> float:
        return round(time.process_time() - self._cpu, 3)


class Origin:
    """The code that a run runs, taken when it begins: saevx's, and that of the experiment.

    `experiment` is the experiment's file; in a notebook the current folder stands for it.
    """

    def __init__(self, experiment: Path | None = None) -> None:
        self.experiment = experiment
        self.code = _commit(Path(__file__).resolve())
        """Commit and dirtiness of saevx's own checkout; None where it is not in one."""
        self._experiment_code = _commit(experiment.resolve() if experiment else Path.cwd())

    @property
    def record(self) -> dict[str, Any]:
        """What another process needs to know of it, as plain JSON data."""
        name = str(self.experiment) if self.experiment else None
        return {"experiment": name, "code": self.code, "experiment_code": self._experiment_code}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Origin:
        """Inverse of `record`: the code that was there when the work was sent off."""
        made = cls.__new__(cls)
        made.experiment = Path(record["experiment"]) if record["experiment"] else None
        made.code, made._experiment_code = record["code"], record["experiment_code"]
        return made

    def provenance(self, watch: Stopwatch, *, n_batch: int) -> dict[str, Any]:
        """The provenance of an artifact made in this process since `watch` began.

        Its times are shared by the `n_batch` artifacts that were made in one go.
        """
        return {
            "host": platform.node(),
            "user": os.environ.get("USER", ""),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "wall_s": watch.wall_s,
            "cpu_s": watch.cpu_s,
            "n_batch": n_batch,
            "peak_memory_bytes": _peak_memory_bytes(),
            "python": platform.python_version(),
            "packages": _versions(),
            "code": self.code,
            "experiment": self.experiment.name if self.experiment else None,
            "experiment_code": self._experiment_code,
        }


def with_parts(sealing: dict[str, Any], parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The provenance of an artifact from that of its sealing and of its parts.

    Times add up to what the artifact has cost; `parts` says on which hosts, in which jobs and by
    which code they were made.
    """
    n_batch = sealing["n_batch"]
    costs = {
        name: round(
            sealing[name] + n_batch * sum(part[name] / part["n_batch"] for part in parts), 3
        )
        for name in ("wall_s", "cpu_s")
    }
    peak = max(one["peak_memory_bytes"] for one in (sealing, *parts))
    summary = {
        "n": len(parts),
        "hosts": _each_once(part["host"] for part in parts),
        "slurm_jobs": _each_once(part["slurm_job"] for part in parts if part["slurm_job"]),
        "code": _each_once(part["code"] for part in parts),
    }
    told = {name: value for name, value in summary.items() if value}
    return {**sealing, **costs, "peak_memory_bytes": peak, "parts": told}


def _each_once(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


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


def _commit(path: Path) -> dict[str, Any] | None:
    """The git commit of the repository that tracks `path`, and whether tracked files differ.

    None outside git, and for a file that the repository around it does not track, such as a
    package installed into an environment within somebody's checkout.
    """
    folder = path if path.is_dir() else path.parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        if path.is_file() and not git("ls-files", "--", path.name):
            return None
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return None
