"""The job that follows an experiment: what it is told, and what of its code is old."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from saevx.dispatch import follow as following
from saevx.dispatch import slurm
from saevx.dispatch.follow import follow
from saevx.dispatch.profiles import Resources
from saevx.errors import Detached
from store import Store


class Queue:
    """A Slurm that has at most one job."""

    def __init__(self) -> None:
        self.job: str | None = None
        self.script = Path()

    def submit(self, script: Path) -> str:
        self.job, self.script = "17", script
        return self.job


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue()
    monkeypatch.setattr(slurm, "find_waiting", lambda name, user: queue.job)
    monkeypatch.setattr(following, "_submit", queue.submit)
    return queue


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    file = tmp_path / "trial.py"
    file.write_text("targets = []")
    return file


def start(experiment: Path, *words: str) -> tuple[str, Path, bool]:
    store = Store(experiment.parent / "store")
    return follow(store, "trial", experiment, ["run", "trial.py", *words], Resources(), 24.0)


def test_the_same_code_is_followed_once(queue: Queue, experiment: Path):
    job, _, is_new = start(experiment)
    assert (job, is_new) == ("17", True)
    assert start(experiment)[::2] == ("17", False)


@pytest.mark.parametrize("name", ["trial.py", "helper.py"])
def test_a_follower_with_old_code_is_told_of(queue: Queue, experiment: Path, name: str):
    start(experiment)
    experiment.with_name(name).write_text("targets = [1]")
    with pytest.raises(Detached, match=r"17 follows it already.*edited since.*saevx cancel"):
        start(experiment)
    queue.job = None
    assert start(experiment)[2]
    assert not start(experiment)[2]


@pytest.mark.parametrize(
    ("given", "restarts", "passed"),
    [
        (["--retry-failed"], None, " --retry-failed"),
        (["--retry-failed"], "0", " --retry-failed"),
        (["--retry-failed"], "1", ""),
        ([], None, ""),
    ],
)
def test_failures_are_tried_again_at_the_first_start_only(
    queue: Queue,
    experiment: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: list[str],
    restarts: str | None,
    passed: str,
):
    monkeypatch.setattr(following, "python", lambda module: ["echo", module])
    start(experiment, *given, "--jobs", "2")
    environment = {name: value for name, value in os.environ.items() if "SLURM" not in name}
    if restarts is not None:
        environment["SLURM_RESTART_COUNT"] = restarts
    done = subprocess.run(
        ["bash", str(queue.script)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"saevx run trial.py --jobs 2{passed}\n"
