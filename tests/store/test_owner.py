"""Whether the process that owns something is alive: never dead by mistake."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import store.owner
from store.owner import Life, Owner

PARTS = st.text("0123456789abcdef-", min_size=1)


@given(
    owner=st.builds(
        Owner, st.from_regex(r"[a-z0-9.-]+", fullmatch=True), PARTS, PARTS, st.integers(1), PARTS
    )
)
def test_text_of_an_owner(owner: Owner) -> None:
    assert Owner.parse(str(owner)) == owner


@pytest.mark.parametrize("text", ["", "host", "a.b.c.d", "host.boot.ns.pid.started"])
def test_text_of_nobody(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Owner.parse(text)


def test_this_process_is_alive() -> None:
    assert Owner.here().life() is Life.ALIVE
    assert Owner.here() == Owner.here()


def test_processes_differ(in_child: Any) -> None:
    here = Owner.here()
    assert in_child(lambda: 1 / (Owner.here() != here)) == 0


@pytest.mark.parametrize(
    ("change", "life"),
    [
        ({"host": "elsewhere"}, Life.UNKNOWN),
        ({"host": "elsewhere", "boot": "0"}, Life.UNKNOWN),
        ({"namespace": "1"}, Life.UNKNOWN),
        ({"boot": "before"}, Life.DEAD),
        ({"started": "1"}, Life.DEAD),  # our process id, used again
        ({"pid": 2**22 + 1}, Life.DEAD),  # beyond the largest process id
    ],
)
def test_life_of_others(change: dict[str, Any], life: Life) -> None:
    assert Owner.here()._replace(**change).life() is life


def test_killed_child_is_dead_before_and_after_it_is_reaped() -> None:
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    state = store.owner._state_of(pid)
    assert state is not None
    child = Owner.here()._replace(pid=pid, started=state[1])
    assert child.life() is Life.ALIVE
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert child.life() is Life.DEAD
    os.waitpid(pid, 0)
    assert child.life() is Life.DEAD


def test_hidden_process_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another user, where /proc hides those: only the signal tells that it exists."""

    def not_permitted(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", not_permitted)
    assert Owner.here()._replace(pid=2**22 + 1).life() is Life.ALIVE
