"""Slurm's accounting: how tasks ended whose workers wrote no outcome."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from saevx.dispatch.executors.base import ExitInfo
from saevx.dispatch.messages import TaskStatus
from store.errors import NoAnswer
from store.locks.slurm import ask

FIELDS = ("JobID", "State", "ExitCode", "ElapsedRaw", "MaxRSS", "ReqMem", "NodeList", "AllocCPUS")


class SlurmTask(NamedTuple):
    """A task as Slurm names it."""

    array: str
    """Job id of the array."""
    number: int


def exit_infos(tasks: Iterable[SlurmTask]) -> dict[SlurmTask, ExitInfo] | None:
    """Return how tasks ended, by one call of sacct; None where accounting does not answer."""
    wanted = set(tasks)
    if not wanted:
        return {}
    arrays = ",".join(sorted({task.array for task in wanted}, key=int))
    chosen = [f"--jobs={arrays}", f"--format={','.join(FIELDS)}"]
    try:
        out = ask("sacct", "-a", "-P", "-n", *chosen)
    except NoAnswer:
        return None
    return {task: info for task, info in read_sacct(out).items() if task in wanted}


def read_sacct(out: str) -> dict[SlurmTask, ExitInfo]:
    """Parse the output of `sacct -P -n --format=FIELDS`."""
    rows: dict[SlurmTask, list[list[str]]] = {}
    for line in out.splitlines():
        cells = line.split("|")
        if len(cells) == len(FIELDS):
            for task in _tasks(cells[0]):
                if "." not in cells[0]:
                    rows[task] = []  # a requeued job has rows for each of its attempts
                rows.setdefault(task, []).append(cells)
    return {task: _exit_info(found) for task, found in rows.items()}


def _tasks(text: str) -> list[SlurmTask]:
    """The tasks that a row of sacct describes: `7_3`, `7_3.batch`, `7_[4-6,9%2]`."""
    match = re.match(r"(\d+)_\[?([\d,-]+)", text)
    if not match:
        return []
    tasks = []
    for part in match[2].strip(",").split(","):
        first, _, last = part.partition("-")
        tasks += [SlurmTask(match[1], n) for n in range(int(first), int(last or first) + 1)]
    return tasks


_STATUS = {
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


def _exit_info(rows: list[list[str]]) -> ExitInfo:
    """Summarise the rows of one task: one for the job, and one for each step."""
    job = next((row for row in rows if "." not in row[0]), rows[0])
    _, state, code, wall_s, _, requested, node, cpus = job
    status = _STATUS.get(state.partition(" ")[0])
    peak = max(_bytes(row[4]) for row in rows)
    codes = [row[2] for row in rows if row[2] not in ("", "0:0")]
    limit = _bytes(requested.rstrip("nc")) * (int(cpus or 1) if requested.endswith("c") else 1)
    # Without cgroups, Slurm kills a job above its memory limit and calls it cancelled or failed.
    was_killed = status in (TaskStatus.KILLED, TaskStatus.CANCELLED) and any(
        code.endswith(":9") for code in codes
    )
    if (was_killed and 0 < limit < peak) or any(row[1].startswith("OUT_OF_MEMORY") for row in rows):
        status = TaskStatus.OUT_OF_MEMORY
    return ExitInfo(
        status=status,
        message=f"Slurm says {state or 'nothing'}",
        # The code of the last step tells what ended it; that of the job may be srun's.
        exit_code=codes[-1] if codes else code,
        wall_s=float(wall_s or 0),
        peak_memory_bytes=peak,
        memory_bytes=limit,
        host="" if node == "None assigned" else node,
    )


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([\d.]+)([KMGTP]?)", text.strip())
    if not match:
        return 0
    return int(float(match[1]) * 1024 ** " KMGTP".index(match[2] or " "))
