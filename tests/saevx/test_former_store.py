"""A store that an earlier version wrote is listed, loaded, checked, collected and used again.

tests/data/store-layout-1.tar.gz holds the files of two experiments and their store: artifacts of
built-in and of user-declared types, the records of an inline run and of a run by local jobs, a
pin of a table and one of its recordings, other recordings evicted, and a trash.
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
    "Shards": ["ed0f536b73ee0786e095a56f20459ce8"],
    "RandomPrototypes": ["8cabda8614d291d67304a8b9993a3e93", "d37847a4efb755efa9a34e463fbe138d"],
    "ImageScores": [
        "4feb105bb1703cf82764acb3b353f7a7",
        "538c7969836f274c7f4f2651ffdf2abe",
        "7231ccb4dd961cd651be9f275f1e3aa3",
        "f36ad0e770b759df9b23bfb9f780bbe7",
    ],
    "TraitAP": ["40bf90f65d2284d08bdeb27b1dff229b", "b65663872b8904c53d0e22d4036727b0"],
    "toy.Number": [
        "286bce11555d9b63f125b4c5d010d4b2",
        "df92399e1bbff885a40b6dc398fff64e",
        "ec3df2001f2c3f5ae9f89b22a53e5527",
    ],
    "toy.Square": [
        "46aed23c430a3eb7e25728153def528b",
        "98fe56d6c3193aeef65e5211fb86425b",
        "f1d073e353dff75f59f2a754d3d1ea00",
    ],
}
KEYS = {key for keys in ARTIFACTS.values() for key in keys}
EVICTED = {
    "5550340ff0dcc612ecf3942868e39785",
    "e06db06fd30945687a03c62ebdd41c26",
    "f73b5572acc60367415e6faf6ef91cd3",
}
PINNED = "b65663872b8904c53d0e22d4036727b0"
(SHARDS,) = ARTIFACTS["Shards"]
"""Pinned too."""
OF_THE_PIN = {
    PINNED,
    SHARDS,
    "4feb105bb1703cf82764acb3b353f7a7",
    "538c7969836f274c7f4f2651ffdf2abe",
    "8cabda8614d291d67304a8b9993a3e93",
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
    assert (table["n_bytes"], table["created"]) == (12368, "2026-11-27T20:47:06.591+00:00")
    assert (table["fields"]["layer"], table["fields"]["n_train"]) == (1, 8)
    assert table["fields"]["mean_ap"] == pytest.approx(0.3478053350970018)
    assert [row["key"] for row in as_json("ls", "--where", "value=2", "--type", "toy.Square")] == [
        "f1d073e353dff75f59f2a754d3d1ea00"
    ]


def test_show_tells_where_artifacts_came_from():
    for key in KEYS | EVICTED:
        provenance = as_json("show", key)["provenance"]
        assert (provenance["host"], provenance["packages"]["saevx"]) == ("lab1", "0.1.0")
    tree = saevx("show", PINNED).stdout.split("\n\n")[0]
    assert all(key[:8] in tree for key in OF_THE_PIN)
    assert tree.count("○ Shards") == 1  # of its two recordings, one is evicted
    assert "figure 1" in saevx("pin").stdout
    assert PINNED[:8] in saevx("why", "--grace", "0", "4feb105b").stdout


def test_tables_and_arrays_load_by_key():
    table = api.load(PINNED)
    assert table.height == 6
    assert table["ap"].mean() == pytest.approx(0.3478053350970018)
    squares = [api.load(key)["square"][0] for key in ARTIFACTS["toy.Square"]]
    assert sorted(squares) == [1, 4, 9]
    number = Store("store").open("checkpoints", "ec3df2001f2c3f5ae9f89b22a53e5527")
    assert np.array_equal(number.array("value").read(), np.arange(1000) + 1)


def test_doctor_finds_no_error():
    assert errors() == []
    assert "15 whole manifests, every byte read: 0 errors" in saevx("doctor", "--deep").stdout


def test_gc_keeps_what_runs_and_pins_need(store: Store):
    done = gc()
    assert (done["alive"]["n"], done["stale"], done["moved"]) == (15, [], [])
    assert {artifact.key for artifact in store.scan()} == KEYS
    done = gc("--forget", f"{FORMER_HOME}/layers.py")
    assert set(done["moved"]) == KEYS - OF_THE_PIN - {
        *ARTIFACTS["toy.Number"],
        *ARTIFACTS["toy.Square"],
    }
    gc("--forget", f"{FORMER_HOME}/numbers_study.py")
    assert {artifact.key for artifact in store.scan()} == OF_THE_PIN
    saevx("unpin", PINNED)
    saevx("unpin", SHARDS)
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
    (log,) = as_json("logs", "f1d073e3")
    assert log["job"] == "19495"
    assert log["text"].endswith("Square f1d073e353dff75f59f2a754d3d1ea00: made\n")
    assert saevx("logs", "f1d073e3").stdout == log["text"]
    assert as_json("status") == []  # it has ended
    next(store.root.glob(".jobs/*/ended")).unlink()
    (run,) = as_json("status")
    assert (run["name"], run["executor"], run["user"]) == ("numbers_study", "local", "root")
    assert run["artifacts"] == {"made": 6, "error": 1}
    (failed,) = run["elements"]
    assert failed["told"] == "-1 is below zero: use a positive number"


def test_its_experiments_find_what_they_made():
    """Keys stay: nothing is made again, but for the target that failed."""
    make_cub(Path("cub"))
    assert as_json("run", "layers.py")["made"] == 0
    assert as_json("run", "numbers_study.py")["made"] == 0


def test_its_tokens_load():
    tokens = api.load(SHARDS)
    assert len(tokens) == tokens.n_tokens == 48
    assert tokens.patches[:].shape == (12, 4, 192)
    of_image = tokens.patches[3]
    first, end = tokens.indptr[3:5]
    assert np.array_equal(of_image, tokens.flat[first:end])
    variance = tokens.flat[:].astype(np.float64).var(axis=0).sum()
    attributes = Store("store").open("shards", SHARDS).manifest.attributes
    assert variance == pytest.approx(attributes["variance"], rel=1e-3)
