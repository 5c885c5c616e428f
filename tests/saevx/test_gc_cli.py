"""Collecting, pinning and moving artifacts, on the command line and from notebooks."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

from saevx.cli import main
from saevx.config import open_store

HERE = Path(__file__).resolve().parent

HEAD = f"import sys\nsys.path.insert(0, {str(HERE)!r})\nfrom toy import Number, Square\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAEVX_STORE", raising=False)
    monkeypatch.delitem(sys.modules, "toy", raising=False)
    monkeypatch.syspath_prepend(str(HERE))


def squares(*values: int, name: str = "squares.py", also: str = "") -> str:
    code = f"targets = [Square(number=Number(value=v)) for v in {list(values)}]{also}\n"
    Path(name).write_text(HEAD + code)
    return name


def saevx(*words: str, input: str | None = None) -> Result:
    return CliRunner().invoke(main, list(words), input=input, catch_exceptions=False)


def as_json(*words: str) -> Any:
    return json.loads(saevx(*words, "--json").stdout)


def gc(*words: str) -> Any:
    return as_json("gc", "--grace", "0", "--yes", *words)


def key_of(value: int, type_name: str = "Square") -> str:
    store = open_store()
    for artifact in store.scan():
        spec = artifact.manifest.spec["fields"]
        spec = spec.get("number", {"fields": spec})["fields"]
        if artifact.manifest.type == f"toy.{type_name}" and spec["value"] == value:
            return artifact.key
    raise LookupError(value)


def values() -> list[int]:
    """Of all squares that are there."""
    frames = [a.table("squares") for a in open_store().scan("results")]
    return sorted(round(frame["square"][0] ** 0.5) for frame in frames)


def test_gc_collects_what_the_latest_runs_do_not_want():
    saevx("run", squares(1, 2, 3))
    saevx("run", squares(3, 4, name="other.py"))
    saevx("run", squares(1))
    assert saevx("gc", "--dry-run").stdout.rstrip().endswith("nothing is stale")  # all is young
    shown = saevx("gc", "--grace", "0", "--dry-run", "--all").stdout
    assert "latest run of" in shown
    assert "other.py, finished" in shown
    assert [line.split()[:4] for line in shown.splitlines() if "not reached" in line] == [
        ["checkpoints", "not", "reached", "toy.Number"],
        ["results", "not", "reached", "toy.Square"],
    ]
    assert key_of(2) in shown
    assert values() == [1, 2, 3, 4]
    done = gc()
    assert len(done["moved"]) == 2
    assert values() == [1, 3, 4]
    assert {item["reason"] for item in done["stale"]} == {"not reached"}
    assert gc()["stale"] == []
    for file in ("squares.py", "other.py"):
        assert as_json("run", file)["made"] == 0


def test_gc_asks():
    saevx("run", squares(1))
    saevx("run", squares(2))
    said = saevx("gc", "--grace", "0", input="n\n")
    assert "Move 2 items" in said.stdout
    assert values() == [1, 2]
    said = saevx("gc", "--grace", "0", input="y\n")
    assert "moved 2 items" in said.stdout
    assert "saevx restore KEY" in said.stdout
    assert values() == [2]


def test_ctrl_c_reports_what_was_moved(monkeypatch: pytest.MonkeyPatch):
    saevx("run", squares(1, 2))
    saevx("run", squares(2))
    stop = KeyboardInterrupt()
    with monkeypatch.context() as patch:
        patch.setattr("click.confirm", lambda text: (_ for _ in ()).throw(stop))
        stopped = saevx("gc", "--grace", "0")
    assert stopped.exit_code == 130
    assert "stopped: nothing was moved" in stopped.stderr
    with monkeypatch.context() as patch:
        patch.setattr(
            "store.gc.collector.move_to_trash_if_same", lambda *args: (_ for _ in ()).throw(stop)
        )
        stopped = saevx("gc", "--grace", "0", "--yes")
    assert stopped.exit_code == 130
    assert "what was moved is in the trash" in stopped.stderr
    assert values() == [1, 2]


def test_the_trash_is_restored_and_emptied_after_some_days():
    saevx("run", squares(1))
    key = key_of(1)
    saevx("run", squares(2))
    gc()
    assert "is in the trash; `saevx restore" in saevx("why", key).stderr
    assert "restored" in saevx("restore", key[:8]).stdout
    assert values() == [1, 2]
    assert saevx("restore", key).exit_code == 1
    assert gc()["deleted"]["n"] == 0
    (old, *_) = Path(".saevx/results/.trash").iterdir()
    long_ago = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - 8 * 86400))
    old.rename(old.with_name(f"{key}.{long_ago}.abcdefab"))
    shown = saevx("gc", "--dry-run")
    assert "in the trash" in shown.stdout
    assert gc("--trash-days", "9")["deleted"]["n"] == 0
    assert gc()["deleted"]["n"] == 1
    assert gc("--empty-trash")["deleted"]["n"] == 1  # the Number
    assert list(Path(".saevx").rglob(".trash/*")) == []


def test_pins_keep_and_are_listed():
    saevx("run", squares(1))
    key = key_of(1)
    assert saevx("pin").stdout == "nothing is pinned\n"
    said = saevx("pin", key[:10], "--note", "figure 3")
    assert "pinned toy.Square" in said.stdout
    assert "and 1 that it is made from" in said.stdout
    saevx("run", squares(2))
    assert gc()["stale"] == []
    assert "figure 3" in saevx("pin").stdout
    (listed,) = as_json("pin")
    assert (listed["key"], listed["note"]) == (key, "figure 3")
    why = as_json("why", key_of(1, "Number"), "--grace", "0")
    assert [link["key"] for link in why["chain"]] == [key, key_of(1, "Number")]
    assert "figure 3" in why["root"]
    assert "unpinned" in saevx("unpin", key[:10]).stdout
    assert "no pin begins" in saevx("unpin", key).stderr
    assert len(gc()["moved"]) == 2


def test_why_prints_the_chain_or_the_reason():
    saevx("run", squares(1))
    saevx("run", squares(2))
    alive = saevx("why", "--grace", "0", key_of(2, "Number")).stdout.splitlines()
    assert alive[0].startswith("toy.Number")
    assert "squares.py, finished" in alive[1]
    assert [line.strip()[:9] for line in alive[2:]] == ["└─ toy.Sq", "└─ toy.Nu"]
    stale = saevx("why", "--grace", "0", key_of(1)).stdout
    assert "is stale: not reached" in stale
    assert "no artifact" in saevx("why", "abcdef0123456789").stderr


def test_a_store_without_records_is_not_emptied():
    from toy import Number  # type: ignore[import-not-found]

    import saevx as notebook

    notebook.run([Number(value=1)])
    assert not list(Path(".saevx/.runs").glob("*/*"))  # recorded while it lasted
    refused = saevx("gc", "--grace", "0", "--yes")
    assert refused.exit_code == 1
    assert "no run is recorded" in refused.stderr
    assert len(gc("--unrecorded")["moved"]) == 1


def test_keys_in_the_trash_are_reported():
    saevx("run", squares(*range(20)))
    saevx("run", squares(1))
    moved = gc()["moved"]
    assert "`saevx restore" in saevx("show", moved[0]).stderr
    first = next(key[0] for key in moved if sum(other[0] == key[0] for other in moved) > 1)
    assert "give more digits" in saevx("restore", first).stderr
    assert "nothing in the trash of" in saevx("restore", "f" * 32).stderr


def test_a_forgotten_experiment_keeps_nothing():
    saevx("run", squares(1, name="old.py"))
    saevx("run", squares(2))
    Path("old.py").unlink()
    assert "old.py" in saevx("gc", "--dry-run").stdout
    assert "(no such file here)" in saevx("gc", "--dry-run").stdout
    no = saevx("gc", "--grace", "0", "--forget", "old.py", input="n\n")
    assert "Forget the runs of old.py, and move 2 items" in no.stdout
    assert "old.py, finished" in saevx("gc", "--dry-run").stdout
    gc("--forget", "old.py")
    assert values() == [2]
    assert "old.py" not in saevx("gc", "--dry-run").stdout


def test_a_failed_run_makes_nothing_stale():
    saevx("run", squares(1))
    assert saevx("run", squares(-1, 2)).exit_code == 1
    assert gc()["stale"] == []
    saevx("run", squares(2))
    assert len(gc()["moved"]) == 2
    assert values() == [2]


def test_results_of_older_versions():
    saevx("run", squares(1))
    sys.modules["toy"].Square.version = 2
    key = key_of(1)
    # Still what the latest run wants, and the next run wants another.
    assert gc()["stale"] == []
    saevx("run", squares(2))
    found = as_json("gc", "--grace", "0", "--dry-run")["stale"]
    reasons = {item["type"]: item["reason"] for item in found}
    assert reasons == {"toy.Square": "older version", "toy.Number": "not reached"}
    assert "version 1 of toy.Square" in saevx("why", "--grace", "0", key).stdout


def test_keep_results_evicts_inputs_and_keeps_tables():
    saevx("run", squares(1, 2, also=" + [Number(value=3)]"))
    number, square = key_of(1, "Number"), key_of(1)
    before = as_json("show", number)["provenance"]
    wanted = ("--kind", "checkpoints", "--keep-results")
    shown = saevx("gc", "--grace", "0", *wanted, "--dry-run").stdout
    assert "can be made again" in shown
    assert "kept: 1 artifact, " in shown
    assert "a target of the latest run" in shown
    done = gc(*wanted)
    assert len(done["moved"]) == 2
    assert [item["key"] for item in done["kept"]] == [key_of(3, "Number")]
    # Tables load, show tells where their inputs came from, and a run makes nothing.
    assert values() == [1, 2]
    assert as_json("show", number)["provenance"] == before
    shown = saevx("show", square).stdout
    (line,) = [line for line in shown.splitlines() if "toy.Number value=1" in line]
    assert line.endswith("(given up; a run makes it again)")
    assert "given up by `saevx gc`" in saevx("show", number).stdout
    assert as_json("run", "squares.py")["made"] == 0
    assert gc()["stale"] == []
    # What is needed again is made again, and is no longer given up.
    shutil.rmtree(".saevx/results")
    assert as_json("run", "squares.py")["made"] == 4
    assert "given up" not in saevx("show", square).stdout


def test_what_cannot_be_recomputed_is_kept():
    saevx("run", squares(1))
    sys.modules["toy"].Number.version = 2
    done = gc("--kind", "checkpoints", "--keep-results")
    assert done["moved"] == []
    assert "version 1 of toy.Number, which is at 2" in done["kept"][0]["why"]


def test_an_input_removed_during_a_run_is_recomputed():
    code = """
