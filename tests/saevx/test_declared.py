"""Spec types that only an experiment file declares: runs record them; looking runs no code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent

EXPERIMENT = """
from typing import ClassVar
import numpy as np
import polars as pl
from saevx import Artifact, recipe

with open(CANARY, "a") as file:
    print("imported", file=file)

class Acts(Artifact):
    kind: ClassVar = "shards"
    n: int

class Counted(Artifact):
    kind: ClassVar = "results"
    version: ClassVar = VERSION
    acts: Acts

@recipe(Acts)
def make_acts(batch):
    for spec in batch.specs:
        batch.draft(spec).write("x", np.zeros(spec.n))
        batch.publish(spec)

def load(stored):
    with open(CANARY, "a") as file:
        print("loaded", file=file)
    return stored

@recipe(Counted, load=load)
def make_counted(batch):
    for spec in batch.specs:
        batch.draft(spec).table("rows", pl.DataFrame({"n": [spec.acts.n]}))
        batch.publish(spec)

targets = [Counted(acts=Acts(n=n)) for n in NUMBERS]
"""


def write(numbers: list[int], version: int = 1, name: str = "counts.py") -> str:
    code = EXPERIMENT.replace("VERSION", str(version)).replace("NUMBERS", str(numbers))
    code = code.replace("CANARY", repr(str(Path("canary").resolve())))
    Path(name).write_text(code)
    return name


def saevx(*words: str, light: bool = False) -> subprocess.CompletedProcess[str]:
    """A command in a process that knows no type but those that saevx has."""
    check = "; import sys; assert 'torch' not in sys.modules" if light else ""
    code = f"from saevx.cli import main; main({list(words)!r}, standalone_mode=False){check}"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )


def as_json(*words: str) -> Any:
    done = saevx(*words, "--json", light=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAEVX_STORE", raising=False)


GIVE_UP = ("gc", "--kind", "shards", "--keep-results", "--grace", "0")


def test_types_declared_by_recorded_runs_can_be_recomputed():
    saevx("run", write([1, 2]))
    done = as_json(*GIVE_UP, "--yes")
    assert (len(done["moved"]), done["kept"]) == (2, [])


def test_artifacts_of_an_edited_file_are_not_evicted():
    file = Path(write([1]))
    assert saevx("run", str(file)).returncode == 0
    os.utime(file, (2e9, 2e9))
    where = f"the spec type counts.Acts is not known here: {file.resolve()}"
    edited = saevx(*GIVE_UP, "--dry-run")
    assert f"{where} was edited after its latest run; run it again" in edited.stdout
    file.rename("elsewhere.py")
    gone = saevx(*GIVE_UP, "--dry-run")
    assert f"{where} is not there any more" in gone.stdout
    assert (edited.returncode, gone.returncode) == (0, 0)


@pytest.mark.slow
def test_recorded_runs_tell_which_version_is_older():
    saevx("run", write([1]))
    key = as_json("ls", "--kind", "results")[0]["key"]
    saevx("run", write([2], name="other.py"))
    assert as_json("ls", "--older") == []
    # Its runs make nothing: the store itself holds no newer version.
    declared = write([3], version=3).replace("counts", "later")
    code = Path("counts.py").read_text()
    for name in ("Acts", "Counted"):  # renamed, and not to be taken for other types
        head = f"class {name}(Artifact):\n"
        code = code.replace(head, f'{head}    formerly = ("counts.{name}",)\n')
    Path("counts.py").unlink()
    Path(declared).write_text(f"{code}targets = [Acts(n=1)]\n")
    saevx("run", declared)
    assert [row["version"] for row in as_json("ls", "--older", "--kind", "results")] == [1]
    (found,) = [f for f in as_json("doctor") if f["topic"] == "types"]
    assert "1 artifact of version 1, and the type is at 3 now" in found["what"]
    saevx("gc", "--forget", "counts.py", "--yes")
    why = as_json("why", key, "--grace", "0")
    assert (why["reason"], why["detail"]) == (
        "older version",
        "version 1 of counts.Counted, which is at 3 now",
    )
    stale = as_json("gc", "--grace", "0", "--dry-run")["stale"]
    assert [item["reason"] for item in stale] == ["older version"]


def test_without_records_the_store_tells_which_version_is_older():
    saevx("run", write([1]))
    saevx("run", write([1], version=2))
    for file in Path(".saevx/.runs").glob("*/*.json"):
        record = json.loads(file.read_text())
        assert record.pop("types") == {"counts.Acts": 1, "counts.Counted": 2}
        file.write_text(json.dumps(record))  # as one that an earlier saevx wrote
    stale = as_json("gc", "--grace", "0", "--dry-run")["stale"]
    assert [(item["reason"], item["detail"]) for item in stale] == [
        ("older version", "version 1 of counts.Counted, which is at 2 now")
    ]
    (found,) = [
        f for f in as_json("doctor") if f["topic"] == "types" and f["where"] == "counts.Acts"
    ]
    assert "not known here" in found["what"]


def test_doctor_knows_the_types_of_recorded_runs():
    saevx("run", write([1]))
    assert [f for f in as_json("doctor") if f["topic"] in ("types", "specs")] == []


LOOK = """
import json, os, sys
from saevx.cli import main
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as end:
        assert not end.code, words
    assert not os.path.exists("canary"), words
"""


def test_reading_commands_import_no_experiment():
    saevx("run", write([1]), "--jobs", "1")
    canary = Path("canary")
    assert "imported" in canary.read_text()
    canary.unlink()
    (acts,), (table,) = (
        [row["key"] for row in as_json("ls", "--kind", kind)] for kind in ("shards", "results")
    )
    looks = [
        ["ls"],
        ["ls", "--older"],
        ["ls", "--where", "n=1"],
        ["show", table],
        ["why", table],
        ["why", acts, "--grace", "0"],
        ["status"],
        ["logs", table],
        ["gc", "--dry-run"],
        ["gc", "--grace", "0", "--forget", "counts.py", "--dry-run"],
        [*GIVE_UP, "--dry-run"],
        ["doctor"],
        ["doctor", "--deep", "--fix"],
        ["pin"],
        ["export", table, "-o", "table.csv"],
        ["export", table, "--to", "other", "--parents"],
        ["import", table, "--from", "other", "--store", "third"],
    ]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    command = [sys.executable, "-c", LOOK, json.dumps(looks)]
    looked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert looked.returncode == 0, looked.stderr
    words = {"COMP_WORDS": f"saevx show {table[:4]}", "COMP_CWORD": "2"}
    completing = {**environment, "_SAEVX_COMPLETE": "bash_complete", **words}
    subprocess.run([sys.executable, "-m", "saevx"], env=completing, check=True)
    assert not canary.exists()


def test_user_types_load_by_key_as_plain_data():
    saevx("run", write([2]))
    Path("canary").unlink()
    (acts,), (table,) = (
        [row["key"] for row in as_json("ls", "--kind", kind)] for kind in ("shards", "results")
    )
    code = (
        "import saevx, runpy, sys\n"
        "for _ in range(2):\n"
        f"    assert saevx.load({table!r})['n'].to_list() == [2]\n"
        f"    assert saevx.load({acts[:10]!r})[:].tolist() == [0, 0]\n"
        "    print(open('canary').read() if __import__('os').path.exists('canary') else 'quiet')\n"
        "    runpy.run_path('counts.py')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    # Nor does it run the type's own `load`, where the type has been imported.
    assert done.stdout.split() == ["quiet", "imported"], done.stderr
