"""Dispatch on a real Slurm: everything that goes wrong there, and nothing made twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from dispatching import Place, wait_until
from slurming import PROFILE, cluster_place, communicate, marks, running, slurm

pytestmark = marks


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return cluster_place(tmp_path)


def test_arrays_are_no_longer_than_the_cluster_allows(place: Place):
    largest = int(slurm("scontrol", "show", "config").split("MaxArraySize")[1].split()[1])
    n = largest + 8
    file = place.write(f"targets = [Leaf(value=value) for value in range({n})]")
    (line,) = place.json("plan", file)["arrays"]
    assert line["arrays"] == [largest, 8]
    ran = place.saevx("run", file)
    assert ran.code == 0, ran
    assert sorted(len(array["elements"]) for array in place.arrays()) == [8, largest]
    assert len(place.contents()) == n
    assert set(place.makings().values()) == {1}


def test_a_failing_element_stops_only_what_needs_it(place: Place):
    file = place.write("""
        leaves = [Leaf(value=1), Leaf(value=2, how="error"), Leaf(value=3)]
        targets = [Branch(leaf=leaf, value=7) for leaf in leaves]
    """)
    ran = place.saevx("run", file)
    assert ran.code == 1
    assert "2 of 3 targets are in the store" in ran.out
    assert "2 cannot be made" in ran.err
    assert "1 not made, because an input failed" in ran.err
    n_jobs = len(place.jobs())
    again = place.saevx("run", file)
    assert again.code == 1
    assert "--retry-failed" in again.err
    assert len(place.jobs()) == n_jobs
    place.saevx("run", file, "--retry-failed")
    assert len(place.jobs()) > n_jobs
    assert place.saevx("status").out == "nothing is queued or running\n"


def test_a_killed_worker_is_found_out_and_tried_again_once(place: Place):
    file = place.write("""
        targets = [Leaf(value=1), Leaf(value=2, how="killed once"), Leaf(value=3, how="killed")]
    """)
    ran = place.saevx("run", file)
    assert "2 of 3 targets are in the store" in ran.out
    assert "killed: Slurm says FAILED" in ran.err
    assert "tried 2 times" in ran.err
    assert "log: " in ran.err
    assert ", exit code 0:9, after " in ran.err
    assert "\n  | -- " in ran.err
    assert sorted(place.makings("begin").values()) == [1, 2, 2]
    assert place.leases() == []


def test_what_runs_out_of_memory_gets_more_once(place: Place):
    file = place.write('targets = [Leaf(value=1, how="hungry")]')
    ran = place.saevx("run", file)
    assert ran.code == 0, ran
    memory = sorted(array["memory_gb"] for array in place.arrays())
    assert memory == pytest.approx([0.3, 0.45])


def test_what_never_has_enough_memory_is_reported(place: Place):
    place.profile(PROFILE.replace("0.3", "0.15"))
    file = place.write('targets = [Leaf(value=1, how="hungry")]')
    ran = place.saevx("run", file)
    assert ran.code == 1
    assert "out of memory" in ran.err
    assert "raise memory_gb" in ran.err
    assert len(place.jobs()) == 2


def test_what_needs_something_that_dies_is_blocked_by_it(place: Place):
    place.profile(PROFILE.replace("0.3", "0.15"))
    file = place.write("""
        targets = [Top(branch=Branch(leaf=Leaf(value=1, how="hungry"), value=2), value=3)]
    """)
    ran = place.saevx("run", file)
    assert ran.code == 1
    assert "failed: Leaf" in ran.err
    assert ran.err.count("failed: ") == 1
    assert "2 not made, because an input failed" in ran.err
    sent = [array["recipe"] for array in place.arrays()]
    assert sorted(sent) == ["Branch", "Branch", "Leaf", "Leaf", "Top", "Top"]


def test_a_job_over_its_time_goes_on_where_it_stopped(place: Place):
    place.profile(PROFILE + "hours = 0.0166\n")
    file = place.write("targets = [Leaf(value=value, group=0, pause_s=9) for value in range(6)]")
    process = place.start("run", file)
    job = wait_until(lambda: running(place))[0]
    wait_until(lambda: "Restarts=1" in slurm("scontrol", "show", "job", job))
    out, err = communicate(process, place, 200)
    assert process.returncode == 0, (out, err)
    assert set(place.makings().values()) == {1}
    assert len(place.contents()) == 6
    assert len(place.jobs()) == 1


def test_a_job_over_its_time_that_gets_nowhere_is_reported(place: Place):
    place.profile(PROFILE + "hours = 0.0166\n")
    file = place.write("targets = [Leaf(value=1, pause_s=200)]")
    process = place.start("run", file)
    job = wait_until(lambda: running(place))[0]
    wait_until(lambda: place.makings("begin"))
    slurm("scancel", "--signal=USR2", job)  # what Slurm sends shortly before the time is up
    out, err = process.communicate()
    assert process.returncode == 1, (out, err)
    assert "time limit" in err
    assert "raise hours" in err


def test_a_requeued_job_comes_back(place: Place):
    file = place.write("targets = [Leaf(value=1, pause_s=5), Leaf(value=2, pause_s=5)]")
    process = place.start("run", file)
    job = wait_until(lambda: running(place))[0]
    wait_until(lambda: place.makings("begin"))
    slurm("scontrol", "requeue", job)
    out, err = communicate(process, place, 100)
    assert process.returncode == 0, (out, err)
    assert set(place.makings().values()) == {1}
    assert len(place.jobs()) == 1
    assert place.leases() == []


def test_an_element_cancelled_by_hand_is_reported_and_comes_with_the_next_run(place: Place):
    file = place.write("targets = [Leaf(value=value, pause_s=8) for value in range(3)]")
    process = place.start("run", file)
    wait_until(lambda: len(place.makings("begin")) == 2)
    slurm("scancel", running(place)[0])
    out, err = process.communicate()
    assert process.returncode == 1
    assert "2 of 3 targets are in the store" in out
    assert "cancelled" in err
    ran = place.saevx("run", file)
    assert ran.code == 0, ran
    assert set(place.makings().values()) == {1}


def test_cancel_ends_jobs_and_leaves_no_lease(place: Place):
    file = place.write("targets = [Leaf(value=value, pause_s=100) for value in range(4)]")
    assert place.saevx("run", file, "--detach").code == 3
    wait_until(lambda: len(place.makings("begin")) == 2)
    (run,) = place.json("status")
    assert run["artifacts"] == {"running": 2, "waiting": 2}
    assert place.json("cancel", file)["cancelled"] == 4
    wait_until(lambda: not running(place))
    wait_until(lambda: not place.leases())
    assert place.makings() == {}


def test_logs_of_a_key(place: Place):
    file = place.write('targets = [Leaf(value=1), Leaf(value=2, how="error")]')
    place.saevx("run", file)
    keys = {
        target["state"]: target["key"] for target in place.json("plan", file)["stages"][0]["nodes"]
    }
    assert "made" in place.saevx("logs", keys["present"][:8]).out
    assert "2 cannot be made" in place.saevx("logs", keys["to make"], "-f").out


KILLED_AFTER_SBATCH = """
import os, signal
from saevx.dispatch.run_folder import RunFolder
RunFolder.set_handle = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""