import shutil, toy
from saevx import recipe
from toy import Number
from saevx import Artifact
from typing import ClassVar

class Root(Artifact):
    kind: ClassVar = "results"
    number: Number
    other: Number

@recipe(Root)
def make_root(batch):
    (spec,) = batch.specs
    path = batch.input(spec.number).path
    if not toy.__dict__.get("purged"):
        toy.purged = True
        shutil.rmtree(path)
    value = batch.input(spec.number).array("value").read()
    batch.draft(spec).write("x", value)
    batch.publish(spec)

targets = [Root(number=Number(value=1), other=Number(value=2))]
"""
    Path("roots.py").write_text(HEAD + code)
    Path("numbers.py").write_text(HEAD + "targets = [Number(value=1)]")
    saevx("run", "numbers.py")
    done = as_json("run", "roots.py")
    assert (done["made"], done["failed"]) == (3, {})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gc", "--keep-results"], "--keep-results needs --kind"),
        (["gc", "--keep-results", "--kind", "results"], "choose another --kind"),
        (["gc", "--json"], "add --dry-run or --yes"),
        (["gc", "--grace", "4 parsecs"], "write 90min, 1h or 7d"),
        (["gc", "--grace", "5"], "write 90min, 1h or 7d"),
        (["export", "ab"], "give either --to FOLDER, a store, or -o FILE"),
        (["import", "ab"], "--from"),
    ],
)
def test_wrong_use(words: list[str], says: str):
    done = saevx(*words)
    assert done.exit_code == 2
    assert says in done.stderr


# Moving artifacts


def test_export_and_import_between_stores():
    saevx("run", squares(1, 2))
    key = key_of(1)
    said = saevx("export", key[:12], "--to", "other", "--parents").stdout
    assert "copied 2 artifacts" in said
    assert as_json("export", key, "--to", "other")["there"] == 1
    done = as_json("import", key, "--from", "other", "--store", "third")
    assert [item["key"] for item in done["copied"]] == [key]
    rows = as_json("ls", "--store", "third")
    assert [row["key"] for row in rows] == [key]
    assert "there is no store" in saevx("import", key, "--from", "nowhere").stderr
    assert "no artifact" in saevx("import", "abcdef012345", "--from", "other").stderr
    # The same specs are found under the same keys.
    assert as_json("run", squares(1), "--store", "other")["made"] == 0


def test_export_of_parents_that_are_gone():
    saevx("run", squares(1))
    shutil.rmtree(".saevx/checkpoints")
    done = as_json("export", key_of(1), "--to", "other", "--parents")
    assert len(done["copied"]) == 1
    assert [item["kind"] for item in done["absent"]] == ["checkpoints"]


def test_tables_as_files():
    saevx("run", squares(1, 2))
    one, two = key_of(1), key_of(2)
    assert "a table of 1 x 2" in saevx("export", one, "-o", "a.csv").stdout
    assert pl.read_csv("a.csv").columns == ["square", "pid"]
    for name, read in (
        ("a.csv", pl.read_csv),
        ("a.parquet", pl.read_parquet),
        ("a.json", pl.read_json),
    ):
        saevx("export", one, two, "-o", name)
        frame = read(name)
        assert frame["key"].to_list() == [one, two]
        assert frame["value"].to_list() == [1, 2]
        assert frame["square"].to_list() == [1, 4]
    assert pl.read_csv("a.csv").height == 2
    assert saevx("export", one, "-o", "a.csv", "--spec").exit_code == 0
    assert pl.read_csv("a.csv")["value"].to_list() == [1]
    assert sorted(os.listdir(".")) == [".saevx", "a.csv", "a.json", "a.parquet", "squares.py"]


def test_arrays_as_a_file():
    from safetensors import safe_open

    saevx("run", squares(5))
    saevx("export", key_of(5, "Number"), "-o", "number.safetensors")
    with safe_open("number.safetensors", "numpy") as file:
        assert list(file.keys()) == ["value"]
        assert np.array_equal(file.get_tensor("value"), np.arange(1000) + 5)
        assert json.loads(file.metadata()["saevx"])["key"] == key_of(5, "Number")


def test_arrays_of_all_types_and_shapes_as_a_file(tmp_path: Path):
    from safetensors.numpy import load_file

    from saevx.query.export import write_file
    from store import Store

    rng = np.random.default_rng(0)
    names = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64"
    arrays = {name: rng.integers(0, 2, (7, 3)).astype(name) for name in names.split()}
    arrays |= {"empty": np.zeros((0, 4), "f4"), "one": np.ones(1), "a/b": rng.random((2, 3, 4, 5))}
    with Store(tmp_path / "s").draft("checkpoints", "a" * 32) as draft:
        for name, values in arrays.items():
            draft.write(name, values)
        artifact = draft.publish(
            type="T", version=1, canonical="", spec={}, parents={}, provenance={}
        )
    write_file([artifact], tmp_path / "all.safetensors")
    found = load_file(tmp_path / "all.safetensors")
    assert found.keys() == arrays.keys()
    for name, values in arrays.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name], values)


@pytest.mark.parametrize(
    ("type_name", "file", "says"),
    [
        ("Number", "a.csv", "has no table: write its arrays to a .safetensors file"),
        ("Square", "a.safetensors", "has no arrays; write its table"),
        ("Square", "a.xlsx", "use one of .csv, .parquet, .json, .safetensors"),
        ("Square", "nowhere/a.csv", "cannot write nowhere/a.csv"),
    ],
)
def test_unsupported_exports_are_refused(type_name: str, file: str, says: str):
    saevx("run", squares(1))
    done = saevx("export", key_of(1, type_name), "-o", file)
    assert done.exit_code == 1
    assert says in done.stderr
    assert not Path(file).exists()


def test_results_survive_the_purge_of_a_kind_elsewhere():
    roots = "[store]\nroot = 'mine'\nroots = { checkpoints = 'scratch' }\n"
    Path("saevx.toml").write_text(roots)
    saevx("run", squares(1, 2))
    assert len(list(Path("scratch/checkpoints").glob("??/*"))) == 2
    shutil.rmtree("scratch")
    assert values() == [1, 2]
    assert as_json("run", "squares.py")["made"] == 0
    assert "(not in the store any more)" in saevx("show", key_of(1)).stdout
    assert gc()["stale"] == []
    assert values() == [1, 2]
