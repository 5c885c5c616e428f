"""Parts on a real Slurm: elements of one array share an artifact, and what is cut off goes on."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from dispatching import Place, wait_until
from slurming import PROFILE, cluster_place, communicate, marks, running, slurm

pytestmark = marks

SHARED = PROFILE + "parts = 3\n"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return cluster_place(tmp_path)


def inline_contents(place: Place, targets: str) -> dict[str, object]:
    inline = Place(place.folder / "inline")
    inline.folder.mkdir()
    inline.profile("")
    (inline.folder / "part 5 killed once.1").touch()  # not there
    ran = inline.saevx("run", inline.write(targets))
    assert ran.code == 0, ran
    return inline.contents()


def pages(place: Place, word: str = "made") -> Counter[str]:
    return Counter({key: n for key, n in place.makings(word).items() if "/" in key})


def test_elements_share_an_artifact_and_one_may_be_killed(place: Place):
    targets = """
        targets = [
            Album(value=value, n_parts=8, group=0, how="part 5 killed once" if value else "well")
            for value in range(2)
        ]
    """
    place.profile(SHARED)
    file = place.write(targets)
    assert [line["arrays"] for line in place.json("plan", file)["arrays"]] == [[3]]
    ran = place.saevx("run", file)
    assert ran.code == 0, ran
    first, second = sorted(place.arrays(), key=lambda array: array["submitted"])
    assert first["parts"] == [[0, 1], [2, 3, 4], [5, 6, 7]]
    assert second["parts"] == [[5], [6], [7]]
    again = {key.partition("/")[2] for key, n in pages(place, "begin").items() if n > 1}
    assert again == {"5"}
    assert set(pages(place).values()) == {1}
    assert place.contents() == inline_contents(place, targets)
    assert place.leases() == []


def test_a_recording_over_its_time_goes_on_at_the_next_part(place: Place):
    """One artifact alone, in one job."""
    targets = "targets = [Album(value=1, n_parts=6, pause_s=3)]"
    process = place.start("run", place.write(targets))
    wait_until(lambda: len(pages(place)) >= 2)
    (job,) = running(place)
    slurm("scancel", "--signal=USR2", job)  # what Slurm sends shortly before the time is up
    out, err = communicate(process, place, 120)
    assert process.returncode == 0, (out, err)
    assert "Restarts=1" in slurm("scontrol", "show", "job", job)
    assert set(pages(place).values()) == {1}
    assert sum(pages(place, "begin").values()) == 7
    assert len(place.jobs()) == 1
    assert place.contents() == inline_contents(place, targets.replace("=3)", "=0)"))


def test_a_requeued_element_keeps_its_parts(place: Place):
    place.profile(SHARED)
    targets = "targets = [Album(value=1, n_parts=6, pause_s=2)]"
    process = place.start("run", place.write(targets))
    wait_until(lambda: len(pages(place)) >= 2)
    kept = set(pages(place))
    for job in running(place):
        slurm("scontrol", "requeue", job)
    out, err = communicate(process, place, 120)
    assert process.returncode == 0, (out, err)
    assert set(pages(place).values()) == {1}
    assert all(pages(place, "begin")[page] == 1 for page in kept)
    assert len(place.jobs()) == 1
    assert place.leases() == []
