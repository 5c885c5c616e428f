"""The copy of the code holds all that jobs need, and is not affected by later edits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from saevx.dispatch.code import files as walking
from saevx.dispatch.code import snapshot
from saevx.dispatch.code.files import code_files
from saevx.dispatch.code.snapshot import Snapshot
from saevx.dispatch.worker.attempt import missing_file_hint
from saevx.errors import ExperimentError, SaevxWarning
from saevx.experiments.load import load_experiment

sys.path.insert(0, str(Path(__file__).resolve().parent))
from dispatching import Place, wait_until
from slurming import PROFILE, marks

EXECUTORS = [pytest.param("local", id="local"), pytest.param("slurm", marks=marks, id="slurm")]

WORD = """
import time
from typing import ClassVar
from saevx import Artifact, recipe
time.sleep(1)  # time to edit, before a worker gets to the next line
{head}

class Word(Artifact):
    kind: ClassVar = "checkpoints"
    n: int

@recipe(Word)
def make_word(batch):
    (spec,) = batch.specs
    time.sleep(1)
    {body}
    batch.draft(spec).write("word", __import__("numpy").array([1]))
    batch.publish(spec, {{"answer": answer}})

targets = [Word(n=1)]
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.profile("")
    return place


def write(folder: Path, **files: str) -> Path:
    """Modules by name, where `a_in_INIT` is a/__init__.py."""
    for name, text in files.items():
        file = folder / (name.replace("_in_", "/").replace("INIT", "__init__") + ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def copy(experiment: Path, code: Path) -> set[str]:
    """Return what is copied for an experiment, without saevx and the tests."""
    Snapshot(experiment).write(code)
    none = write(code.parent / "none", none="") / "none.py"
    Snapshot(none).write(code.parent / "without")
    return _below(code / "experiment") - _below(code.parent / "without" / "experiment")


def _below(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def answers(place: Place) -> list[int]:
    return [artifact.manifest.attributes["answer"] for artifact in place.store.scan()]


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize(
    ("head", "body"),
    [("from helper import ANSWER", "answer = ANSWER"), ("", "from helper import ANSWER as answer")],
    ids=["at the top", "in the recipe"],
)
def test_later_edits_of_imported_modules_do_not_reach_jobs(
    place: Place, head: str, body: str, executor: str
):
    if executor == "slurm":
        place.profile(PROFILE)
    write(place.folder, helper="ANSWER = 1", word=WORD.format(head=head, body=body))
    process = place.start("run", "word.py", "--executor", executor)
    wait_until(place.arrays)
    write(place.folder, helper="ANSWER = 2")
    out, err = process.communicate()
    assert process.returncode == 0, (out, err)
    assert answers(place) == [1]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_jobs_run_the_saevx_of_their_run(place: Place, executor: str):
    if executor == "slurm":
        place.profile(PROFILE)
    for room in ("saevx", "store", "spec"):
        write(place.folder / room, INIT="raise RuntimeError('another saevx')")
    place.write("targets = [Leaf(value=1)]")
    program = [sys.executable, "-P", "-m", "saevx", "run", "trial.py", "--executor", executor]
    done = subprocess.run(
        program, cwd=place.folder, env=place.environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert set(place.makings().values()) == {1}


def test_imported_packages_are_copied_whole(place: Place):
    library = place.folder / "library"
    write(library, mylib_in_INIT="", mylib_in_later="f = lambda: 1", mylib_in_deep_in_more="")
    (library / "mylib" / "table.json").write_text("[1]")
    here = place.folder / "here"
    head = "import mylib"
    body = "from mylib.later import f; answer = f()"
    write(here, word=WORD.format(head=head, body=body))
    process = place.start("run", "here/word.py", "--jobs", "1", PYTHONPATH=str(library))
    (array,) = wait_until(lambda: list(place.folder.glob(".saevx/.jobs/*/arrays/*.json")))
    write(library, mylib_in_later="f = lambda: 2")
    out, err = process.communicate()
    assert process.returncode == 0, (out, err)
    assert answers(place) == [1]
    files = array.parents[1] / "code" / "experiment" / "mylib"
    assert (files / "table.json").read_text() == "[1]"
    assert (files / "deep" / "more.py").exists()


def test_transitive_imports_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    library = write(
        tmp_path / "library",
        mylib_in_INIT="",
        mylib_in_a="from . import b\nimport single",
        mylib_in_b="",
        single="import numpy, plain.one",
        plain_in_one="",
        other="",
    )
    (library / "plain" / "labels.txt").write_text("1")
    (library / "mylib" / "weights.npz").write_bytes(b"1")
    (library / "mylib" / "large.txt").write_bytes(b" " * (walking.TEXT_BYTES + 1))
    monkeypatch.syspath_prepend(library)
    body = "def make():\n    from mylib.a import f"
    here = write(tmp_path / "here", trial=body, beside="", deep_in_down="")
    assert copy(here / "trial.py", tmp_path / "code") == {
        "trial.py",
        "beside.py",
        "deep/down.py",
        "mylib/__init__.py",
        "mylib/a.py",
        "mylib/b.py",
        "single.py",
        "plain/one.py",
    }


def test_a_package_that_holds_the_experiment_keeps_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = write(
        tmp_path / "work", trials_in_trial="from trials.common import f", trials_in_common=""
    )
    monkeypatch.syspath_prepend(here)
    copied = copy(here / "trials" / "trial.py", tmp_path / "code")
    assert {"trial.py", "trials/common.py"} <= copied


def test_the_limit_on_files_does_not_apply_to_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(snapshot, "N_FILES", 20)
    many = {f"a{n:03}": "" for n in range(30)}
    here = write(tmp_path / "here", **many, trial="import zlib2, zpack", zlib2="", zpack_in_INIT="")
    monkeypatch.syspath_prepend(here)
    with pytest.warns(SaevxWarning, match="more than 20 files"):
        copied = copy(here / "trial.py", tmp_path / "code")
    assert {"trial.py", "zlib2.py", "zpack/__init__.py"} <= copied


def test_a_package_with_too_many_files_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("saevx.dispatch.code.imports.N_FILES", 5)
    many = {f"huge_in_a{n}": "" for n in range(6)}
    write(tmp_path / "library", huge_in_INIT="", **many)
    here = write(tmp_path / "here", trial="import huge")
    monkeypatch.syspath_prepend(tmp_path / "library")
    with pytest.warns(SaevxWarning, match="the package huge has more than 5 files"):
        assert copy(here / "trial.py", tmp_path / "code") == {"trial.py"}


def test_a_data_set_beside_an_experiment_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(walking, "N_FILES", 10)
    looked_at: list[str] = []
    entries = walking._entries

    def look(folder: Path, n: int | None) -> list[os.DirEntry[str]]:
        looked_at.append(str(folder.relative_to(tmp_path)))
        found = entries(folder, n)
        assert n is None or len(found) <= n
        return found

    monkeypatch.setattr(walking, "_entries", look)
    write(tmp_path, trial="", lib_in_INIT="", lib_in_a_in_b="", flat_in_code="", venv_in_x_in_y="")
    (tmp_path / "lib" / "table.json").touch()
    for n in range(11):
        (tmp_path / "flat" / f"{n}.png").touch()
        (tmp_path / f"{n}.png").touch()
    (tmp_path / "data" / "train" / "001").mkdir(parents=True)
    (tmp_path / "loop").symlink_to(tmp_path)
    found = [str(file.relative_to(tmp_path)) for file in code_files(tmp_path)]
    assert found == ["trial.py", "lib/__init__.py", "lib/a/b.py", "lib/table.json"]
    assert looked_at == [".", "data", "flat", "lib", "venv", "lib/a"]


def test_links_to_folders_of_code_are_followed(tmp_path: Path):
    write(tmp_path / "library" / "mylib", INIT="")
    here = write(tmp_path / "here", trial="")
    (here / "mylib").symlink_to(tmp_path / "library" / "mylib")
    assert copy(here / "trial.py", tmp_path / "code") == {"trial.py", "mylib/__init__.py"}


def test_a_process_that_runs_a_copy_copies_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = write(tmp_path / "here", trial="import mylib", mylib_in_INIT="")
    (here / "mylib" / "table.json").write_text("[1]")
    monkeypatch.syspath_prepend(here)
    first = Snapshot(here / "trial.py")
    first.write(tmp_path / "code")
    write(here, trial="changed = 1", added="")
    monkeypatch.setenv("SAEVX_CODE", str(tmp_path / "code"))
    again = Snapshot(here / "trial.py")
    assert again.digest == first.digest
    again.write(tmp_path / "again")
    assert (tmp_path / "again" / "experiment" / "mylib" / "table.json").read_text() == "[1]"
    monkeypatch.delenv("SAEVX_CODE")
    assert Snapshot(here / "trial.py").digest != first.digest


def test_a_linked_experiment_is_found_in_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here = write(tmp_path / "here", trial="def targets(): return []")
    (here / "link.py").symlink_to(here / "trial.py")
    Snapshot(here / "link.py").write(tmp_path / "code")
    (here / "trial.py").write_text("raise ValueError")
    monkeypatch.setenv("SAEVX_CODE", str(tmp_path / "code"))
    assert load_experiment(here / "link.py").name == "link"


def test_a_change_of_any_copied_file_changes_the_digest(tmp_path: Path):
    here = write(tmp_path / "here", trial="", sub_in_helper="")
    seen = [Snapshot(here / "trial.py").digest]
    for name in ("cfg.json", "sub/words.txt", "sub/helper.py"):
        (here / name).write_text("1")
        seen.append(Snapshot(here / "trial.py").digest)
    (here / "weights.npy").write_text("1")
    assert Snapshot(here / "trial.py").digest == seen[-1]
    for text in ("1", "2"):
        (here / "weights.npy").write_text(text)
        seen.append(Snapshot(here / "trial.py", [here / "weights.npy"]).digest)
    assert len(set(seen)) == len(seen)


def test_failed_specs_are_tried_again_after_a_file_beside_them_changed(place: Place):
    reader = """
import json
from pathlib import Path
N = json.loads(Path(__file__).with_name("cfg.json").read_text())
"""
    body = "from reader import N; answer = 1 // N"
    write(place.folder, reader=reader, word=WORD.format(head="", body=body))
    (place.folder / "cfg.json").write_text("0")
    assert "ZeroDivisionError" in place.saevx("run", "word.py", "--jobs", "1").err
    assert "in an earlier run of the same code" in place.saevx("run", "word.py", "--jobs", "1").err
    (place.folder / "cfg.json").write_text("1")
    ran = place.saevx("run", "word.py", "--jobs", "1")
    assert ran.code == 0, ran
    assert answers(place) == [1]


READER = """
import os
from pathlib import Path
HERE = Path(__file__).parent
def read():
    return int((HERE / "answer.bin").read_text()) + len(os.listdir(HERE / "tables"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["here", "library/mylib"])
def test_named_data_files_are_copied_beside_their_module(place: Place, where: str):
    library = place.folder / "library"
    folder = place.folder / where
    write(folder, INIT="", reader=READER)
    (folder / "answer.bin").write_text("40")
    (folder / "tables").mkdir()
    for name in ("a.npy", ".b.npy"):
        (folder / "tables" / name).touch()
    module = "reader" if where == "here" else "mylib.reader"
    body = f"from {module} import read; answer = read()"
    word = WORD.format(head="", body=body)
    write(place.folder / "here", word=word)
    place.environment["PYTHONPATH"] = str(library)
    failed = place.saevx("run", "here/word.py", "--jobs", "1")
    assert failed.code == 1
    assert "job_files" in failed.err, failed
    names = [
        os.path.relpath(folder / name, place.folder / "here") for name in ("answer.bin", "tables")
    ]
    write(place.folder / "here", word=f"{word}\njob_files = {names}\n")
    ran = place.saevx("run", "here/word.py", "--jobs", "1")
    assert ran.code == 0, ran
    assert answers(place) == [42]


def test_job_files_that_do_not_exist_are_refused(tmp_path: Path):
    trial = write(tmp_path / "here", trial="") / "trial.py"
    with pytest.raises(ExperimentError, match="does not exist"):
        Snapshot(trial, [tmp_path / "here" / "none.npy"])
    (tmp_path / "x.npy").touch()
    with pytest.raises(ExperimentError, match="is neither beside it nor"):
        Snapshot(trial, [tmp_path / "x.npy"])
    trial.write_text("targets = []\njob_files = 'x.npy'")
    with pytest.raises(ExperimentError, match="must be a list of paths"):
        load_experiment(trial)


@pytest.mark.parametrize(
    ("error", "helps"),
    [
        (FileNotFoundError(2, "No such file or directory", "/run/code/experiment/w.npy"), True),
        (FileNotFoundError(2, "No such file or directory", "/data/w.npy"), False),
        (ImportError("cannot import name 'f' from 'm' (/run/code/experiment/m.py)"), False),
    ],
)
def test_only_files_missing_in_the_copy_get_a_hint(error: Exception, helps: bool):
    outer = ExperimentError("failed")
    outer.__cause__ = error
    for one in (error, outer):
        assert bool(missing_file_hint(one, Path("/run/code"))) is helps
