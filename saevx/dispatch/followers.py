"""Followers: the Slurm jobs of `--follow`, each of which runs `saevx run` of one file."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import slurm
from .folder import prefix_of, runs_of

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
        return self.prefix == prefix_of(Path(path).stem, path)

    @property
    def document(self) -> dict[str, Any]:
        return {**self.__dict__}


def find_followers(store: Store) -> list[Follower]:
    """Those of a store; none where Slurm gives no answer."""
    homes = {name: home for home in runs_of(store).glob(f"{HOMES}/*") if (name := _job_name(home))}
    if not homes:
        return []
    names = f"--name={','.join(sorted(homes))}"
    out = slurm.ask(["squeue", "--noheader", names, "--format=%j|%A|%u|%T|%r|%N"])
    found = []
    for line in (out or "").splitlines():
        name, job, user, state, reason, node = (line.strip().split("|", 5) + [""] * 6)[:6]
        if name in homes and state in slurm.WAITING | slurm.RUNNING:
            home, running = homes[name], state in slurm.RUNNING
            found.append(
                Follower(
                    name=home.name.rpartition(".")[0],
                    prefix=f"{home.name}.",
                    job=job,
                    user=user,
                    running=running,
                    told="" if running else reason,
                    node=node,
                    log=str(home / "follow.log"),
                )
            )
    return found


def _job_name(home: Path) -> str:
    """The name of its job, as the latest script there says it; "" for none."""
    for script in sorted(home.glob("*Z/follow.sh"), reverse=True):
        with suppress(OSError):
            match = re.search(r"^#SBATCH --job-name=(\S+)$", script.read_text(), re.MULTILINE)
            if match:
                return match[1]
    return ""
