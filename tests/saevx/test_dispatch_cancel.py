"""`saevx cancel` reports what it cannot cancel, and does not record it as cancelled."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parent))
from clusters import Cluster, cluster, coordinator
from test_dispatch_retention import make_run
from unruly import Leaf

from saevx.cli import main
from saevx.dispatch.executors import slurm
from saevx.dispatch.run_folder import RunFolder, active_runs
from saevx.dispatch.runs.cancel import cancel
from saevx.errors import Detached, NoAnswer, SlurmError
from store import Store
from store.locks.process import ProcessId

__all__ = ["cluster"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def submit(cluster: Cluster, folder: Path, value: int, name: str) -> RunFolder:
    """Submit a run and detach from it."""

    def ctrl_c(step: int) -> None:
        raise KeyboardInterrupt

    cluster.at_step = ctrl_c
    with pytest.raises(Detached):
        coordinator(folder, [Leaf(value=value)], name=name).run()
    (run,) = [run for run in active_runs(Store(folder / "store")) if run.info.name == name]
    return run


@pytest.mark.parametrize("error", [SlurmError("Access denied"), NoAnswer("no answer")])
def test_jobs_that_scancel_does_not_end_are_not_recorded_as_cancelled(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: SlurmError
):
    run = submit(cluster, tmp_path, 1, "first")

    def refuse(names: list[str]) -> None:
        if names:
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(slurm, "cancel", refuse)
        done = cancel(Store(tmp_path / "store"), lambda folder, keys: True)
    assert done.jobs == 0
    assert [str(error) in why and "first, a run of " in why for why in done.refused] == [True]
    assert run.finished_tasks() == set()
    done = cancel(Store(tmp_path / "store"), lambda folder, keys: True)
    assert (done.jobs, done.refused, cluster.cancelled) == (1, [], ["1_0"])
    assert run.ended


def test_an_error_with_one_run_does_not_stop_others_from_being_cancelled(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    runs = [submit(cluster, tmp_path, n, name) for n, name in enumerate(("first", "second"))]

    def refuse(names: list[str]) -> None:
        if "1_0" in names:
            raise SlurmError("Access denied")

    monkeypatch.setattr(slurm, "cancel", refuse)
    done = cancel(Store(tmp_path / "store"), lambda folder, keys: True)
    assert (done.jobs, len(done.refused)) == (1, 1)
    assert [run.ended for run in runs] == [False, True]


def test_processes_of_another_user_are_reported(store: Store, monkeypatch: pytest.MonkeyPatch):
    run = make_run(store, None, job="local:x", owner=str(ProcessId.here()))

    def kill(pid: int, number: int) -> None:
        if number:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", kill)
    ran = CliRunner().invoke(main, ["cancel", "/trial.py", "--store", str(store.root)])
    assert ran.exit_code == 1
    assert "not cancelled: trial, a run of ann: Operation not permitted" in ran.output
    assert "nothing is queued" not in ran.output
    assert run.finished_tasks() == set()


def test_cancelling_a_job_that_has_ended_is_no_error(store: Store, monkeypatch: pytest.MonkeyPatch):
    def scancel(text: str) -> None:
        program = store.root / "scancel"
        store.root.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\necho 'scancel: error: {text}' >&2\nexit 1\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{store.root}:{os.environ['PATH']}")
    scancel("Kill job error on job id 7_0: Invalid job id specified")
    slurm.cancel(["7_0"])
    scancel("Kill job error on job id 7_0: Access/permission denied")
    with pytest.raises(SlurmError, match="permission denied"):
        slurm.cancel(["7_0"])
