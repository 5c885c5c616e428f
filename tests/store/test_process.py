"""Identify processes and judge whether they are alive: a live one never counts as dead."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import store.locks.process
from store.io import names_in
from store.locks.lease import LeaseFile
from store.locks.liveness import LOST_S, RESTARTED_S, may_be_alive
from store.locks.process import ProcessId

PARTS = st.text("0123456789abcdef-", min_size=1)


@given(owner=st.builds(ProcessId, st.text(min_size=1), PARTS, PARTS, st.integers(1), PARTS))
def test_ids_round_trip_through_text(owner: ProcessId) -> None:
    assert ProcessId.parse(str(owner)) == owner


@pytest.mark.parametrize("text", ["", "host", "a.b.c.d", "host.boot.ns.pid.started"])
def test_other_text_is_no_id(text: str) -> None:
    assert ProcessId.parse(text) is None


@pytest.mark.parametrize(
    "name",
    ["node01", "gpu.cs.example.org", "Anna's Mac Pro", "grünkohl", "計算機", ".hidden", "a/b", "",
     os.fsdecode(b"latin-\xe9"), "7.7.7.7"],
)  # fmt: skip
def test_any_host_name_fits_into_file_names_and_json(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename=name))
    here = ProcessId.here()
    assert ProcessId.parse(str(here)) == here
    assert here.runs()
    assert (
        msgspec.json.decode(msgspec.json.encode(LeaseFile.here()), type=LeaseFile).process == here
    )
    (tmp_path / f"{here}.abcdefab.json").touch()
    assert [text.rpartition(".")[0] for text in names_in(tmp_path)] == [f"{here}.abcdefab"]


def test_this_process_is_alive() -> None:
    assert ProcessId.here().runs()
    assert ProcessId.here() == ProcessId.here()


def test_processes_differ(in_child: Any) -> None:
    here = ProcessId.here()
    assert in_child(lambda: 1 / (ProcessId.here() != here)) == 0


@pytest.mark.parametrize(
    ("change", "runs"),
    [
        ({"host": "elsewhere"}, None),
        ({"host": "elsewhere", "boot": "0"}, None),
        ({"namespace": "1"}, None),
        ({"boot": "before"}, None),  # or a second machine of our name
        ({"started": "1"}, False),  # our process id, used again
        ({"pid": 2**22 + 1}, False),  # beyond the largest process id
    ],
)
def test_answers_of_the_process_table(change: dict[str, Any], runs: bool | None) -> None:
    assert ProcessId.here()._replace(**change).runs() is runs


@pytest.mark.parametrize(
    ("change", "age_s", "alive"),
    [
        ({}, 1e9, True),
        ({"pid": 2**22 + 1}, 0, False),
        ({"boot": "before"}, RESTARTED_S - 5, True),
        ({"boot": "before"}, RESTARTED_S + 5, False),
        ({"boot": "before", "pid": 2**22 + 1}, 0, True),
        ({"host": "elsewhere", "boot": "before"}, RESTARTED_S + 5, True),
        ({"host": "elsewhere"}, LOST_S - 5, True),
        ({"host": "elsewhere"}, LOST_S + 5, False),
        ({"host": "elsewhere"}, None, True),
        (None, LOST_S - 5, True),
        (None, LOST_S + 5, False),
    ],
)
def test_which_processes_may_be_alive(
    change: dict[str, Any] | None, age_s: float | None, alive: bool
) -> None:
    owner = None if change is None else ProcessId.here()._replace(**change)
    assert may_be_alive(owner, lambda: age_s) is alive
    assert may_be_alive(owner) is (alive if change in ({}, {"pid": 2**22 + 1}) else True)


def test_killed_child_is_dead_before_and_after_it_is_reaped() -> None:
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    state = store.locks.process._state_of(pid)
    assert state is not None
    child = ProcessId.here()._replace(pid=pid, started=state[1])
    assert child.runs() is True
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert child.runs() is False
    os.waitpid(pid, 0)
    assert child.runs() is False


def test_hidden_process_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of another user that /proc hides: only the signal shows that it exists."""

    def not_permitted(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", not_permitted)
    assert ProcessId.here()._replace(pid=2**22 + 1).runs() is True
