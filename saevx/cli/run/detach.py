"""`saevx run` that goes on elsewhere: in a process or a Slurm job of its own."""

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
    from saevx.experiments.load import Experiment
    from store import Store


def start_detached(experiment: Experiment, store: Store) -> None:
    """Start this same command in a session of its own. Raises Detached, and StoreError where
    its log cannot be written."""
    from saevx.dispatch.run_folder import runs_dir
    from saevx.errors import Detached, StoreError
    from store.names import safe_name

    words = [word for word in sys.argv[1:] if word != "--detach"]
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name = f"{safe_name(experiment.name, 60)}.{stamp}.{os.getpid()}.log"
    file = runs_dir(store) / ".detached" / name
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _remove_old(file.parent)
        log = open(file, "ab")  # noqa: SIM115
    except OSError as error:
        raise StoreError(f"cannot write {file}: {error.strerror}") from error
    with log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "saevx", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    raise Detached(
        f"{experiment.name}: goes on as process {process.pid}, which prints to {file}; "
        "`saevx status` shows how far it is, and `saevx cancel` ends it"
    )


def start_following(experiment: Experiment, store: Store, execution: Execution) -> None:
    """Start this same command as a Slurm job. Raises Detached."""
    from saevx.dispatch.follow.submit import follow
    from saevx.errors import ConfigError, Detached

    if execution.executor != "slurm":
        raise ConfigError(f"--follow needs the executor slurm, and it is {execution.executor}")
    assert experiment.path is not None
    words = [word for word in sys.argv[1:] if word not in ("--follow", "--detach")]
    base, hours = execution.profile.base, execution.profile.follow_hours
    asked = (words, base, hours, experiment.files)
    job, log, is_new = follow(store, experiment.name, experiment.path, *asked)
    begun = "follows it" if is_new else "follows it already"
    raise Detached(
        f"{experiment.name}: Slurm job {job} {begun}, and prints to {log}; "
        "`saevx status` shows what it has sent off"
    )


def _remove_old(folder: Path) -> None:
    """Logs go as the folders of runs do."""
    from saevx.dispatch.runs.retention import KEPT_S

    for file in folder.glob("*.log"):
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > KEPT_S:
                file.unlink()
