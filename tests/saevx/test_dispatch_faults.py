"""Faults between a run and its cluster, and how the run handles them."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from clusters import Cluster, cluster, coordinator, dead, queued, run
from dispatching import Place, wait_until
from unruly import Album, Branch, Leaf, Top

from saevx.dispatch import submit as submission
from saevx.dispatch.executors import Slurm, sbatch, slurm
from saevx.dispatch.executors.base import ExitInfo
from saevx.dispatch.executors.sacct import SlurmTask
from saevx.dispatch.jobs import progress
from saevx.dispatch.messages import Array, Outcome, Result, TaskStatus
from saevx.dispatch.profiles import Profile, Resources
from saevx.dispatch.run_folder import RunFolder, active_runs, all_runs
from saevx.dispatch.run_request import Counts
from saevx.errors import Detached, NoAnswer, SlurmError
from store import Store
from store.locks.heartbeat import heartbeats
from store.locks.slurm import TIMEOUT_S, call

__all__ = ["cluster"]


def test_a_run_has_a_heartbeat_while_it_lasts(cluster: Cluster, tmp_path: Path):
    beats: list[bool] = []

    def look(step: int) -> None:
        (folder,) = all_runs(Store(tmp_path / "store"))
        beats.append(heartbeats.beats_for(folder.path))

    cluster.at_step = look
    assert run(tmp_path, [Leaf(value=1)]).ok
    assert beats
    assert all(beats)
    look(0)
    assert not beats[-1]


# -- Slurm does not answer


def test_a_run_waits_as_long_as_slurm_does_not_answer(
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(submission, "RETRY_S", 0.0)
    monkeypatch.setattr(submission, "PAUSE_S", 0.01)
    monkeypatch.setattr(submission, "LONGEST_PAUSE_S", 0.05)
    cluster.down = True
    unanswered: list[float] = []

    def come_back(step: int) -> None:
        time.sleep(0.01)
        cluster.down = step < 60

    cluster.at_step = come_back
    outcome = run(tmp_path, [Leaf(value=1)], watch=lambda c: unanswered.append(c.unanswered_s))
    assert outcome.ok
    assert [node.spec.value for node in outcome.made] == [1]
    assert max(unanswered) > 0.3
    assert unanswered[-1] == 0.0
    # It is asked whether it answers, and gets no array to refuse.
    assert cluster.n_refused == 1
    assert "sbatch: error" not in capfd.readouterr().err


def test_a_refusal_by_a_slurm_that_answers_is_an_error_at_once(cluster: Cluster, tmp_path: Path):
    cluster.refuses = "invalid partition"
    with pytest.raises(SlurmError, match="invalid partition"):
        run(tmp_path, [Leaf(value=1)])
    assert cluster.n_refused == 1


def test_the_longest_array_is_asked_again_after_an_outage(monkeypatch: pytest.MonkeyPatch):
    executor = Slurm()
    answers = [NoAnswer("Slurm gives no answer"), "MaxArraySize            = 16\n"]

    def ask(*command: str) -> str:
        answer = answers.pop(0)
        if isinstance(answer, NoAnswer):
            raise answer
        return answer

    monkeypatch.setattr(slurm, "ask", ask)
    assert [executor.max_array_size for _ in range(3)] == [1001, 16, 16]


# -- earlier runs


def reopen(folder: Path) -> None:
    """Runs that still had something in the queue would not be marked as ended."""
    for run_folder in (folder / "store" / ".jobs").glob("trial.*"):
        (run_folder / "ended").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "end", [TaskStatus.TIME_LIMIT, TaskStatus.OUT_OF_MEMORY, TaskStatus.KILLED]
)
def test_a_lack_of_time_or_memory_is_retried_by_the_next_run(
    cluster: Cluster, tmp_path: Path, end: TaskStatus
):
    cluster.kill = lambda *_: dead(end)
    first = run(tmp_path, [Leaf(value=1)])
    (message,) = map(str, first.failed.values())
    assert end.value in message
    reopen(tmp_path)
    cluster.kill = lambda *_: None
    more = Profile(executor="slurm", base=Resources(hours=9, memory_gb=9))
    n = len(cluster.arrays)
    second = run(tmp_path, [Leaf(value=1)], profile=more)
    assert second.ok
    assert len(cluster.arrays) == n + 1
    assert cluster.resources[-1].hours == 9
    assert cluster.resources[-1].memory_gb == 9


def test_an_error_of_the_same_code_is_remembered(cluster: Cluster, tmp_path: Path):
    assert not run(tmp_path, [Leaf(value=1, how="error")]).ok
    reopen(tmp_path)
    n = len(cluster.arrays)
    assert not run(tmp_path, [Leaf(value=1, how="error")]).ok
    assert len(cluster.arrays) == n
    assert not run(tmp_path, [Leaf(value=1, how="error")], retry_failed=True).ok
    assert len(cluster.arrays) == n + 1


# -- inputs that cannot be made


def test_nothing_is_submitted_again_for_an_input_that_failed(cluster: Cluster, tmp_path: Path):
    cluster.kill = lambda folder, array, index: (
        dead(TaskStatus.KILLED) if array.recipe == "Leaf" else None
    )
    cluster.at_step = lambda step: time.sleep(0.01)
    leaf = Leaf(value=1)
    top = Top(branch=Branch(leaf=leaf, value=2), value=3)
    outcome = run(tmp_path, [top])
    (failed,) = outcome.failed
    assert set(outcome.blocked.values()) == {failed}
    assert len(outcome.blocked) == 2
    sent = [array.recipe for _, array in cluster.arrays.values()]
    # Each once with the first leaf, and once with the second at most.
    assert sent.count("Leaf") == 2
    assert sent.count("Branch") <= 2
    assert sent.count("Top") <= 2


def test_a_blocked_artifact_is_made_once_its_input_was_submitted_again(
    cluster: Cluster, tmp_path: Path
):
    died: list[str] = []

    def dies_once(folder: RunFolder, array: Array, index: int):
        if array.recipe == "Leaf" and not died:
            died.append(array.name)
            return dead(TaskStatus.NODE_FAILURE)
        return None

    cluster.kill = dies_once
    outcome = run(tmp_path, [Top(branch=Branch(leaf=Leaf(value=1), value=2), value=3)])
    assert outcome.ok
    assert len(outcome.made) == 3


# -- reports


def test_a_killed_job_is_reported_with_its_log(cluster: Cluster, tmp_path: Path):
    def dies(folder: RunFolder, array: Array, index: int):
        folder.log(array.name, index).write_text("begins\nsomething odd\n")
        return dead(TaskStatus.KILLED)

    cluster.kill = dies
    (error,) = run(tmp_path, [Leaf(value=1)]).failed.values()
    text = str(error)
    assert "Slurm says FAILED, exit code 0:9, after 7 s, it used 3 MiB" in text
    assert "tried 2 times; perhaps it ran out of memory: raise memory_gb" in text
    assert text.endswith("\n| begins\n| something odd")


def test_run_says_why_jobs_wait(cluster: Cluster, tmp_path: Path):
    seen: list[Counts] = []
    assert run(tmp_path, [Leaf(value=n) for n in range(3)], watch=seen.append).ok
    assert "Priority" in {counts.reason for counts in seen}


@pytest.mark.parametrize("says_so_itself", [True, False])
@pytest.mark.parametrize(("asked_gb", "gets_gb"), [(None, 3.0), (4.0, 6.0)])
def test_memory_grows_from_what_the_job_had(
    cluster: Cluster,
    tmp_path: Path,
    asked_gb: float | None,
    gets_gb: float,
    says_so_itself: bool,
):
    """Where the profile does not say, Slurm does: 2 GiB."""
    info = dead(TaskStatus.OUT_OF_MEMORY, memory_bytes=2 * 2**30)

    def starves(folder: RunFolder, array: Array, index: int):
        if len(cluster.arrays) > 1:
            return None
        if says_so_itself:
            outcome = ExitInfo(TaskStatus.OUT_OF_MEMORY).outcome(array.tasks[index][0])
            folder.write_outcome(array.name, index, outcome)
        return info

    cluster.kill = starves
    profile = Profile(executor="slurm", base=Resources(memory_gb=asked_gb))
    assert run(tmp_path, [Leaf(value=1)], profile=profile).ok
    assert [one.memory_gb for one in cluster.resources] == [asked_gb, gets_gb]


@pytest.mark.parametrize(("spec", "n_arrays"), [(Leaf(value=1), 2), (Album(value=1, n_parts=2), 4)])
def test_an_artifact_that_only_its_node_sees_is_given_up_with_the_reason(
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spec: Leaf | Album,
    n_arrays: int,
):
    """As with a root on a local disk of a node."""
    monkeypatch.setattr(progress, "NOT_SEEN_S", 0.0)
    parts = isinstance(spec, Album)

    def makes_it_elsewhere(folder: RunFolder, array: Array, index: int):
        result = Result(status=TaskStatus.PART if parts else TaskStatus.MADE)
        outcome = Outcome(results={array.tasks[index][0][0]: result}, host="n1", ended=time.time())
        folder.write_outcome(array.name, index, outcome)
        return dead(TaskStatus.KILLED)

    def no_more(step: int) -> None:
        assert len(cluster.arrays) <= n_arrays

    cluster.kill, cluster.at_step = makes_it_elsewhere, no_more
    profile = Profile(executor="slurm", base=Resources(parts=2))
    (error,) = run(tmp_path, [spec], profile=profile).failed.values()
    assert len(cluster.arrays) == n_arrays
    assert "a job on n1 reported that it made" in str(error)
    assert f"Is {tmp_path / 'store'} on a disk of that host alone" in str(error)
    assert f"tried {n_arrays} times" in str(error)


def test_attempts_on_a_host_whose_clock_is_behind_are_counted(cluster: Cluster, tmp_path: Path):
    def is_killed_an_hour_ago(folder: RunFolder, array: Array, index: int):
        results = {array.tasks[index][0][0]: Result(status=TaskStatus.KILLED)}
        outcome = Outcome(results=results, ended=time.time() - 3600)
        folder.write_outcome(array.name, index, outcome)
        return dead(TaskStatus.KILLED)

    def no_more(step: int) -> None:
        assert len(cluster.arrays) <= 2

    cluster.kill, cluster.at_step = is_killed_an_hour_ago, no_more
    (error,) = run(tmp_path, [Leaf(value=1)]).failed.values()
    assert "tried 2 times" in str(error)


# -- submitters that were killed


def test_an_array_that_may_have_been_submitted_is_not_submitted_again(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "set_handle", lambda *_: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            run(tmp_path, [Leaf(value=1)])
    assert len(cluster.arrays) == 1
    monkeypatch.setattr(slurm, "GONE_AFTER_S", -5.0)  # no look waits for it
    answers = iter([None, None, None, "slurm:1"])  # busy for a while, then it knows it
    monkeypatch.setattr(Slurm, "find", lambda *_: next(answers))
    seen: list[Counts] = []
    outcome = coordinator(tmp_path, [Leaf(value=1), Leaf(value=2)], seen.append).run()
    assert outcome.ok
    tasks = [task for _, array in cluster.arrays.values() for task in array.tasks]
    assert len(tasks) == 2
    assert next(answers, "none left") == "none left"


def test_ctrl_c_between_sbatch_and_its_record_waits(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    submit = cluster.submit
    children: list[str] = []

    def interrupted(*how: object) -> str:
        job = submit(*how)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGINT)
        # A terminal's Ctrl-C does not reach the commands of Slurm.
        own = "import os; print(os.getsid(0) == os.getpid())"
        children.append(call(sys.executable, "-c", own).stdout)
        return job

    monkeypatch.setattr(sbatch, "submit", interrupted)
    with pytest.raises(Detached, match="detached; 2 jobs are queued or running"):
        run(tmp_path, [Leaf(value=1), Leaf(value=2)])
    assert children == ["True\n"]
    (folder,) = active_runs(Store(tmp_path / "store"))
    assert [folder.handle_of(array.name) for array in folder.arrays()] == ["slurm:1"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_array_is_not_dropped_while_its_sbatch_may_go_on():
    assert slurm.GONE_AFTER_S >= 2 * TIMEOUT_S


@pytest.mark.parametrize("was_taken", [True, False])
def test_an_array_whose_sbatch_timed_out_is_found_by_its_name(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was_taken: bool
):
    monkeypatch.setattr(slurm, "GONE_AFTER_S", 60.0 if was_taken else 0.0)
    monkeypatch.setattr(submission, "PAUSE_S", 0.01)
    submit = cluster.submit
    tried: list[str] = []

    def times_out(array: Array, *how: object) -> str:
        tried.append(array.name)
        if len(tried) > 1 or was_taken:
            submit(array, *how)  # type: ignore[arg-type]
        if len(tried) == 1:
            raise NoAnswer("Slurm gives no answer: sbatch: timed out")
        return "1"

    monkeypatch.setattr(sbatch, "submit", times_out)
    outcome = run(tmp_path, [Leaf(value=1)])
    assert outcome.ok
    assert len(outcome.made) == 1
    assert len(tried) == (1 if was_taken else 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_whose_sbatch_hangs(tmp_path: Path, number: signal.Signals):
    place = Place(tmp_path)
    place.profile("")
    programs, began = tmp_path / "programs", tmp_path / "began"
    programs.mkdir()
    for name, text in {
        "sbatch": f"touch {began}; exec sleep 100",
        "squeue": "",
        "srun": "",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    file = place.write("targets = [Leaf(value=1)]")
    path = f"{programs}:{os.environ['PATH']}"
    process = place.start("run", file, "--executor", "slurm", PATH=path)
    wait_until(began.exists)
    process.send_signal(number)
    _, err = process.communicate(timeout=80)  # less than sbatch takes
    assert process.returncode == 3, err
    # It may have been submitted: a job of that name has something to do.
    (folder,) = active_runs(place.store)
    assert [folder.handle_of(array.name) for array in folder.arrays()] == [None]


# -- runs that end


def test_a_run_whose_arrays_are_refused_has_ended(cluster: Cluster, tmp_path: Path):
    cluster.refuses = "invalid partition"
    with pytest.raises(SlurmError):
        run(tmp_path, [Leaf(value=1)])
    assert active_runs(Store(tmp_path / "store")) == []


def detach_at_once(cluster: Cluster, folder: Path) -> None:
    def ctrl_c(step: int) -> None:
        raise KeyboardInterrupt

    cluster.at_step = ctrl_c
    with pytest.raises(Detached):
        run(folder, [Leaf(value=1), Leaf(value=2)])
    cluster.at_step = lambda step: None


def test_killed_jobs_that_are_no_longer_needed_do_not_keep_a_run_open(
    cluster: Cluster, tmp_path: Path
):
    detach_at_once(cluster, tmp_path)
    # Both are killed while no run monitors them; then one is dropped from the experiment.
    for job in list(cluster.waiting):
        cluster.waiting.remove(job)
        cluster.exits[job] = dead(TaskStatus.KILLED)
    (folder,) = active_runs(Store(tmp_path / "store"))
    assert run(tmp_path, [Leaf(value=1)]).ok
    assert active_runs(Store(tmp_path / "store")) == []
    ends = [
        result.status
        for array, index in folder.finished_tasks()
        if (outcome := folder.outcome(array, index))
        for result in outcome.results.values()
    ]
    assert ends.count(TaskStatus.KILLED) == 2


def test_a_waiting_job_keeps_its_run_open(cluster: Cluster, tmp_path: Path):
    detach_at_once(cluster, tmp_path)
    waits = SlurmTask("1", 1)
    cluster.waiting.remove(waits)
    queue = cluster.queue
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slurm, "queue", lambda *how: [*queue(*how), queued(waits)])
        assert run(tmp_path, [Leaf(value=1)]).ok
        assert len(active_runs(Store(tmp_path / "store"))) == 1


# -- parts


@pytest.mark.parametrize("other_runs", [True, False])
def test_an_artifact_that_jobs_of_a_run_share_counts_as_made_by_it(
    cluster: Cluster, tmp_path: Path, other_runs: bool
):
    """The job that finds it published may end before the job that published it."""
    profile = Profile(executor="slurm", base=Resources(parts=2))
    one = coordinator(tmp_path, [Album(value=1, n_parts=2)], profile=profile)
    (node,) = one.plan.to_make
    one.submitter.submit([node])
    first, second = one.monitor.jobs.values()
    second.running = other_runs
    cluster.step(0)
    cluster.step(0)
    found = Outcome(results={node.key: Result(status=TaskStatus.MADE_ELSEWHERE)})
    one.progress.record(first, found, shared=one.monitor.is_shared(first))
    one.progress.see_published()
    assert bool(one.progress.left) is other_runs
    if other_runs:
        made = second.folder.outcome(*second.position)
        assert made is not None
        one.progress.record(second, made)
        one.progress.see_published()
    assert one.progress.left == {}
    assert one.progress.result.made == ([node] if other_runs else [])
    assert one.progress.result.made_elsewhere == ([] if other_runs else [node])
