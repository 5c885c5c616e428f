"""Followers: their command, their copy of the code, and how they are found."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from saevx.dispatch.follow import start as following
from saevx.dispatch.follow.find import find_followers
from saevx.dispatch.follow.start import follow
from saevx.dispatch.profiles import Resources
from saevx.errors import Detached, SaevxError
from store import Store


class Queue:
    """A Slurm with at most one job; its squeue fails while `silent` exists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._program("srun", "exit 1")
        self._program("sbatch", f'echo "$2" > {folder}/script; echo 17 | tee {folder}/queue')
        self._program(
            "squeue",
            f"[ -e {folder}/silent ] && exit 1\n"
            f"[ -e {folder}/queue ] || exit 0\n"
            f"name=$(sed -n 's/^#SBATCH --job-name=//p' $(cat {folder}/script))\n"
            'echo "17|17|N/A|RUNNING|ann|n1|None|$name"',
        )

    def _program(self, name: str, text: str) -> None:
        (self.folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.folder / name).chmod(0o755)

    @property
    def script(self) -> Path:
        """The latest script that was submitted."""
        return Path((self.folder / "script").read_text().strip())

    def end(self) -> None:
        (self.folder / "queue").unlink()


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return Queue(tmp_path / "bin")


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    file = tmp_path / "trial.py"
    file.write_text("targets = []")
    return file


def start(experiment: Path, *words: str) -> tuple[str, Path, bool]:
    store = Store(experiment.parent / "store")
    return follow(store, "trial", experiment, ["run", "trial.py", *words], Resources(), 24.0)


def test_a_second_follower_of_the_same_code_is_not_submitted(queue: Queue, experiment: Path):
    job, _, is_new = start(experiment)
    assert (job, is_new) == ("17", True)
    assert start(experiment)[::2] == ("17", False)


@pytest.mark.parametrize("name", ["trial.py", "helper.py"])
def test_a_follower_with_older_code_is_reported(queue: Queue, experiment: Path, name: str):
    start(experiment)
    experiment.with_name(name).write_text("targets = [1]")
    with pytest.raises(Detached, match=r"17 follows it already.*edited since.*saevx cancel"):
        start(experiment)
    queue.end()
    assert start(experiment)[2]
    assert not start(experiment)[2]


def test_the_log_of_a_follower_is_at_the_reported_path(queue: Queue, tmp_path: Path):
    folder = tmp_path / "100%j"
    folder.mkdir()
    (folder / "trial.py").write_text("targets = []")
    _, log, _ = start(folder / "trial.py")
    script = queue.script.read_text()
    assert f"--output={shlex.quote(str(log).replace('%', '%%'))}\n" in script


def test_the_code_of_a_follower_is_kept_while_squeue_does_not_answer(
    queue: Queue, experiment: Path
):
    start(experiment)
    script = queue.script
    (queue.folder / "silent").touch()
    with pytest.raises(SaevxError, match="Slurm gives no answer: squeue"):
        start(experiment)
    assert (script.parent / "code" / "packages" / "saevx" / "__init__.py").exists()
    assert queue.script == script
    (queue.folder / "silent").unlink()
    assert start(experiment)[::2] == ("17", False)


def test_a_follower_is_found_by_its_script(queue: Queue, experiment: Path):
    store = Store(experiment.parent / "store")
    assert find_followers(store) == []
    start(experiment)
    (follower,) = find_followers(store)
    assert (follower.name, follower.job, follower.running) == ("trial", "17", True)
    assert follower.is_of(str(experiment))
    (queue.folder / "silent").touch()
    with pytest.raises(SaevxError):
        find_followers(store)


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
    monkeypatch.setattr(following, "command", lambda code, digest, *words: ["echo", *words])
    start(experiment, *given, "--jobs", "2")
    environment = {name: value for name, value in os.environ.items() if "SLURM" not in name}
    if restarts is not None:
        environment["SLURM_RESTART_COUNT"] = restarts
    done = subprocess.run(
        ["bash", str(queue.script)], env=environment, capture_output=True, text=True, check=True
    )
    assert "#SBATCH --signal=B:USR2@120" in queue.script.read_text()
    assert done.stdout == f"saevx run trial.py --jobs 2{passed}\n"
