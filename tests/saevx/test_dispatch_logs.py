"""Logs of jobs that worked, that were killed, and that never started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from saevx.dispatch.executors import EXECUTORS
from saevx.dispatch.jobs.job import Job
from saevx.dispatch.messages import ArrayTask
from saevx.dispatch.run_folder import RunFolder

sys.path.insert(0, str(Path(__file__).resolve().parent))
from dispatching import Place, wait_until
from slurming import PROFILE, marks


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.profile("")
    return place


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path)
    (folder.logs / "slurm").mkdir(parents=True)
    return folder


def slurm_logs(folder: RunFolder, number: int) -> list[Path]:
    return EXECUTORS["slurm"].logs(Job(folder, ArrayTask("", "a", number), "slurm:17"))


def local_logs(folder: RunFolder) -> list[Path]:
    return EXECUTORS["local"].logs(Job(folder, ArrayTask("", "a", 0), "local:x"))


def test_a_job_that_never_started_has_the_log_of_slurm(folder: RunFolder):
    slurms = folder.logs / "slurm" / "17_3_0_log.out"
    slurms.write_text("/nonexistent: No such file or directory\n")
    (folder.logs / "slurm" / "17_2_0_log.out").write_text("another's")
    assert slurm_logs(folder, 3) == [slurms]
    assert slurm_logs(folder, 4) == []
    folder.log("a", 3).write_text("")
    assert slurm_logs(folder, 3) == [slurms]
    folder.log("a", 3).write_text("it began\n")
    assert slurm_logs(folder, 3) == [folder.log("a", 3), slurms]


def test_a_local_task_that_never_started_has_the_log_of_a_worker(folder: RunFolder):
    for slot, text in enumerate(["no saevx here", "", "nor here"]):
        log = folder.logs / f"worker.{slot}.log"
        log.write_text(text)
        os.utime(log, (slot, slot))
    assert local_logs(folder) == [
        folder.logs / "worker.2.log",
        folder.logs / "worker.0.log",
    ]
    assert slurm_logs(folder, 0) == []
    folder.log("a", 0).write_text("it began\n")
    assert local_logs(folder) == [folder.log("a", 0)]


def test_logs_of_a_worker_that_cannot_start(place: Place):
    file = place.write("targets = [Leaf(value=1)]")
    broken = """
import subprocess
popen = subprocess.Popen
def start(command, **how):
    return popen(["/bin/sh", "-c", "echo no interpreter >&2; exit 1"], **how)
subprocess.Popen = start
"""
    ran = place.saevx("run", file, "--jobs", "1", code=broken)
    assert ran.code == 1
    (node,) = place.json("plan", file)["stages"][0]["nodes"]
    logs = place.saevx("logs", node["key"])
    assert "no interpreter" in logs.out, logs


def key_of(place: Place, file: str) -> str:
    (node,) = place.json("plan", file)["stages"][0]["nodes"]
    return str(node["key"])


def test_logs_as_json(place: Place):
    file = place.write("targets = [Album(value=1, n_parts=4)]")
    ran = place.saevx("run", file, "--jobs", "2")
    assert ran.code == 0, ran
    found = place.json("logs", key_of(place, file))
    assert [one["parts"] for one in found] == [[0, 1], [2, 3]]
    assert all(Path(one["file"]).read_text() == one["text"] for one in found)
    # On a busy machine, one process may have made everything before the other begins.
    assert any("made" in one["text"] for one in found)
    assert all(one["text"] and one["job"].isdigit() for one in found)
    assert place.saevx("logs", "0", "-f", "--json").code == 2


def test_following_ends_when_the_run_was_killed(place: Place):
    file = place.write("targets = [Leaf(value=1, pause_s=3600)]")
    run = place.start("run", file, "--jobs", "1")
    wait_until(lambda: place.makings("begin"))
    key = key_of(place, file)
    logs = place.start("logs", key, "-f")
    began = logs.stdout.readline()  # it follows
    assert logs.poll() is None
    run.kill()
    run.communicate()
    out, err = logs.communicate()
    assert logs.returncode == 0
    assert "job" in began + out
    assert "ended without an outcome" in err
    assert "ended without an outcome" in place.saevx("logs", key).err


def test_following_ends_with_the_job(place: Place):
    file = place.write("targets = [Leaf(value=1, pause_s=3600)]")
    run = place.start("run", file, "--jobs", "1")
    wait_until(lambda: place.makings("begin"))
    logs = place.start("logs", key_of(place, file), "-f")
    assert "job" in logs.stdout.readline()
    place.hurry()
    out, err = logs.communicate()
    assert (logs.returncode, err) == (0, "")
    assert ": made" in out
    run.communicate()


SLURM = [pytest.param(PROFILE, marks=marks, id="slurm")]


@pytest.mark.parametrize("profile", SLURM)
def test_following_ends_when_a_job_is_killed_that_no_run_monitors(place: Place, profile: str):
    place.profile(profile)
    file = place.write('targets = [Leaf(value=1, how="killed", pause_s=1)]')
    assert place.saevx("run", file, "--detach").code == 3
    _, err = place.start("logs", key_of(place, file), "-f").communicate()
    assert "ended without an outcome" in err


@pytest.mark.parametrize("profile", SLURM)
def test_the_output_of_a_failed_setup_is_shown(place: Place, profile: str):
    place.profile(profile + 'setup = ["source /nonexistent || exit 1"]')
    file = place.write("targets = [Leaf(value=1)]")
    assert place.saevx("run", file, "--detach").code == 3
    key = key_of(place, file)
    logs = wait_until(lambda: place.json("logs", key))
    assert "/nonexistent: No such file" in logs[0]["text"]
    assert logs[0]["job"] == place.jobs()[0] + "_0"
