"""Submission to Slurm: submitit writes the script of a job, and sbatch gets it by our call, which
ends in time and can be interrupted."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saevx.dispatch.code.snapshot import command as start_of
from saevx.dispatch.executors.slurm import environment_outside_jobs, escaped
from saevx.dispatch.messages import Array
from saevx.dispatch.profiles import Resources
from saevx.dispatch.run_folder import RunFolder
from store.errors import NoAnswer, SlurmError
from store.locks.slurm import call

LONGEST_WARNING_S = 90
"""Seconds before its time limit at which a job is told; less for short ones."""


def submit(array: Array, folder: RunFolder, resources: Resources, after: Sequence[str]) -> str:
    """Submit an array that is written down already. Raises as `send` does."""
    log = f"{escaped(folder.logs)}/slurm/%A_%a_0_log.out"
    options = options_of(array.name, resources, log)
    if after:
        options["dependency"] = "afterany:" + ":".join(sorted(after, key=int))
    worker = "saevx.dispatch.worker.main", str(folder.path), array.name
    command = start_of(folder.code, folder.code_digest, *worker)
    script = folder.logs / "slurm" / f"{array.name}.sh"
    return send(script, shlex.join(command), options, len(array.tasks))


def send(script: Path, command: str, options: Mapping[str, Any], n: int | None = None) -> str:
    """Submit a command as a job, or as an array of `n`. Returns its job id.

    Raises SlurmError; NoAnswer where it may have been submitted all the same.
    """
    import submitit

    try:
        script.parent.mkdir(parents=True, exist_ok=True)
        writer = submitit.SlurmExecutor(folder=script.parent)
        writer.update_parameters(**options)
        writer.parameters["map_count"] = n
        # `submit` of submitit would pickle, and move the pickle into place after sbatch: a
        # submitter that is killed in between leaves jobs that cannot run.
        script.write_text(writer._make_submission_file_text(command, ""))
    except (RuntimeError, OSError) as error:
        raise SlurmError(f"cannot submit {script}: {error}") from error
    done = call("sbatch", "--parsable", str(script), env=environment_outside_jobs())
    if done.returncode != 0:
        told = f"Slurm does not take {options['job_name']}: {done.stderr.strip()}"
        raise (NoAnswer if "timed out" in told else SlurmError)(told)
    return done.stdout.strip().partition(";")[0]


def options_of(name: str, resources: Resources, log: str) -> dict[str, Any]:
    """What a job asks for, as submitit names it."""
    minutes = max(1, round(resources.hours * 60))
    options: dict[str, Any] = {
        "job_name": name,
        "time": minutes,
        "cpus_per_task": resources.cpus,
        "array_parallelism": resources.parallelism,
        "signal_delay_s": min(LONGEST_WARNING_S, minutes * 60 // 4),
        "stderr_to_stdout": True,
        "setup": _setup(resources),
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


def _setup(resources: Resources) -> list[str]:
    """Lines of shell before the command."""
    return [
        *resources.setup,
        *(f"export {key}={shlex.quote(value)}" for key, value in resources.environment.items()),
    ]
