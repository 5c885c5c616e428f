"""Following: `saevx run` as a small Slurm job of its own, so that nobody needs to keep it running.

It runs the same command from a copy of the code, and puts itself back into the queue before its
time is up: what it has submitted, it adopts when it comes back.
"""

from __future__ import annotations

import calendar
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from store.names import user_name

from ..errors import Detached, StoreError
from ..experiment import CODE
from . import slurm
from .folder import prefix_of, runs_of, take_submitting
from .profiles import Resources
from .snapshot import Snapshot, python, search_path

if TYPE_CHECKING:
    from store import Store

MEMORY_MB = 2000
WARNING_S = 120

STAMP = "%Y%m%dT%H%M%SZ"
DIGEST = "digest"
RETRY = "--retry-failed"

SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --output={log}
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR2@{warning_s}
#SBATCH --time={minutes}
#SBATCH --mem={memory_mb}
#SBATCH --cpus-per-task=1
{options}
{setup}
export {code_name}={code} PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}
trap 'scontrol requeue $SLURM_JOB_ID' USR2
# What has failed is tried again once, and not whenever this goes back into the queue.
retry=({retry})
if [ "${{SLURM_RESTART_COUNT:-0}}" -gt 0 ]; then retry=(); fi
{command} "${{retry[@]}}" &
child=$!
wait $child
status=$?
# A signal ends the first wait, and not the command.
if kill -0 $child 2>/dev/null; then wait $child; status=$?; fi
exit $status
"""


def follow(
    store: Store,
    name: str,
    path: Path,
    words: Sequence[str],
    resources: Resources,
    hours: float,
    files: Sequence[Path] = (),
) -> tuple[str, Path, bool]:
    """Let a job run `saevx` with these words. Returns its id, its log, and whether it is new.

    Raises SlurmError, StoreError where the code cannot be copied, and Detached where a job does so
    already, but with code as it was before it has been edited.
    """
    where = str(path.resolve())
    job_name = "saevx-follow-" + xxhash.xxh3_64_hexdigest(f"{store.root}\0{where}".encode())
    home = runs_of(store) / ".follow" / prefix_of(name, where).rstrip(".")
    log = home / "follow.log"
    snapshot = Snapshot(path, files)
    with _submitting(store):
        there = slurm.find_waiting(job_name, user_name())
        if there:
            _check_code(path, snapshot.digest, home, there)
            return there, log, False
        code = home / time.strftime(STAMP, time.gmtime())
        try:
            # No job runs from these any more.
            for old in home.glob("*Z"):
                shutil.rmtree(old, ignore_errors=True)
            code.mkdir(parents=True, exist_ok=True)
            snapshot.write(code)
            (code / DIGEST).write_text(snapshot.digest)
            script = code / "follow.sh"
            script.write_text(_script(job_name, log, code, words, resources, hours))
        except OSError as error:
            raise StoreError(f"cannot write {home}: {error.strerror}") from error
        return _submit(script), log, True


def _check_code(path: Path, digest: str, home: Path, job: str) -> None:
    """Raise Detached where the code has been edited since a follower began."""
    for code in sorted(home.glob("*Z"), reverse=True)[:1]:
        with suppress(OSError):
            if (code / DIGEST).read_text() != digest:
                began = time.localtime(calendar.timegm(time.strptime(code.name, STAMP)))
                raise Detached(
                    f"{path.stem}: Slurm job {job} follows it already, and runs a copy of the code "
                    f"from {time.strftime('%Y-%m-%d %H:%M', began)}, which has been edited since. "
                    f"To run what is there now, end it by `saevx cancel {path}`, and run this again"
                )


@contextmanager
def _submitting(store: Store) -> Iterator[None]:
    """One at a time: else two would each see no job, and submit one."""
    end = time.monotonic() + slurm.TIMEOUT_S
    while (right := take_submitting(store)) is None:
        if time.monotonic() > end:
            raise StoreError(f"another run has been submitting in {store.root} for long: try again")
        time.sleep(0.2)
    with right:
        yield


def _script(
    name: str, log: Path, code: Path, words: Sequence[str], resources: Resources, hours: float
) -> str:
    asked = ("account", "partition", "qos", "constraint")
    options = {option: getattr(resources, option) for option in asked}
    environment = [f"export {n}={shlex.quote(v)}" for n, v in resources.environment.items()]
    return SCRIPT.format(
        name=name,
        log=shlex.quote(slurm.escaped(log)),
        warning_s=WARNING_S,
        minutes=max(1, round(hours * 60)),
        memory_mb=MEMORY_MB,
        options="\n".join(f"#SBATCH --{n}={v}" for n, v in options.items() if v),
        setup="\n".join([*resources.setup, *environment]),
        code_name=CODE,
        code=shlex.quote(str(code)),
        path=shlex.quote(os.pathsep.join(search_path(code))),
        retry=RETRY if RETRY in words else "",
        command=shlex.join([*python("saevx"), *(word for word in words if word != RETRY)]),
    )


def _submit(script: Path) -> str:
    try:
        with slurm.outside_of_jobs():
            done = subprocess.run(
                ["sbatch", "--parsable", str(script)],
                capture_output=True,
                text=True,
                timeout=slurm.TIMEOUT_S,
                check=False,
            )
    except (OSError, subprocess.SubprocessError) as error:
        raise slurm.SlurmError(f"cannot run sbatch: {error}") from error
    if done.returncode != 0:
        raise slurm.SlurmError(f"Slurm does not take {script}: {done.stderr.strip()}")
    return done.stdout.split(";")[0].strip()
