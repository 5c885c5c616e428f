"""Many processes and one store: each key has one winner, killed or not, and is made once."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest

from store.gc import collector as gc
from store.gc.reachability import Reachability

from . import actors
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


@pytest.mark.parametrize("net", ["C1", "C2"])
def test_a_race_shows_where_a_net_is_missing(
    tmp_path: Path, net: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if net == "C1":
        monkeypatch.setattr(actors, "wait_for_collectors", lambda store: None)
        monkeypatch.setattr(gc, "_put_back_wanted", lambda *args: None)
    else:
        look = Reachability.refresh
        monkeypatch.setattr(Reachability, "refresh", lambda self: self.reachable or look(self))
    for seed in itertools.count():  # until pytest's time-out
        folder = tmp_path / str(seed)
        run = race(folder, n_processes=3, n_keys=5, n_collectors=3, least_s=1.5, seed=seed)
        if any(fault.startswith("collected") for fault in run.faults):
            return


def test_nothing_is_made_twice_without_need(tmp_path: Path) -> None:
    run = race(tmp_path / "store", n_keys=60, build_s=0.002)
    assert run.faults == []
    assert run.builds.total() >= 60
    assert run.double_share <= 0.02


def test_without_leases_work_is_wasted_and_nothing_else(tmp_path: Path) -> None:
    run = race(tmp_path / "store", leases=False, build_s=0.01)
    assert run.faults == []
    assert run.double_share > 0.02  # or the test above tests nothing
