"""Submit a follower: `saevx run` as a small Slurm job, so that nobody needs to keep it running.

It runs the same command from a copy of the code, and puts itself back into the queue before its
time limit. When it starts again it recovers the jobs that it has submitted.
"""

from __future__ import annotations

import calendar
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import xxhash

from saevx.dispatch.code.snapshot import Snapshot, command
from saevx.dispatch.executors import sbatch
from saevx.dispatch.follow.find import follower_folder
from saevx.dispatch.profiles import Resources
from saevx.dispatch.run_folder import acquire_submit_lease
from saevx.errors import Detached, StoreError
from saevx.experiments.load import CODE
from store.io import explained
from store.locks.lease import Lease
from store.locks.slurm import TIMEOUT_S, queue
from store.names import UTC_STAMP, user_name, utc_stamp

if TYPE_CHECKING:
    from store import Store

MEMORY_MB = 2000
WARNING_S = 120

DIGEST = "digest"
RETRY = "--retry-failed"

COMMAND = """\
trap 'scontrol requeue $SLURM_JOB_ID' USR2
# Retry what has failed at the first start only, not whenever this job starts again.
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
    arguments: Sequence[str],
    resources: Resources,
    hours: float,
    files: Sequence[Path] = (),
) -> tuple[str, Path, bool]:
    """Submit a job that runs `saevx` with these arguments, unless there is one for this file.

    Returns its id, its log, and whether it is new. Raises SlurmError, NoAnswer if Slurm does not
    answer whether there is one, StoreError if the code cannot be copied, and Detached if there is
    one that runs an older version of the code.
    """
    where = str(path.resolve())
    job_name = "saevx-follow-" + xxhash.xxh3_64_hexdigest(f"{store.root}\0{where}".encode())
    folder = follower_folder(store, name, where)
    log = folder / "follow.log"
    snapshot = Snapshot(path, files)
    with _submit_lease(store):
        # Raises if squeue does not answer: the code of a running job must not be removed below.
        for job in queue(f"--user={user_name()}", f"--name={job_name}"):
            _check_code(path, snapshot.digest, folder, job.id)
            return job.id, log, False
        begun = folder / utc_stamp()
        with explained("write", folder):
            for old in folder.glob("*Z"):  # no job runs from these any more
                shutil.rmtree(old, ignore_errors=True)
            begun.mkdir(parents=True, exist_ok=True)
            code_digest = snapshot.write(begun / "code")
            (begun / DIGEST).write_text(snapshot.digest)
        always = [argument for argument in arguments if argument != RETRY]
        script = COMMAND.format(
            retry=RETRY if RETRY in arguments else "",
            command=shlex.join(command(begun / "code", code_digest, "saevx", *always)),
        )
        needs = msgspec.structs.replace(
            resources, hours=hours, memory_gb=MEMORY_MB / 1024, cpus=1, gpus=0
        )
        options = sbatch.options_of(job_name, needs, sbatch.escaped(log))
        options["setup"] += [f"export {CODE}={shlex.quote(str(begun / 'code'))}"]
        options["use_srun"] = False
        # B: the signal goes to the script alone, which has a trap for it.
        options["additional_parameters"]["signal"] = f"B:USR2@{WARNING_S}"
        return sbatch.send(begun / "follow.sh", script, options), log, True


def _check_code(path: Path, digest: str, folder: Path, job: str) -> None:
    """Raise Detached if the code has been edited since a follower was submitted."""
    begun = max(folder.glob("*Z"), default=None)
    if begun and (begun / DIGEST).exists() and (begun / DIGEST).read_text() != digest:
        at = time.localtime(calendar.timegm(time.strptime(begun.name, UTC_STAMP)))
        raise Detached(
            f"{path.stem}: Slurm job {job} follows it already, and runs a copy of the code from "
            f"{time.strftime('%Y-%m-%d %H:%M', at)}, which has been edited since. To run the "
            f"present code, end that job with `saevx cancel {path}`, and run this again"
        )


def _submit_lease(store: Store) -> Lease:
    """Wait for the lease to submit: two runs at once would each see no job, and submit one."""
    end = time.monotonic() + TIMEOUT_S
    while (lease := acquire_submit_lease(store)) is None:
        if time.monotonic() > end:
            raise StoreError(
                f"another run has been submitting in {store.root} for {TIMEOUT_S:.0f} s: try again"
            )
        time.sleep(0.2)
    return lease
