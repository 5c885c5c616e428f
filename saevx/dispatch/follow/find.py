"""Find followers: the Slurm jobs of `--follow`, each of which runs `saevx run` of one file."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field

from saevx.dispatch.run_folder import run_prefix, runs_dir
from store.locks.slurm import queue

if TYPE_CHECKING:
    from store import Store

FOLDER = ".follow"


class Follower(Struct, frozen=True):
    """A follower that is queued or running."""

    name: str
    """Of the experiment."""
    prefix: str
    """Of the folders of its runs."""
    job: str
    user: str
    running: bool
    reason: str = field(name="told")
    """Why it waits."""
    node: str
    log: str

    def is_of(self, path: str) -> bool:
        """Return whether it runs the experiment file at a path."""
        return self.prefix == run_prefix(Path(path).stem, path)


def follower_folder(store: Store, name: str, path: str) -> Path:
    """Return the folder with the log, scripts and code of the follower of an experiment file."""
    return runs_dir(store) / FOLDER / run_prefix(name, path).rstrip(".")


def find_followers(store: Store) -> list[Follower]:
    """Return the followers of a store. Raises NoAnswer."""
    folders = runs_dir(store).glob(f"{FOLDER}/*")
    named = {name: folder for folder in folders if (name := _job_name(folder))}
    jobs = queue(f"--name={','.join(sorted(named))}") if named else []
    return [
        Follower(
            name=folder.name.rpartition(".")[0],
            prefix=f"{folder.name}.",
            job=job.id,
            user=job.user,
            running=job.running,
            reason="" if job.running else job.reason,
            node=job.node,
            log=str(folder / "follow.log"),
        )
        for job in jobs
        if (folder := named.get(job.name))
    ]


def _job_name(folder: Path) -> str:
    """Return the job name in the latest script of a follower; "" if it has none."""
    for script in sorted(folder.glob("*Z/*.sh"), reverse=True):
        with suppress(OSError):
            match = re.search(r"^#SBATCH --job-name=(\S+)$", script.read_text(), re.MULTILINE)
            if match:
                return match[1]
    return ""
