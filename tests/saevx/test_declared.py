"""Spec types that only an experiment file declares, and which commands know of them."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from saevx.declared import Declared
from spec.document import known_types
from store.records import Run

HERE = Path(__file__).resolve().parent

EXPERIMENT = """
from typing import ClassVar
import numpy as np
import polars as pl
from saevx import Artifact, recipe

print("a word from the experiment")

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

@recipe(Counted)
def make_counted(batch):
    for spec in batch.specs:
        batch.draft(spec).table("rows", pl.DataFrame({"n": [spec.acts.n]}))
        batch.publish(spec)

targets = [Counted(acts=Acts(n=n)) for n in NUMBERS]
"""


def write(numbers: list[int], version: int = 1, name: str = "counts.py") -> str:
    code = EXPERIMENT.replace("VERSION", str(version)).replace("NUMBERS", str(numbers))
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


def test_what_a_file_declares_can_be_made_again():
    saevx("run", write([1, 2]))
    done = as_json(*GIVE_UP, "--yes")
    assert (len(done["moved"]), done["kept"]) == (2, [])


def test_a_file_that_cannot_be_loaded_is_told_and_stops_nothing():
    file = Path(write([1]))
    saevx("run", str(file))
    file.rename("elsewhere.py")
    gone = saevx(*GIVE_UP, "--dry-run")
    assert gone.returncode == 0
    assert "the spec type Acts is not known here" in gone.stdout
    (line,) = gone.stderr.splitlines()
    assert line.startswith(f"warning: spec types of {file.resolve()} may not be known")
    assert line.endswith("there is no such file")
    file.write_text("import sys\nsys.exit('no\\nand no')\n")
    for words in (GIVE_UP, ("doctor",), ("ls", "--older")):
        broken = saevx(*words, *(["--dry-run"] if words is GIVE_UP else []))
        assert broken.returncode == 0
        (line,) = broken.stderr.splitlines()
        assert line.endswith("SystemExit: no")


def test_an_older_version_is_told_by_what_a_file_declares_today():
    saevx("run", write([1]))
    key = as_json("ls", "--kind", "results")[0]["key"]
    saevx("run", write([2], name="other.py"))
    write([3], version=2)  # not run, and loaded since it ran before
    saevx("run", "counts.py")
    write([3], version=3)
    assert [row["version"] for row in as_json("ls", "--older", "--kind", "results")] == [1, 1, 2]
    stale = as_json("gc", "--grace", "0", "--dry-run")["stale"]
    reasons = {item["type"]: (item["reason"], item["detail"]) for item in stale}
    assert reasons["Counted"] == ("older version", "version 1 of Counted, which is at 3 now")
    assert reasons["Acts"][0] == "not reached"
    assert as_json("why", key, "--grace", "0")["reason"] == "older version"


def test_without_the_file_the_store_tells_which_version_is_older():
    file = write([1])
    saevx("run", file)
    saevx("run", write([1], version=2))
    Path(file).unlink()
    stale = as_json("gc", "--grace", "0", "--dry-run")["stale"]
    assert [(item["reason"], item["detail"]) for item in stale] == [
        ("older version", "version 1 of Counted, which is at 2 now")
    ]


def test_the_doctor_checks_what_files_declare():
    saevx("run", write([1]))
    assert [f for f in as_json("doctor") if f["topic"] in ("types", "specs")] == []
    write([1], version=2)
    (found,) = [f for f in as_json("doctor") if f["topic"] == "types"]
    assert "1 artifact of version 1, and the type is at 2 now" in found["what"]


def test_only_what_is_needed_is_loaded():
    saevx("run", write([1]))
    (manifest,) = Path(".saevx/results").glob("??/*/zarr.json")
    manifest.write_bytes(b"damaged")
    said = saevx("gc", "--grace", "0", "--dry-run")
    assert "failed check" in said.stdout
    assert "a word" not in said.stdout + said.stderr
    said = saevx(*GIVE_UP, "--dry-run")
    assert "a word" in said.stderr  # and never among what programs read
    assert "a word" not in said.stdout


def test_types_of_two_files_of_one_name():
    for name in ("One", "Two"):
        Path(name).mkdir()
        code = f"from saevx import Spec\nclass {name}(Spec):\n    x: int\n"
        (Path(name) / "same.py").write_text(code)
    runs = [
        Run(name="same", path=str(Path(name, "same.py").resolve()), owner="", began=n)
        for n, name in enumerate(("One", "Two"))
    ]
    declared = Declared(runs)
    assert declared.learn(["One", "Two"])
    assert not declared.learn(["One"])
    gc.collect()
    assert {"One", "Two"} <= known_types().keys()
    assert declared.problems == []
