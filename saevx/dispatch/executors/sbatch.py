"""Submission to Slurm: submitit writes the batch script, and our own call of sbatch, which has a
time-out and can be interrupted, submits it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saevx.dispatch.code.snapshot import command as start_of
from saevx.dispatch.messages import Array
from saevx.dispatch.profiles import Resources
from saevx.dispatch.run_folder import RunFolder
from store.errors import NoAnswer, SlurmError
from store.locks.slurm import call

LONGEST_WARNING_S = 90
"""Seconds before its time limit at which a job is warned; less for short jobs."""


def submit(array: Array, folder: RunFolder, resources: Resources, after: Sequence[str]) -> str:
    """Submit an array that is recorded already. Return its job id. Raise as `send` does."""
    log = f"{escaped(folder.logs)}/slurm/%A_%a_0_log.out"
    options = options_of(array.name, resources, log)
    if after:
        options["dependency"] = "afterany:" + ":".join(sorted(after, key=int))
    worker = "saevx.dispatch.worker.main", str(folder.path), array.name
    command = start_of(folder.code, folder.code_digest, *worker)
    script = folder.logs / "slurm" / f"{array.name}.sh"
    return send(script, shlex.join(command), options, len(array.tasks))


def send(script: Path, command: str, options: Mapping[str, Any], n: int | None = None) -> str:
    """Submit a command as a job, or as an array of `n` tasks. Return its job id.

    Raise SlurmError; NoAnswer where it may have been submitted all the same.
    """
    import submitit

    try:
        script.parent.mkdir(parents=True, exist_ok=True)
        writer = submitit.SlurmExecutor(folder=script.parent)
        writer.update_parameters(**options)
        writer.parameters["map_count"] = n
        # submitit's public `submit` pickles the function, and moves the pickle into place after
        # sbatch: if the submitter is killed in between, its jobs cannot run. It also waits for
        # sbatch without a time limit.
        script.write_text(writer._make_submission_file_text(command, ""))
    except (RuntimeError, OSError) as error:
        raise SlurmError(f"cannot submit {script}: {error}") from error
    done = call("sbatch", "--parsable", str(script), env=_environment())
    if done.returncode != 0:
        message = f"Slurm refuses {options['job_name']}: {done.stderr.strip()}"
        raise (NoAnswer if "timed out" in message else SlurmError)(message)
    return done.stdout.strip().partition(";")[0]


def options_of(name: str, resources: Resources, log: str) -> dict[str, Any]:
    """The options of a job, as submitit names them."""
    minutes = max(1, round(resources.hours * 60))
    exports = [f"export {key}={shlex.quote(val)}" for key, val in resources.environment.items()]
    options: dict[str, Any] = {
        "job_name": name,
        "time": minutes,
        "cpus_per_task": resources.cpus,
        "array_parallelism": resources.parallelism,
        "signal_delay_s": min(LONGEST_WARNING_S, minutes * 60 // 4),
        "stderr_to_stdout": True,
        "setup": [*resources.setup, *exports],
        "additional_parameters": {"requeue": True, "output": log},
        "wckey": None,  # submitit's own, which some clusters refuse
        "srun_args": ["--mpi=none", f"--cpus-per-task={resources.cpus}", f"--output={log}"],
    }
    if resources.memory_gb is not None:
        options["mem"] = f"{max(1, round(resources.memory_gb * 1024))}MB"
    if resources.gpus:
        options["gpus_per_node"] = resources.gpus
    for option in ("account", "partition", "qos", "constraint"):
        if getattr(resources, option) is not None:
            options[option] = getattr(resources, option)
    return options


def escaped(path: Path) -> str:
    """A path for --output, where `%` begins a replacement."""
    return str(path).replace("%", "%%")


def _environment() -> dict[str, str]:
    """The environment without what Slurm has set for the job of this process, if it is in one."""
    of_a_job = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")
    return {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or not name.startswith(of_a_job)
    }
