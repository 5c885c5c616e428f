"""Many processes and one store: each key has one winner, killed or not, and is made once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from .racing import race

# A killed process loses nothing that it had written; only a crash of the machine needs the flush.
pytestmark = pytest.mark.usefixtures("no_fsync")


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
    areas = Counter(point.split()[1] for point in kills.elements())
    assert min(areas["lease"], areas["build"], areas["home"]) > 0


def test_nothing_is_made_twice_without_need(tmp_path: Path) -> None:
    run = race(tmp_path / "store", n_keys=60, build_s=0.002)
    assert run.faults == []
    assert run.builds.total() >= 60
    assert run.double_share <= 0.02


def test_without_leases_work_is_wasted_and_nothing_else(tmp_path: Path) -> None:
    run = race(tmp_path / "store", leases=False, build_s=0.01)
    assert run.faults == []
    assert run.double_share > 0.02  # or the test above tests nothing
