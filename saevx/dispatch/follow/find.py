"""Followers: the Slurm jobs of `--follow`, each of which runs `saevx run` of one file."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saevx.dispatch.run_folder import run_prefix, runs_dir
from store.locks.slurm import queue

if TYPE_CHECKING:
    from store import Store

HOMES = ".follow"


@dataclass(frozen=True)
class Follower:
    """One that waits or runs."""

    name: str
    """Of the experiment."""
    prefix: str
    """How the folders of the runs that it makes begin."""
    job: str
    user: str
    running: bool
    told: str
    """Why it waits."""
    node: str
    log: str

    def is_of(self, path: str) -> bool:
        """Whether it runs the experiment file at a path."""
        return self.prefix == run_prefix(Path(path).stem, path)

    @property
    def document(self) -> dict[str, Any]:
        return {**self.__dict__}


def find_followers(store: Store) -> list[Follower]:
    """Those of a store. Raises NoAnswer."""
    homes = {name: home for home in runs_dir(store).glob(f"{HOMES}/*") if (name := _job_name(home))}
    if not homes:
        return []
    return [
        Follower(
            name=homes[job.name].name.rpartition(".")[0],
            prefix=f"{homes[job.name].name}.",
            job=job.id,
            user=job.user,
            running=job.running,
            told="" if job.running else job.reason,
            node=job.node,
            log=str(homes[job.name] / "follow.log"),
        )
        for job in queue(f"--name={','.join(sorted(homes))}")
        if job.name in homes
    ]


def _job_name(home: Path) -> str:
    """The name of its job, as the latest script there says it; "" for none."""
    for script in sorted(home.glob("*Z/*.sh"), reverse=True):
        with suppress(OSError):
            match = re.search(r"^#SBATCH --job-name=(\S+)$", script.read_text(), re.MULTILINE)
            if match:
                return match[1]
    return ""
