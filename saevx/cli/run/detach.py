"""`saevx run --detach` and `--follow`: the same command as a background process or Slurm job."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saevx.dispatch.execution import Execution
    from saevx.experiments.experiment import Experiment
    from store import Store


def start_detached(experiment: Experiment, store: Store) -> None:
    """Start this command as a background process.

    Raise Detached once it runs, and StoreError if its log cannot be written.
    """
    from saevx.dispatch.run_folder import runs_dir
    from saevx.errors import Detached, StoreError
    from store.names import safe_name, utc_stamp

    name = f"{safe_name(experiment.name, 60)}.{utc_stamp()}.{os.getpid()}.log"
    file = runs_dir(store) / ".detached" / name
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _remove_old(file.parent)
        log = open(file, "ab")  # noqa: SIM115
    except OSError as error:
        raise StoreError(f"cannot write {file}: {error.strerror}") from error
    with log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "saevx", *_arguments("--detach")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    raise Detached(
        f"{experiment.name}: continues as process {process.pid}, which logs to {file}; "
        "`saevx status` shows its progress, and `saevx cancel` ends it"
    )


def start_following(experiment: Experiment, store: Store, execution: Execution) -> None:
    """Submit this command as a Slurm job, unless one runs already. Raise Detached."""
    from saevx.dispatch.follow.start import follow
    from saevx.errors import ConfigError, Detached

    if execution.executor != "slurm":
        raise ConfigError(
            f"--follow needs the slurm executor, not {execution.executor}: add --executor slurm"
        )
    assert experiment.path is not None
    profile = execution.profile
    arguments = _arguments("--follow", "--detach")
    asked = (arguments, profile.base, profile.follow_hours, experiment.files)
    job, log, is_new = follow(store, experiment.name, experiment.path, *asked)
    state = "follows it" if is_new else "follows it already"
    raise Detached(
        f"{experiment.name}: Slurm job {job} {state}, and logs to {log}; "
        "`saevx status` shows the jobs that it has submitted"
    )


def _arguments(*without: str) -> list[str]:
    """Return the arguments of this command, without some options."""
    return [argument for argument in sys.argv[1:] if argument not in without]


def _remove_old(folder: Path) -> None:
    """Remove logs as old as run folders that are removed."""
    from saevx.dispatch.runs.retention import KEPT_S

    for file in folder.glob("*.log"):
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > KEPT_S:
                file.unlink()
