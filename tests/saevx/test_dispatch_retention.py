"""Folders of runs are removed some time after their end, but not while a job may be live."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from clusters import queued
from dispatching import Place

from saevx.dispatch.executors import slurm
from saevx.dispatch.executors.sacct import SlurmTask
from saevx.dispatch.jobs.recover import end_runs
from saevx.dispatch.messages import Array, RunInfo, TaskStatus
from saevx.dispatch.run_folder import (
    RunFolder,
    acquire_submit_lease,
    active_runs,
    all_runs,
    runs_dir,
)
from saevx.dispatch.runs.retention import KEPT_S, remove_old_runs
from saevx.errors import NoAnswer
from store import Store
from store.locks.liveness import RESTARTED_S
from store.locks.process import ProcessId
from store.locks.slurm import QueuedJob

DAY_S = 86400.0
GONE_PROCESS = str(ProcessId.here()._replace(started="1"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def live(monkeypatch: pytest.MonkeyPatch) -> list[QueuedJob]:
    """The answer of squeue."""
    found: list[QueuedJob] = []
    monkeypatch.setattr(slurm, "queue", lambda *selection: found)
    return found


def no_answer(*selection: str) -> list[QueuedJob]:
    raise NoAnswer("Slurm gives no answer")


def make_run(
    store: Store,
    ended_ago_s: float | None,
    *,
    job: str = "slurm:7",
    owner: str = GONE_PROCESS,
) -> RunFolder:
    run = RunFolder.make(store, "trial", "/trial.py")
    run.write_info(
        RunInfo(
            name="trial",
            path="/trial.py",
            experiment="",
            executor=job.partition(":")[0],
            owner=owner,
            user="ann",
            code="",
            origin={},
            folder="/",
            store_root=str(store.root),
            store_roots={},
            data_roots={},
            began=0.0,
        )
    )
    array = Array(
        name="trial-Leaf-1",
        recipe="Leaf",
        tasks=[[["a" * 32]]],
        documents={},
        resources="{}",
        memory_gb=None,
        submitted=0.0,
    )
    run.add(array)
    run.set_handle(array.name, job)
    if ended_ago_s is not None:
        run.end()
        then = time.time() - ended_ago_s
        os.utime(run.path / "ended", (then, then))
    return run


@pytest.mark.parametrize("job", ["slurm:7", "local:whoever"])
def test_only_runs_that_ended_long_ago_are_removed(store: Store, job: str):
    old = make_run(store, 31 * DAY_S, job=job)
    recent = make_run(store, 29 * DAY_S, job=job)
    active = make_run(store, None, job=job)
    assert remove_old_runs(store) == [old.name]
    assert {run.name for run in all_runs(store)} == {recent.name, active.name}
    assert not [name for name in os.listdir(runs_dir(store)) if name.startswith(".removed")]
    assert [run.name for run in active_runs(store)] == [active.name]
    assert remove_old_runs(store) == []
    assert remove_old_runs(store, older_than_s=DAY_S) == [recent.name]


def test_a_run_with_a_live_array_is_kept(store: Store, live: list[QueuedJob]):
    run = make_run(store, 40 * DAY_S)
    other = make_run(store, 40 * DAY_S, job="slurm:8")
    live.append(queued(SlurmTask("7", 0)))
    assert remove_old_runs(store) == [other.name]
    live.clear()
    assert remove_old_runs(store) == [run.name]


def test_slurm_runs_are_kept_while_slurm_does_not_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("saevx.dispatch.executors.slurm.queue", no_answer)
    make_run(store, 40 * DAY_S)
    local = make_run(store, 40 * DAY_S, job="local:whoever")
    assert remove_old_runs(store) == [local.name]


def test_a_run_whose_submitter_is_alive_is_kept(store: Store):
    make_run(store, 40 * DAY_S, owner=str(ProcessId.here()))
    assert remove_old_runs(store) == []


def test_a_local_run_on_a_machine_of_the_same_name_is_judged_by_its_heartbeat(store: Store):
    twin = ProcessId.here()._replace(boot="twinboot", pid=2**22 + 1)
    run = make_run(store, None, job=f"local:{twin}", owner=str(twin))
    info = run.path / "run.json"
    os.utime(info, (0, time.time() - RESTARTED_S + 60))
    end_runs(store, "trial")
    assert not run.ended
    os.utime(info, (0, time.time() - RESTARTED_S - 60))
    run.beat()
    end_runs(store, "trial")
    assert not run.ended
    os.utime(info, (0, time.time() - RESTARTED_S - 60))
    end_runs(store, "trial")
    assert run.ended
    (outcome,) = (run.outcome(array, at) for array, at in run.finished_tasks())
    assert outcome is not None
    assert {result.status for result in outcome.results.values()} == {TaskStatus.ABANDONED}


def test_nothing_is_removed_while_another_run_submits(store: Store):
    run = make_run(store, 40 * DAY_S)
    right = acquire_submit_lease(store)
    assert right is not None
    with right:
        assert remove_old_runs(store) == []
    assert remove_old_runs(store) == [run.name]


def test_an_interrupted_removal_is_completed_later(store: Store):
    run = make_run(store, 40 * DAY_S)
    run.path.rename(run.path.with_name(f".removed.{run.name}"))
    assert all_runs(store) == []
    assert remove_old_runs(store) == []
    assert os.listdir(runs_dir(store)) == []


def test_an_unreadable_run_is_kept_and_does_not_stop_the_removal(store: Store):
    damaged, run = make_run(store, 40 * DAY_S), make_run(store, 40 * DAY_S)
    (damaged.path / "run.json").write_text("{")
    assert remove_old_runs(store) == [run.name]
    assert damaged.path.exists()


@pytest.mark.parametrize("ended", [False, True])
def test_a_run_without_a_description_is_removed(store: Store, ended: bool):
    def killed(days: float) -> RunFolder:
        run = RunFolder.make(store, "trial", "/trial.py")
        run.code.mkdir()
        if ended:
            run.end()
        then = time.time() - days * DAY_S
        os.utime(run.path, (then, then))
        return run

    old, recent, described = killed(31), killed(29), make_run(store, None)
    os.utime(described.path, (0, 0))
    right = acquire_submit_lease(store)
    assert right is not None
    with right:  # one that submits may be about to describe it
        assert remove_old_runs(store) == []
    assert remove_old_runs(store) == [old.name]
    assert not old.path.exists()
    assert {run.name for run in all_runs(store)} == {recent.name, described.name}


def test_a_store_without_runs(store: Store):
    assert remove_old_runs(store) == []


@pytest.mark.slow
def test_a_run_that_ends_removes_old_ones(tmp_path: Path):
    place = Place(tmp_path)
    place.profile("")
    for n in (1, 2):
        file = place.write(f"targets = [Leaf(value={n})]", f"trial_{n}.py")
        assert place.saevx("run", file, "--jobs", "1").code == 0
    first, second = all_runs(place.store)
    then = time.time() - KEPT_S - DAY_S
    os.utime(first.path / "ended", (then, then))
    file = place.write("targets = [Leaf(value=3)]", "trial_3.py")
    assert place.saevx("run", file, "--jobs", "1").code == 0
    left = [run.name for run in all_runs(place.store)]
    assert len(left) == 2
    assert second.name in left
    assert first.name not in left
    assert len(place.contents()) == 3
