"""An artifact of a newer layout: `ls` counts it, `doctor` warns of it, `gc` refuses the store."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from saevx import table
from saevx.cli import main
from saevx.query.search import search
from store import LAYOUT, NewerLayout, Store
from store.artifact.manifest import encode_manifest

A, B, C = (f"{digit}{'0' * 31}" for digit in "abc")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A table made from shards of a newer layout, and a table by itself."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setenv("SAEVX_STORE", str(tmp_path / "store"))
    store = Store(tmp_path / "store")

    def put(kind: str, type_name: str, key: str, **parents: str) -> None:
        with store.draft(kind, key) as draft:
            draft.publish(
                type=type_name,
                version=1,
                canonical=key,
                spec={"type": type_name, "fields": {"layer": len(parents)}},
                parents={name: {"kind": "shards", "key": k} for name, k in parents.items()},
                provenance={},
            )
        os.utime(store.root / kind / key[:2] / key, (1e9, 1e9))

    put("shards", "Shards", A)
    put("results", "Table", B, shards=A)
    put("results", "Table", C)
    artifact = store.open("shards", A)
    newer = msgspec.structs.replace(artifact.manifest, layout=LAYOUT + 1)
    (artifact.path / "zarr.json").write_bytes(encode_manifest(newer))
    return store


def saevx(*words: str) -> Result:
    return CliRunner().invoke(main, list(words), catch_exceptions=False)


def as_json(*words: str) -> Any:
    return json.loads(saevx(*words, "--json").stdout)


def test_ls_lists_the_others_and_counts_it(store: Store):
    result = saevx("ls")
    assert result.exit_code == 0
    *_, total, newer = result.stdout.splitlines()
    assert total.startswith("2 artifacts, ")
    assert newer.startswith("1 more cannot be read: ")
    assert "written by a later saevx" in newer
    assert "Upgrade saevx" in newer
    assert {row["key"] for row in as_json("ls")} == {B, C}
    assert {row["key"] for row in as_json("ls", "--where", "layer=1")} == {B}


def test_only_tables_of_its_kind_are_refused(store: Store):
    assert len(search(store, kind="results").rows) == 2
    assert len(search(store, kind="shards").newer) == 1
    for kind in ("shards", None):
        with pytest.raises(NewerLayout, match="Upgrade saevx"):
            table(store=str(store.root), spec="Shards", kind=kind)


def test_gc_refuses_the_store(store: Store):
    for words in (["--dry-run"], ["--yes", "--unrecorded"]):
        refused = saevx("gc", *words)
        assert refused.exit_code == 1
        assert "written by a later saevx" in refused.stderr
        assert "Upgrade saevx" in refused.stderr
    assert {row["key"] for row in as_json("ls")} == {B, C}


def test_show_reports_it(store: Store):
    assert "upgrade saevx" in saevx("show", "b").stdout
    refused = saevx("show", "a")
    assert refused.exit_code == 1
    assert "Upgrade saevx" in refused.stderr


def test_doctor_warns_and_mends_nothing(store: Store):
    (store.root / "results" / "b0" / B / "zarr.json").unlink()
    found = [f for f in as_json("doctor") if f["topic"] == "newer layout"]
    assert [(f["severity"], f["key"]) for f in found] == [("warning", A)]
    assert "upgrade saevx" in found[0]["advice"]
    refused = saevx("doctor", "--fix")
    assert refused.exit_code == 1
    assert "nothing was fixed" in refused.stderr
    assert "Upgrade saevx" in refused.stderr
    assert (store.root / "results" / "b0" / B).is_dir()
