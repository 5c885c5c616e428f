"""Many processes and one store: each key has one winner, killed or not, and is made once."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from store.gc import collector as gc
from store.gc.reachability import Reachability, Stale

from . import actors, collecting
from .collecting import Visitor
from .racing import race

# A killed process loses nothing that it had written; only a crash of the machine needs the flush.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_fsync")]


def test_killed_processes_leave_one_whole_artifact_a_key(tmp_path: Path) -> None:
    """A short version of tests/bench/races.py."""
    kills: Counter[str] = Counter()
    for turn in range(10):
        run = race(tmp_path / str(turn), kills=60, seed=turn)
        assert run.faults == []
        kills += run.kills
        if kills.total() >= 100:
            break
    assert kills.total() >= 100
    areas = Counter(point.split()[2] for point in kills.elements())
    assert min(areas["lease"], areas["build"], areas["home"]) > 0


def test_nothing_wanted_is_collected_though_makers_and_collectors_are_killed(
    tmp_path: Path,
) -> None:
    """A short version of tests/bench/races.py."""
    run = race(
        tmp_path / "store",
        n_processes=6,
        n_keys=10,
        n_collectors=3,
        gc_kills=8,
        kills=10**6,
        seed=4,
    )
    assert run.faults == []
    assert run.gc_kills >= 4
    assert min(run.tally[what] for what in ("visits", "moved", "deleted")) > 3


class Gate:
    """Makes a race certain: a collector waits until a visitor relies on what it is about to move,
    and the visitor stays until it is moved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.over = folder / "store" / "over"
        """Ends the race."""

    def collect(self, keys: list[str]) -> None:
        """Wait until a visitor has seen one of these artifacts. No visitor ever wants some."""
        for key in keys:
            (self.folder / f"{key}.doomed").touch()
        end = time.monotonic() + 5.0
        while keys and time.monotonic() < end and not self.over.exists():
            if self._any(keys, "seen"):
                return
            time.sleep(0.001)

    def visit(self, visitor: Visitor) -> None:
        """Wait until a collector has moved what a visitor has seen, if it is about to."""
        keys = [key for _, key in visitor.seen]
        if not self._any(keys, "doomed"):
            return
        for key in keys:
            (self.folder / f"{key}.seen").touch()
        end = time.monotonic() + 5.0
        while time.monotonic() < end and not self.over.exists():
            if any(visitor.store.absence(*ref) for ref in visitor.seen):
                self.over.touch()
        for key in keys:
            (self.folder / f"{key}.doomed").unlink(missing_ok=True)
            (self.folder / f"{key}.seen").unlink(missing_ok=True)

    def _any(self, keys: list[str], state: str) -> bool:
        return any((self.folder / f"{key}.{state}").exists() for key in keys)


@pytest.mark.parametrize("net", ["C1", "C2"])
def test_a_race_shows_where_a_net_is_missing(
    tmp_path: Path, net: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, look_again = Gate(tmp_path), Visitor.look_again

    def visit(self: Visitor) -> None:
        gate.visit(self)
        look_again(self)

    monkeypatch.setattr(Visitor, "look_again", visit)
    if net == "C1":
        monkeypatch.setattr(actors, "wait_for_collectors", lambda store: None)
        monkeypatch.setattr(gc, "_put_back_wanted", lambda *args: None)
        move = gc.move_to_trash_if_same
        late = lambda *args: gate.collect([args[2]]) or move(*args)  # noqa: E731
        monkeypatch.setattr(gc, "move_to_trash_if_same", late)
    else:
        refresh, collect = Reachability.refresh, gc.collect
        monkeypatch.setattr(Reachability, "refresh", lambda self: self.reachable or refresh(self))

        def late_collect(reach: Reachability, stale: list[Stale]) -> gc.Collected:
            gate.collect([item.ref[1] for item in stale])
            return collect(reach, stale)

        monkeypatch.setattr(collecting, "collect", late_collect)
    run = race(gate.over.parent, n_processes=1, n_keys=2, n_collectors=3, least_s=100.0)
    assert any(fault.startswith("collected") for fault in run.faults)


def test_nothing_is_made_twice_without_need(tmp_path: Path) -> None:
    run = race(tmp_path / "store", n_keys=60, build_s=0.002)
    assert run.faults == []
    assert run.builds.total() >= 60
    assert run.double_share <= 0.02


def test_without_leases_work_is_wasted_and_nothing_else(tmp_path: Path) -> None:
    run = race(tmp_path / "store", leases=False, build_s=0.01)
    assert run.faults == []
    assert run.double_share > 0.02  # or the test above tests nothing
