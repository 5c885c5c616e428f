"""Following: `saevx run` as a small Slurm job of its own, so that nobody needs to keep it running.

It runs the same command from a copy of the code, and puts itself back into the queue before its
time is up: what it has submitted, it adopts when it comes back.
"""

from __future__ import annotations

import calendar
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import xxhash

from saevx.dispatch.code.snapshot import Snapshot, command
from saevx.dispatch.executors import sbatch
from saevx.dispatch.profiles import Resources
from saevx.dispatch.run_folder import acquire_submit_lease, run_prefix, runs_dir
from saevx.errors import Detached, StoreError
from saevx.experiments.load import CODE
from store.locks.slurm import TIMEOUT_S, queue
from store.names import user_name

if TYPE_CHECKING:
    from store import Store

MEMORY_MB = 2000
WARNING_S = 120

STAMP = "%Y%m%dT%H%M%SZ"
DIGEST = "digest"
RETRY = "--retry-failed"

COMMAND = """\
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

    Raises SlurmError, NoAnswer where Slurm does not say whether a job does so already, StoreError
    where the code cannot be copied, and Detached where a job does so, but with code as it was
    before it has been edited.
    """
    where = str(path.resolve())
    job_name = "saevx-follow-" + xxhash.xxh3_64_hexdigest(f"{store.root}\0{where}".encode())
    home = runs_dir(store) / ".follow" / run_prefix(name, where).rstrip(".")
    log = home / "follow.log"
    snapshot = Snapshot(path, files)
    with _submitting(store):
        # No answer must not be taken for no job: its code is removed below.
        for job in queue(f"--user={user_name()}", f"--name={job_name}"):
            _check_code(path, snapshot.digest, home, job.id)
            return job.id, log, False
        begun = home / time.strftime(STAMP, time.gmtime())
        try:
            # No job runs from these any more.
            for old in home.glob("*Z"):
                shutil.rmtree(old, ignore_errors=True)
            begun.mkdir(parents=True, exist_ok=True)
            code_digest = snapshot.write(begun / "code")
            (begun / DIGEST).write_text(snapshot.digest)
        except OSError as error:
            raise StoreError(f"cannot write {home}: {error.strerror}") from error
        asked = [word for word in words if word != RETRY]
        text = COMMAND.format(
            retry=RETRY if RETRY in words else "",
            command=shlex.join(command(begun / "code", code_digest, "saevx", *asked)),
        )
        return _submit(job_name, log, begun, text, resources, hours), log, True


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
    end = time.monotonic() + TIMEOUT_S
    while (right := acquire_submit_lease(store)) is None:
        if time.monotonic() > end:
            raise StoreError(f"another run has been submitting in {store.root} for long: try again")
        time.sleep(0.2)
    with right:
        yield


def _submit(
    name: str, log: Path, begun: Path, text: str, resources: Resources, hours: float
) -> str:
    needs = msgspec.structs.replace(
        resources, hours=hours, memory_gb=MEMORY_MB / 1024, cpus=1, gpus=0
    )
    options = sbatch.options_of(name, needs, sbatch.escaped(log))
    options["setup"] += [f"export {CODE}={shlex.quote(str(begun / 'code'))}"]
    options["use_srun"] = False
    # To the script itself, whose trap it is for.
    options["additional_parameters"]["signal"] = f"B:USR2@{WARNING_S}"
    return sbatch.send(begun / "follow.sh", text, options)
