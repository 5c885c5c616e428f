"""Logs of jobs: of those that worked, those that died, and those that never began."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from saevx.dispatch.folder import RunFolder
from saevx.dispatch.logs import existing_logs

sys.path.insert(0, str(Path(__file__).resolve().parent))
from dispatching import Place


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


def test_the_log_of_a_job_that_never_began_is_slurms(folder: RunFolder):
    slurms = folder.logs / "slurm" / "17_3_0_log.out"
    slurms.write_text("/nonexistent: No such file or directory\n")
    (folder.logs / "slurm" / "17_2_0_log.out").write_text("another's")
    assert existing_logs(folder, "a", 3, "slurm:17") == [slurms]
    assert existing_logs(folder, "a", 4, "slurm:17") == []
    folder.log("a", 3).write_text("")
    assert existing_logs(folder, "a", 3, "slurm:17") == [slurms]
    folder.log("a", 3).write_text("it began\n")
    assert existing_logs(folder, "a", 3, "slurm:17") == [folder.log("a", 3), slurms]


def test_the_log_of_a_local_element_that_never_began_is_a_workers(folder: RunFolder):
    for slot, text in enumerate(["no saevx here", "", "nor here"]):
        log = folder.logs / f"worker.{slot}.log"
        log.write_text(text)
        os.utime(log, (slot, slot))
    assert existing_logs(folder, "a", 0, "local:x") == [
        folder.logs / "worker.2.log",
        folder.logs / "worker.0.log",
    ]
    assert existing_logs(folder, "a", 0, "slurm:17") == []
    folder.log("a", 0).write_text("it began\n")
    assert existing_logs(folder, "a", 0, "local:x") == [folder.log("a", 0)]


def test_logs_of_a_worker_that_cannot_begin(place: Place):
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
