"""Accounting: what sacct says of elements that are over and left no word themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from saevx.dispatch.executors.slurm import SlurmTask
from saevx.dispatch.messages import TaskStatus
from store.errors import NoAnswer
from store.locks.slurm import ask

FIELDS = ("JobID", "State", "ExitCode", "ElapsedRaw", "MaxRSS", "ReqMem", "NodeList", "AllocCPUS")


class ExitInfo(NamedTuple):
    """What sacct says of an element that is over."""

    status: TaskStatus | None
    """None when it ended well, or is not over."""
    message: str
    exit_code: str
    wall_s: float
    peak_memory_bytes: int
    memory_bytes: int
    """What it had asked for; 0 where that is not known."""
    node: str


def deaths(jobs: Iterable[SlurmTask]) -> dict[SlurmTask, ExitInfo] | None:
    """What became of elements, by one sacct for all; None where accounting gives no answer."""
    wanted = set(jobs)
    if not wanted:
        return {}
    arrays = ",".join(sorted({job.array for job in wanted}, key=int))
    chosen = [f"--jobs={arrays}", f"--format={','.join(FIELDS)}"]
    try:
        out = ask("sacct", "-a", "-P", "-n", *chosen)
    except NoAnswer:
        return None
    return {job: death for job, death in read_sacct(out).items() if job in wanted}


def read_sacct(out: str) -> dict[SlurmTask, ExitInfo]:
    """What rows of `sacct -P -n --format=FIELDS` say of each element."""
    rows: dict[SlurmTask, list[list[str]]] = {}
    for line in out.splitlines():
        cells = line.split("|")
        if len(cells) == len(FIELDS):
            for job in _jobs_of(cells[0]):
                if "." not in cells[0]:
                    rows[job] = []  # a job put back into the queue has rows for each of its goes
                rows.setdefault(job, []).append(cells)
    return {job: _death(found) for job, found in rows.items()}


def _jobs_of(text: str) -> list[SlurmTask]:
    """The elements that a row of sacct is about: `7_3`, `7_3.batch`, `7_[4-6,9%2]`."""
    match = re.match(r"(\d+)_\[?([\d,-]+)", text)
    if not match:
        return []
    jobs = []
    for part in match[2].strip(",").split(","):
        first, _, last = part.partition("-")
        jobs += [SlurmTask(match[1], index) for index in range(int(first), int(last or first) + 1)]
    return jobs


_ENDS = {
    "OUT_OF_MEMORY": TaskStatus.OUT_OF_MEMORY,
    "TIMEOUT": TaskStatus.TIME_LIMIT,
    "DEADLINE": TaskStatus.TIME_LIMIT,
    "PREEMPTED": TaskStatus.PREEMPTED,
    "REVOKED": TaskStatus.PREEMPTED,
    "NODE_FAIL": TaskStatus.NODE_FAILURE,
    "BOOT_FAIL": TaskStatus.NODE_FAILURE,
    "CANCELLED": TaskStatus.CANCELLED,
    "FAILED": TaskStatus.KILLED,
}


def _death(rows: list[list[str]]) -> ExitInfo:
    """From the rows of one element: its own, and one a step."""
    state, code, wall, _, asked, node, cpus = next(
        (row[1:] for row in rows if "." not in row[0]), rows[0][1:]
    )
    words = state.split()
    end = _ENDS.get(words[0] if words else "")
    peak = max((_bytes(row[4]) for row in rows), default=0)
    codes = [row[2] for row in rows if row[2] not in ("", "0:0")]
    limit = _bytes(asked.rstrip("nc")) * (int(cpus or 1) if asked.endswith("c") else 1)
    signals = {code.partition(":")[2] for code in codes}
    if any(row[1].startswith("OUT_OF_MEMORY") for row in rows):
        end = TaskStatus.OUT_OF_MEMORY
    elif (
        end in (TaskStatus.KILLED, TaskStatus.CANCELLED)
        and limit
        and peak > limit
        and "9" in signals
    ):
        # Without cgroups Slurm kills what is above its memory, and calls it cancelled or failed.
        end = TaskStatus.OUT_OF_MEMORY
    told = f"Slurm says {state or 'nothing'}"
    code = codes[-1] if codes else code  # of a step: what ended it, where the job's is srun's
    # Of what never began, the node is "None assigned".
    node = "" if " " in node else node
    return ExitInfo(end, told, code, float(wall or 0), peak, limit, node)


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([\d.]+)([KMGTP]?)", text.strip())
    if not match:
        return 0
    return int(float(match[1]) * 1024 ** " KMGTP".index(match[2] or " "))
