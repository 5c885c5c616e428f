"""A store that an earlier version wrote is listed, loaded, checked, collected and used again.

tests/data/store-layout-1.tar.gz holds the files of two experiments and their store: artifacts of
built-in and of user-declared types, the records of an inline run and of a run by local jobs, a
pin, evicted shards, and a trash.
"""

from __future__ import annotations

import json
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import saevx as api
from saevx.cli import main
from store import Store

from .cub_tree import make_cub

ARCHIVE = Path(__file__).parents[1] / "data" / "store-layout-1.tar.gz"

FORMER_HOME = "/data/study"
"""Where the store lay when it was written."""

ARTIFACTS = {
    "RandomPrototypes": ["6baf6e2c59bdf72a6f7f14eb0040d432", "b48859813df42b14fe7cd66d1b639016"],
    "ImageScores": [
        "1c1309754a563c2eb3e6087904db5efb",
        "4a4d844c7a10bda34dd35ff34c595499",
        "a1ab5c5e48b468d9bc3cd33e8bab9b8f",
        "d14d9ff770730b5d12f4e8abc845e45b",
    ],
    "TraitAP": ["1ca25239794ba722213f70a1ed8a4994", "4513f808828b99104fcc301dc4df4823"],
    "Number": [
        "59c28f328b732fed4caeac2574dd518e",
        "cf89b482b4a21fbfafa960f3913b43a6",
        "e8239c1946b01aa34aa8d49509a4c659",
    ],
    "Square": [
        "3e7140bc9f3d30fbbd75dfddae1f3c79",
        "8768e8b5e13681f75868899e34d71bb6",
        "ff24f05b557487e82712348e6e93be1a",
    ],
}
KEYS = {key for keys in ARTIFACTS.values() for key in keys}
EVICTED = {
    "0602729db160b638a58d185cbc62904d",
    "85b3268433dd4144e74ad429233f5969",
    "ade130681b95436fcda57d0b78c33070",
    "c8eef6e48af5784509b065a0ac94d97a",
}
PINNED = "4513f808828b99104fcc301dc4df4823"
OF_THE_PIN = {
    PINNED,
    "a1ab5c5e48b468d9bc3cd33e8bab9b8f",
    "1c1309754a563c2eb3e6087904db5efb",
    "b48859813df42b14fe7cd66d1b639016",
}


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The unpacked store, in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAEVX_STORE", raising=False)
    monkeypatch.delitem(sys.modules, "toy", raising=False)
    last_month = time.time() - 30 * 86400

    def aged(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        """Let nothing be young, and no run of another host count as one that may continue."""
        return tarfile.data_filter(member.replace(mtime=min(member.mtime, last_month)), path)

    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter=aged)
    return Store(tmp_path / "store")


def saevx(*words: str) -> Result:
    return CliRunner().invoke(main, list(words), catch_exceptions=False)


def as_json(*words: str) -> Any:
    return json.loads(saevx(*words, "--json").stdout)


def gc(*words: str) -> Any:
    return as_json("gc", "--grace", "0", "--trash-days", "1000000", "--yes", *words)


def errors() -> list[dict[str, Any]]:
    return [finding for finding in as_json("doctor", "--deep") if finding["severity"] == "error"]


def test_ls_lists_its_keys_fields_and_facts():
    rows = {row["key"]: row for row in as_json("ls")}
    listed = {name: sorted(k for k in rows if rows[k]["type"] == name) for name in ARTIFACTS}
    assert listed == ARTIFACTS
    assert rows.keys() == KEYS
    table = rows[PINNED]
    assert (table["kind"], table["version"], table["state"]) == ("results", 1, None)
    assert (table["n_bytes"], table["created"]) == (11273, "2026-11-26T00:10:02.803+00:00")
    assert (table["fields"]["layer"], table["fields"]["n_train"]) == (1, 8)
    assert table["fields"]["mean_ap"] == pytest.approx(0.3478053350970018)
    assert [row["key"] for row in as_json("ls", "--where", "value=2", "--type", "Square")] == [
        "8768e8b5e13681f75868899e34d71bb6"
    ]


def test_show_tells_where_artifacts_came_from():
    for key in KEYS | EVICTED:
        provenance = as_json("show", key)["provenance"]
        assert (provenance["host"], provenance["packages"]["saevx"]) == ("lab1", "0.1.0")
    tree = saevx("show", PINNED).stdout.split("\n\n")[0]
    assert all(key[:8] in tree for key in OF_THE_PIN)
    assert tree.count("○ Shards") == 3  # the evicted ones, one of them named twice
    assert "figure 1" in saevx("pin").stdout
    assert PINNED[:8] in saevx("why", "--grace", "0", "a1ab5c5e").stdout


def test_tables_and_arrays_load_by_key():
    table = api.load(PINNED)
    assert table.height == 6
    assert table["ap"].mean() == pytest.approx(0.3478053350970018)
    squares = [api.load(key)["square"][0] for key in ARTIFACTS["Square"]]
    assert sorted(squares) == [1, 4, 9]
    number = Store("store").open("checkpoints", "e8239c1946b01aa34aa8d49509a4c659")
    assert np.array_equal(number.array("value").read(), np.arange(1000) + 1)


def test_doctor_finds_no_error():
    assert errors() == []
    assert "14 whole manifests, every byte read: 0 errors" in saevx("doctor", "--deep").stdout


def test_gc_keeps_what_runs_and_pins_need(store: Store):
    done = gc()
    assert (done["alive"]["n"], done["stale"], done["moved"]) == (14, [], [])
    assert {artifact.key for artifact in store.scan()} == KEYS
    done = gc("--forget", f"{FORMER_HOME}/layers.py")
    assert set(done["moved"]) == KEYS - OF_THE_PIN - {
        *ARTIFACTS["Number"],
        *ARTIFACTS["Square"],
    }
    gc("--forget", f"{FORMER_HOME}/numbers_study.py")
    assert {artifact.key for artifact in store.scan()} == OF_THE_PIN
    saevx("unpin", PINNED)
    gc("--unrecorded")
    assert list(store.scan()) == []


def test_its_trash_is_restored(store: Store):
    manifests = store.root.glob("*/.trash/*/zarr.json")
    trashed = {file.parent.name.partition(".")[0] for file in manifests}
    for key in trashed:
        assert saevx("restore", key).exit_code == 0
    assert {artifact.key for artifact in store.scan()} == KEYS | trashed
    assert trashed >= EVICTED
    assert errors() == []


def test_status_and_logs_show_its_run_by_jobs(store: Store):
    (log,) = as_json("logs", "ff24f05b")
    assert log["job"] == "12187"
    assert log["text"].endswith("Square ff24f05b557487e82712348e6e93be1a: made\n")
    assert saevx("logs", "ff24f05b").stdout == log["text"]
    assert as_json("status") == []  # it has ended
    next(store.root.glob(".jobs/*/ended")).unlink()
    (run,) = as_json("status")
    assert (run["name"], run["executor"], run["user"]) == ("numbers_study", "local", "root")
    assert run["artifacts"] == {"made": 6, "error": 1}
    (failed,) = run["elements"]
    assert failed["told"] == "-1 is below zero: use a positive number"


def test_specs_have_new_keys_and_former_artifacts_stay():
    """Keys changed once: images count by content, and users' types by namespace."""
    make_cub(Path("cub"))
    assert as_json("run", "layers.py")["made"] == 12
    assert as_json("run", "layers.py")["made"] == 0
    assert {row["key"] for row in as_json("ls")} > KEYS