KILLED_BEFORE_SBATCH = """
import os, signal
from saevx.dispatch.executors import sbatch
sbatch.submit = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""

GONE_SOON = """
from saevx.dispatch.executors import slurm
slurm.GONE_AFTER_S = 6.0
"""


def test_a_submitter_killed_after_sbatch_submits_nothing_twice(place: Place):
    file = place.write("targets = [Leaf(value=value, pause_s=3) for value in range(4)]")
    ran = place.saevx("run", file, code=KILLED_AFTER_SBATCH)
    assert ran.code == -signal.SIGKILL
    assert place.jobs() == []
    ran = place.saevx("run", file)
    assert ran.code == 0, ran
    assert len(place.arrays()) == 1
    assert len(place.jobs()) == 1
    assert set(place.makings("begin").values()) == {1}


def test_a_submitter_killed_before_sbatch_leaves_nothing_to_wait_for(place: Place):
    file = place.write("targets = [Leaf(value=value) for value in range(2)]")
    ran = place.saevx("run", file, code=KILLED_BEFORE_SBATCH)
    assert ran.code == -signal.SIGKILL
    ran = place.saevx("run", file, code=GONE_SOON)
    assert ran.code == 0, ran
    assert set(place.makings("begin").values()) == {1}


def test_two_submitters_at_once(place: Place):
    file = place.write("""
        targets = [Branch(leaf=Leaf(value=value), value=2) for value in range(6)]
    """)
    runs = [place.start("run", file) for _ in range(2)]
    for run in runs:
        out, err = run.communicate()
        assert run.returncode == 0, (out, err)
    assert len(place.makings()) == 12
    assert set(place.makings("begin").values()) == {1}
    assert sum(len(array["elements"]) for array in place.arrays()) == 12


def test_ctrl_c_detaches_and_the_same_command_attaches(place: Place):
    file = place.write("targets = [Leaf(value=value, pause_s=6) for value in range(3)]")
    process = place.start("run", file)
    wait_until(lambda: place.makings("begin"))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 3, (out, err)
    assert "detached" in out
    ran = place.saevx("run", file)
    assert ran.code == 0, ran
    assert len(place.arrays()) == 1
    assert set(place.makings("begin").values()) == {1}


def test_slurmctld_restarts_in_the_middle(place: Place):
    control = os.environ["SAEVX_SLURM_CONTROL"]
    # One ends while slurmctld is away, one outlives that, and two come after. Of the first,
    # Slurm may hear a minute late, and keeps its core until then.
    file = place.write("""
        targets = [Leaf(value=n, pause_s=pause_s) for n, pause_s in enumerate((2, 14, 0, 0))]
    """)
    process = place.start("run", file)
    try:
        wait_until(lambda: len(place.makings("begin")) == 2)
        subprocess.run([control, "pause"], check=True, stdout=subprocess.DEVNULL)
        wait_until(lambda: place.makings())
        time.sleep(4)
    finally:
        subprocess.run(
            [control, "resume"], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
    out, err = process.communicate()
    assert process.returncode == 0, (out, err)
    assert set(place.makings("begin").values()) == {1}
    assert len(place.arrays()) == 1


def test_without_accounting_a_killed_worker_is_still_found_out(place: Place):
    programs = place.folder / "programs"
    programs.mkdir()
    (programs / "sacct").write_text("#!/bin/sh\necho 'connection refused' >&2\nexit 1\n")
    (programs / "sacct").chmod(0o755)
    file = place.write('targets = [Leaf(value=1), Leaf(value=2, how="killed once")]')
    ran = place.saevx("run", file, PATH=f"{programs}:{os.environ['PATH']}")
    assert ran.code == 0, ran


def test_a_run_outlives_an_outage(place: Place):
    programs, away = place.folder / "programs", place.folder / "away"
    programs.mkdir()
    for name in ("sbatch", "squeue", "sacct", "scontrol"):
        real = slurm("sh", "-c", f"command -v {name}").strip()
        (programs / name).write_text(
            f"#!/bin/sh\nif [ -e {away} ]; then echo 'slurm_load_jobs error' >&2; exit 1; fi\n"
            f'exec {real} "$@"\n'
        )
        (programs / name).chmod(0o755)
    away.touch()
    file = place.write("targets = [Leaf(value=1)]")
    process = place.start("run", file, PATH=f"{programs}:{os.environ['PATH']}")
    err = ""
    while "Slurm gives no answer for" not in err:
        err += process.stderr.readline()
        assert process.poll() is None, err
    away.unlink()
    out, rest = process.communicate()
    err += rest
    assert process.returncode == 0, (out, err)
    assert "slurm_load_jobs" not in err
    assert len(place.jobs()) == 1


def test_what_slurm_refuses_is_an_error_at_once(place: Place):
    place.profile(PROFILE + 'partition = "nowhere"\n')
    ran = place.saevx("run", place.write("targets = [Leaf(value=1)]"))
    assert ran.code == 1
    assert "invalid partition" in ran.err
    assert "Traceback" not in ran.err


def test_200_targets_of_three_levels_are_equal_to_an_inline_run(place: Place, tmp_path: Path):
    targets = """
        leaves = [Leaf(value=value) for value in range(10)]
        branches = [Branch(leaf=leaf, value=value) for leaf in leaves for value in (2, 3)]
        targets = [Top(branch=branch, value=value) for branch in branches for value in range(10)]
    """
    place.profile(PROFILE + "pack = 8\n")
    ran = place.saevx("run", place.write(targets))
    assert ran.code == 0, ran
    inline = Place(tmp_path / "inline")
    inline.folder.mkdir()
    inline.profile("")
    assert inline.saevx("run", inline.write(targets)).code == 0
    assert place.contents() == inline.contents()
    assert len(place.contents()) == 230
    assert set(place.makings("begin").values()) == {1}


STAGED = """
def targets():
    yield [Leaf(value=1, pause_s=4)]
    yield [Leaf(value=value) for value in (2, 3)]
