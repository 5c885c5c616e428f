"""Experiment files and folders of any name work: runs, reports, gc, local processes and Slurm."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "store"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from clusters import Cluster, cluster, coordinator  # noqa: F401
from dispatching import Place
from odd_names import ODD
from slurming import cluster_place, marks
from test_cli import SQUARES, _folder, as_json, saevx, write  # noqa: F401

from saevx.dispatch.follow.find import Follower
from saevx.dispatch.run_folder import RunFolder, active_runs, all_runs, run_prefix
from saevx.errors import ExperimentError
from saevx.experiments.load import load_experiment
from store import Store

FILES = [name for name in ODD if "/" not in name] + ["_x"]

REPORT = """
def report(table):
    return table.select("square")
"""


@pytest.mark.parametrize("name", FILES)
def test_report_and_gc_with_any_file_name(name: str):
    file = write(SQUARES + REPORT, f"{name}.py")
    ran = as_json("run", f"./{file}")
    assert (ran["made"], ran["failed"]) == (6, {})
    (table,) = map(Path, ran["report"])
    assert table.read_text() == "square\n1\n4\n9\n"
    (document,) = [as_json("gc", "--dry-run", "--grace", "0s")]
    assert document["stale"] == []
    assert as_json("run", f"./{file}")["report"] == ran["report"]


def test_tables_of_a_report_with_any_names_get_files_of_their_own():
    report = (
        "\ndef report(table): return {'a/b': table, 'a:b': table, '../up': table, 'a b': table}\n"
    )
    files = [Path(file) for file in as_json("run", write(SQUARES + report))["report"]]
    assert len({file.resolve() for file in files}) == 4
    assert {file.resolve().parent for file in files} == {Path(".saevx/reports/squares").resolve()}
    assert files[-1].name == "a b.csv"


def test_a_name_that_is_not_utf_8_is_refused():
    file = Path(os.fsdecode(b"\xff.py"))
    file.write_text("targets = []")
    with pytest.raises(ExperimentError, match="UTF-8"):
        load_experiment(file)


@pytest.mark.parametrize("name", FILES)
def test_runs_are_found_with_any_file_name(name: str, tmp_path: Path):
    store, path = Store(tmp_path), f"/lab/{name}.py"
    run = RunFolder.make(store, name, path)
    (run.path / "run.json").touch()
    RunFolder.make(store, name, "/elsewhere/of/this/name.py")
    assert [one.name for one in all_runs(store, run_prefix(name, path))] == [run.name]
    assert [one.name for one in active_runs(store)] == [run.name]
    follower = Follower("", run_prefix(name, path), "1", "ann", True, "", "", "")
    assert follower.is_of(path)


def test_runs_with_hidden_names_of_earlier_versions_are_found(tmp_path: Path):
    run = RunFolder.make(Store(tmp_path), "x", "/x.py")
    run.path.rename(run.path.with_name(f".{run.name}"))
    (tmp_path / ".jobs" / ".DS_Store").touch()
    (tmp_path / ".jobs" / ".follow").mkdir()
    assert [one.name for one in all_runs(Store(tmp_path))] == [f".{run.name}"]


@pytest.mark.parametrize("name", FILES)
def test_names_of_arrays_are_safe_for_slurm(name: str, tmp_path: Path, cluster: Cluster):  # noqa: F811
    import unruly

    assert coordinator(tmp_path, [unruly.Leaf(value=1)], name=name).run().ok
    ((_, array),) = cluster.arrays.values()
    assert not set(array.name) & set(" ,\n%'\"()[]")
    assert array.name.isascii()


@pytest.mark.parametrize("name", ["my study", ".a,b%j (1)", "é\n'[1-3]' \"研\""])
def test_local_processes_with_any_file_name(name: str, tmp_path: Path):
    place = Place(tmp_path / f"in {name}")
    place.folder.mkdir()
    place.profile("")
    file = place.write("targets = [Leaf(value=value) for value in range(2)]", f"{name}.py")
    ran = place.saevx("run", file, "--jobs", "2")
    assert ran.code == 0, ran
    assert len(place.contents()) == 2


def test_a_folder_with_a_colon_is_refused(tmp_path: Path):
    place = Place(tmp_path / "a:b")
    place.folder.mkdir()
    place.profile("")
    ran = place.saevx("run", place.write("targets = [Leaf(value=1)]"), "--jobs", "1")
    assert ran.code == 1
    assert "no path that holds ':'" in ran.err


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=marks) for name in ("a,b (1)%j", "étude 研究")]
)
def test_slurm_with_any_file_and_folder_name(name: str, tmp_path: Path):
    folder = tmp_path / f"100% {name}"
    folder.mkdir()
    place = cluster_place(folder)
    file = place.write("targets = [Leaf(value=1), Leaf(value=2, how='killed')]", f"{name}.py")
    ran = place.saevx("run", file)
    assert ran.code == 1
    assert "Slurm says" in ran.err, ran
    assert len(place.contents()) == 1
    logs = [log.name for log in folder.glob(".saevx/.jobs/*/logs/slurm/*_0_log.out")]
    assert len(logs) == len(place.jobs()) + 1, logs
