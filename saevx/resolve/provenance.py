"""Provenance of artifacts: code, packages, machine, time and memory."""

from __future__ import annotations

import functools
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "polars", "zarr", "resvg-py")
"""Packages whose versions may change the last digits of a result."""


class Stopwatch:
    """Measures wall and CPU seconds from its creation."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def elapsed_s(self) -> dict[str, float]:
        """Return the wall and CPU seconds since then, by their names in provenance."""
        wall_s, cpu_s = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return {"wall_s": round(wall_s, 3), "cpu_s": round(cpu_s, 3)}


@dataclass(frozen=True)
class CodeVersion:
    """The code that a run runs, as it was when the run began. Jobs get it as JSON."""

    experiment: str | None
    """Path of the experiment's file."""
    code: dict[str, Any] | None
    """Commit and dirtiness of saevx's own checkout; None where it is not in one."""
    experiment_code: dict[str, Any] | None
    """The same of the experiment's file, or in a notebook of the current folder."""
    sources: dict[str, str] = field(default_factory=dict)
    """Name of a user's type -> digest of the code that makes it."""

    @classmethod
    def of(
        cls, experiment: Path | None = None, sources: dict[str, str] | None = None
    ) -> CodeVersion:
        """Return the present version of saevx and of an experiment."""
        name = str(experiment) if experiment else None
        place = experiment.resolve() if experiment else Path.cwd()
        return cls(name, _commit(Path(__file__).resolve()), _commit(place), sources or {})

    def provenance(self, watch: Stopwatch, *, type_name: str, n_batch: int) -> dict[str, Any]:
        """Return the provenance of an artifact made in this process since `watch` began.

        Its times are those of all the `n_batch` artifacts that were made together.
        """
        return {
            "host": platform.node(),
            "user": os.environ.get("USER", ""),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            **watch.elapsed_s(),
            "n_batch": n_batch,
            "peak_memory_bytes": _peak_memory_bytes(),
            "python": platform.python_version(),
            "packages": _versions(),
            "code": self.code,
            "experiment": Path(self.experiment).name if self.experiment else None,
            "experiment_code": self.experiment_code,
            "source": self.sources.get(type_name),
        }


def with_parts(sealing: dict[str, Any], parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the provenance of an artifact from that of its sealing and of its parts.

    The times are sums over the parts and the sealing; `parts` says on which hosts, in which jobs
    and by which code the parts were made.
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
        "hosts": _unique(part["host"] for part in parts),
        "slurm_jobs": _unique(part["slurm_job"] for part in parts if part["slurm_job"]),
        "code": _unique(part["code"] for part in parts),
    }
    known = {name: value for name, value in summary.items() if value}
    return {**sealing, **costs, "peak_memory_bytes": peak, "parts": known}


def _unique(values: Iterable[Any]) -> list[Any]:
    """Return each value once, in order; values may be dicts."""
    return list({repr(value): value for value in values}.values())


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
    """Return the git commit of the repository that tracks `path`, and whether it is dirty.

    None outside git, and for a file that the repository around it does not track, for example a
    package installed into an environment inside a checkout.
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