"""


def test_a_staged_experiment_goes_on_unattended(place: Place):
    place.profile(PROFILE + "follow_hours = 0.5\n")
    file = place.write(STAGED)
    ran = place.saevx("run", file, "--follow")
    assert ran.code == 3, ran
    again = place.saevx("run", file, "--follow")
    assert "already" in again.out
    # The follower and what is queued rest on a copy of the code.
    (place.folder / file).write_text("this is no Python")
    log = next((place.folder / ".saevx" / ".jobs" / ".follow").glob("*")) / "follow.log"
    wait_until(lambda: log.exists() and "targets are in the store" in log.read_text())
    assert "3 of 3 targets are in the store" in log.read_text()
    assert set(place.makings().values()) == {1}
    assert len(place.makings()) == 3


def test_a_follower_is_seen_and_cancelled_with_its_file(place: Place):
    file = place.write("""
        targets = [Leaf(value=value, group=0, pause_s=100) for value in range(3)]
    """)
    assert place.saevx("run", file, "--follow").code == 3
    assert [run["name"] for run in place.json("status")] == ["trial"]  # submitted jobs or not
    wait_until(lambda: place.makings("begin"))
    (run,) = place.json("status")
    assert run["follower"]["running"]
    assert f"followed by Slurm job {run['follower']['job']}" in place.saevx("status").out
    # One job was to make all three.
    key = run["elements"][0]["keys"][0]
    done = place.saevx("cancel", file)
    assert "cancelled 1 job" in done.out, (done, key)
    assert f"Slurm job {run['follower']['job']}, which followed" in done.out
    wait_until(lambda: place.json("status") == [])
    assert len(place.jobs()) == 1
    assert place.saevx("cancel", file).code == 1
