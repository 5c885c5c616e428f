"""Submission to Slurm: submitit writes the script of a job array and calls sbatch."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from .folder import RunFolder
from .profiles import Resources
from .records import Array
from .slurm import SlurmError, escaped, outside_of_jobs
from .snapshot import python, search_path

LONGEST_WARNING_S = 90
"""Seconds before its time limit at which a job is told; less for short ones."""


def submit(array: Array, folder: RunFolder, resources: Resources, after: Sequence[str]) -> str:
    """Submit an array that is written down already. Returns its job id. Raises SlurmError."""
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    class _Executor(submitit.SlurmExecutor):
        """submitit's, but that the worker gets its payload from the run's folder by name."""

        def __init__(self) -> None:
            super().__init__(folder=folder.logs / "slurm")

        def send(self, n: int) -> str:
            self.parameters["map_count"] = n
            worker = python("saevx.dispatch.worker")
            command = shlex.join([*worker, str(folder.path), array.name])
            return str(self._submit_command(command).job_id)

    try:
        (folder.logs / "slurm").mkdir(parents=True, exist_ok=True)
        executor = _Executor()
        executor.update_parameters(**_parameters(array.name, folder, resources, after))
        with outside_of_jobs():
            return executor.send(len(array.elements))
    except (FailedJobError, FailedSubmissionError, RuntimeError, OSError) as error:
        raise SlurmError(f"Slurm does not take {array.name}: {_last_line(str(error))}") from error


def _parameters(
    name: str, folder: RunFolder, resources: Resources, after: Sequence[str]
) -> dict[str, object]:
    """What a job asks for, as submitit names it."""
    minutes = max(1, round(resources.hours * 60))
    log = f"{escaped(folder.logs)}/slurm/%A_%a_0_log.out"
    parameters: dict[str, object] = {
        "job_name": name,
        "time": minutes,
        "cpus_per_task": resources.cpus,
        "array_parallelism": resources.parallelism,
        "signal_delay_s": min(LONGEST_WARNING_S, minutes * 60 // 4),
        "stderr_to_stdout": True,
        "setup": _setup(name, folder.code, resources),
        "additional_parameters": {"requeue": True, "output": log},
        "wckey": None,  # submitit's own, which some clusters refuse
        "srun_args": ["--mpi=none", f"--cpus-per-task={resources.cpus}", f"--output={log}"],
    }
    if resources.memory_gb is not None:
        parameters["mem"] = f"{max(1, round(resources.memory_gb * 1024))}MB"
    if resources.gpus:
        parameters["gpus_per_node"] = resources.gpus
    for option in ("account", "partition", "qos", "constraint"):
        if getattr(resources, option) is not None:
            parameters[option] = getattr(resources, option)
    if after:
        parameters["dependency"] = "afterany:" + ":".join(sorted(after, key=int))
    return parameters


def _setup(name: str, code: Path, resources: Resources) -> list[str]:
    """Lines of shell before the worker."""
    environment = {**resources.environment, "SAEVX_JOB": name}
    path = os.pathsep.join(search_path(code))
    return [
        *resources.setup,
        *(f"export {key}={shlex.quote(value)}" for key, value in environment.items()),
        f"export PYTHONPATH={shlex.quote(path)}${{PYTHONPATH:+:$PYTHONPATH}}",
    ]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    told = [line for line in lines if "error" in line.lower()]
    return (told or lines or [""])[-1]
