"""Parsing of sacct, and the retry policy. The texts were recorded from Slurm 22.05, except states
that need cgroups or preemption."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from saevx.dispatch.executors import sacct
from saevx.dispatch.executors.base import ExitInfo
from saevx.dispatch.executors.sacct import SlurmTask, read_sacct
from saevx.dispatch.jobs.retry import Attempt, describe, facts, may_retry, read_tail
from saevx.dispatch.messages import Outcome, Result, TaskStatus
from saevx.errors import NoAnswer
from store.locks import slurm as commands

MIB = 2**20

KILLED = """\
238_0|FAILED|9:0|3||100M|vm|1
238_0.batch|FAILED|9:0|3|||vm|1
238_0.0|CANCELLED|0:9|3|1700K||vm|1
"""
ABOVE_ITS_MEMORY = """\
238_2|FAILED|9:0|2||100M|vm|1
238_2.batch|FAILED|9:0|2|12056K||vm|1
238_2.0|CANCELLED by 0|0:9|2|320608K||vm|1
"""
BY_CGROUP = """\
9_0|OUT_OF_MEMORY|0:125|31||2Gc|gpu[3-4]|2
9_0.batch|OUT_OF_MEMORY|0:125|31|2.5M||gpu3|2
9_0.extern|COMPLETED|0:0|31|0||gpu3|2
9_0.0|OUT_OF_MEMORY|0:125|30|4194300K||gpu3|2
"""
BY_CGROUP_IN_A_STEP = """\
9_0|FAILED|1:0|31||4G|gpu3|2
9_0.batch|FAILED|1:0|31|2.5M||gpu3|2
9_0.0|OUT_OF_MEMORY|0:125|30|4194300K||gpu3|2
"""
BY_HAND = """\
238_1|CANCELLED by 0|0:0|6||100M|vm|1
238_1.batch|CANCELLED|0:15|6|12360K||vm|1
238_1.0|CANCELLED|0:15|6|1700K||vm|1
"""
TIMEOUT = """\
245_0|TIMEOUT|0:0|66||100M|vm|1
245_0.batch|FAILED|15:0|66|12588K||vm|1
245_0.0|CANCELLED|0:15|66|1780K||vm|1
"""
ENDS_BADLY = """\
238_4|FAILED|3:0|0||100M|vm|1
238_4.batch|FAILED|3:0|0|||vm|1
"""
NODE_FAILURE = """\
239_0|NODE_FAIL|0:0|21||100M|vm|1
239_0.batch|CANCELLED||21|||vm|1
"""
PREEMPTED = """\
7_0|PREEMPTED|0:0|400||16G|gpu3|4
7_0.batch|CANCELLED|0:15|401|300000K||gpu3|4
7_0.0|CANCELLED|0:15|401|9000000K||gpu3|4
"""
WELL = """\
238_3|COMPLETED|0:0|1||100M|vm|1
238_3.batch|COMPLETED|0:0|1|||vm|1
238_3.0|COMPLETED|0:0|1|||vm|1
"""
RUNS = """\
238_3|RUNNING|0:0|5||100M|vm|1
238_3.batch|RUNNING|0:0|5|||vm|1
"""
NO_STATE_OF_SLURMS = """\
7_0|UNKNOWN|0:0|0|||vm|
"""


def only(text: str) -> ExitInfo:
    (info,) = read_sacct(text).values()
    return info


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (KILLED, TaskStatus.KILLED),
        (ENDS_BADLY, TaskStatus.KILLED),
        (ABOVE_ITS_MEMORY, TaskStatus.OUT_OF_MEMORY),
        (BY_CGROUP, TaskStatus.OUT_OF_MEMORY),
        (BY_CGROUP_IN_A_STEP, TaskStatus.OUT_OF_MEMORY),
        (BY_HAND, TaskStatus.CANCELLED),
        (TIMEOUT, TaskStatus.TIME_LIMIT),
        (NODE_FAILURE, TaskStatus.NODE_FAILURE),
        (PREEMPTED, TaskStatus.PREEMPTED),
        (WELL, None),
        (RUNS, None),
        (NO_STATE_OF_SLURMS, None),
    ],
)
def test_how_it_ended(text: str, status: TaskStatus | None):
    assert only(text).status is status


def test_facts_of_a_killed_task():
    info = only(ABOVE_ITS_MEMORY)
    assert info.message == "Slurm says FAILED"
    assert (info.exit_code, info.wall_s, info.host) == ("0:9", 2.0, "vm")
    assert info.peak_memory_bytes == 320608 * 1024
    assert info.memory_bytes == 100 * MIB
    text = facts(info.outcome(["k"]))
    assert text == "exit code 0:9, after 2 s, it used 313 MiB of 100"
    assert only(BY_HAND).message == "Slurm says CANCELLED by 0"
    assert only(BY_HAND).exit_code == "0:15"


def test_a_task_that_never_began_has_no_facts():
    info = only("240_0|CANCELLED by 0|0:0|0||100M|None assigned|1\n")
    assert facts(info.outcome(["k"])) == ""
    at_once = only(ENDS_BADLY)
    assert facts(at_once.outcome(["k"])) == "exit code 3:0, after 0 s"


def test_memory_for_each_core_is_added_up():
    assert only(BY_CGROUP).memory_bytes == 4096 * MIB


def test_killed_below_its_memory_is_no_lack_of_memory():
    asked = ABOVE_ITS_MEMORY.replace("100M", "400M")
    assert only(asked).status is TaskStatus.KILLED


def test_cancelled_by_hand_above_its_memory_is_still_cancelled():
    above = BY_HAND.replace("1700K", "320608K")
    assert only(above).status is TaskStatus.CANCELLED


REQUEUED = """\
238_3|NODE_FAIL|0:0|25||100M|vm|1
238_3.batch|CANCELLED||25|999999K||vm|1
239_0|NODE_FAIL|0:0|21||100M|vm|1
239_0.batch|CANCELLED||21|||vm|1
"""


def test_the_last_attempt_of_a_requeued_job_counts():
    found = read_sacct(REQUEUED + WELL)
    assert found[SlurmTask("238", 3)] == only(WELL)
    assert found[SlurmTask("239", 0)].status is TaskStatus.NODE_FAILURE
    waits_again = REQUEUED + "238_3|PENDING|0:0|0||100M|None assigned|1\n"
    assert read_sacct(waits_again)[SlurmTask("238", 3)].status is None


def test_tasks_that_never_began_share_a_row():
    found = read_sacct("240_[0-2,5%2]|CANCELLED by 0|0:0|0||100M|None assigned|1\n")
    assert set(found) == {SlurmTask("240", at) for at in (0, 1, 2, 5)}
    assert {info.status for info in found.values()} == {TaskStatus.CANCELLED}
    assert {info.host for info in found.values()} == {""}


@pytest.mark.parametrize(
    "text",
    ["", "\n", "sacct: error: something\n", "12|COMPLETED|0:0|1||1M|vm|1\n", "7_[0,2,...]|\n"],
)
def test_other_rows_are_ignored(text: str):
    assert read_sacct(text) == {}


def test_a_list_that_was_cut_short_is_read_as_far_as_it_goes():
    found = read_sacct("7_[0,2,...]|CANCELLED by 0|0:0|0||100M|None assigned|1\n")
    assert set(found) == {SlurmTask("7", 0), SlurmTask("7", 2)}


def test_one_sacct_for_all_and_none_for_none(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def run(command: tuple[str, ...], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, KILLED + BY_HAND + NODE_FAILURE, "")

    monkeypatch.setattr(subprocess, "run", run)
    found = sacct.exit_infos([SlurmTask("239", 0), SlurmTask("238", 1), SlurmTask("238", 9)])
    assert found is not None
    assert set(found) == {SlurmTask("239", 0), SlurmTask("238", 1)}
    assert len(asked) == 1
    assert "--jobs=238,239" in asked[0]
    assert sacct.exit_infos([]) == {}
    assert len(asked) == 1


@pytest.mark.parametrize(
    "command", [["sh", "-c", "echo 7; exit 1"], ["no-program-of-that-name"], ["sleep", "3600"]]
)
def test_a_command_that_fails_or_takes_too_long_is_no_answer(
    command: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(commands, "TIMEOUT_S", 0.2)
    with pytest.raises(NoAnswer, match="Slurm gives no answer"):
        commands.ask(*command)


# -- the retry policy


def attempts_of(*ends: TaskStatus, progressed: bool = False) -> list[Attempt]:
    return [Attempt(Result(status=end), "", progressed, memory_gb=1.0) for end in ends]


@pytest.mark.parametrize(
    ("end", "n"),
    [
        (TaskStatus.KILLED, 1),
        (TaskStatus.OUT_OF_MEMORY, 1),
        (TaskStatus.VANISHED, 1),
        (TaskStatus.NODE_FAILURE, 3),
        (TaskStatus.PREEMPTED, 3),
        (TaskStatus.CANCELLED, 0),
        (TaskStatus.ERROR, 0),
        (TaskStatus.TIME_LIMIT, 0),
    ],
)
def test_number_of_retries(end: TaskStatus, n: int):
    assert all(may_retry(attempts_of(*[end] * tried)) for tried in range(1, n + 1))
    assert not may_retry(attempts_of(*[end] * (n + 1)))


def test_each_cause_is_counted_separately():
    mixed = [
        TaskStatus.KILLED,
        TaskStatus.OUT_OF_MEMORY,
        TaskStatus.NODE_FAILURE,
        TaskStatus.NODE_FAILURE,
        TaskStatus.PREEMPTED,
    ]
    assert may_retry(attempts_of(*mixed))
    assert not may_retry(attempts_of(*mixed, TaskStatus.KILLED))


def test_a_time_limit_is_retried_while_attempts_progress():
    further = attempts_of(*[TaskStatus.TIME_LIMIT] * 20, progressed=True)
    assert may_retry(further)
    assert not may_retry([*further, *attempts_of(TaskStatus.TIME_LIMIT)])
    assert not may_retry([*further, further[0]])


def test_a_lack_of_memory_is_not_retried_where_no_more_can_be_had():
    (attempt,) = attempts_of(TaskStatus.OUT_OF_MEMORY)
    assert may_retry([attempt])
    assert not may_retry([attempt._replace(memory_gb=None)])


def test_a_report_has_the_last_attempt_and_advice():
    last = Attempt(Result(status=TaskStatus.OUT_OF_MEMORY, message="Slurm says so"), "log: x")
    text = describe([*attempts_of(TaskStatus.NODE_FAILURE), last])
    assert text == (
        "out of memory: Slurm says so\ntried 2 times; raise memory_gb in its profile\nlog: x"
    )


def killed(executor: str, exit_code: str) -> Attempt:
    outcome = Outcome(results={}, exit_code=exit_code, wall_s=7.2, peak_memory_bytes=3 * MIB)
    result = Result(status=TaskStatus.KILLED, message="Slurm says FAILED")
    return Attempt(result, "log: x", executor=executor, outcome=outcome)


def test_a_silent_death_is_told_with_all_that_is_known():
    text = describe([killed("slurm", "0:9")], tail="\n".join(map(str, range(20))))
    head, advice, log, *tail = text.splitlines()
    assert head == "killed: Slurm says FAILED, exit code 0:9, after 7 s, it used 3 MiB"
    assert advice == "perhaps it ran out of memory: raise memory_gb in its profile"
    assert log == "log: x"
    assert tail == [f"| {n}" for n in range(10, 20)]


def test_advice_depends_on_the_executor():
    assert "memory" not in describe([killed("slurm", "3:0")])
    local = describe([killed("local", "0:9")])
    assert "fewer --jobs" in local
    assert "memory_gb" not in local


def test_the_tail_is_that_of_the_first_log_filled_up_from_others(tmp_path: Path):
    own, slurms = tmp_path / "own", tmp_path / "slurm"
    own.write_text("".join(f"{n}\n" for n in range(7)))
    slurms.write_text("".join(f"slurm {n}\n" for n in range(7)))
    told = read_tail([own, slurms, tmp_path / "none"]).splitlines()
    assert told == [*"0123456", "slurm 4", "slurm 5", "slurm 6"]
    own.write_text("x\n" * 5000 + "last\n")
    assert read_tail([own, slurms]).splitlines()[-1] == "last"
