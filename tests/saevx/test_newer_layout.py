"""One artifact of a newer layout stops neither listing, nor collecting, nor the doctor."""

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


def test_it_is_listed_with_what_to_do(store: Store):
    result = saevx("ls")
    assert result.exit_code == 0
    head, *lines, total, advice = result.stdout.splitlines()
    assert head.split() == ["key", "kind", "type", "size", "age", "state", "fields"]
    (line,) = [line for line in lines if "newer layout" in line]
    assert line.split()[:3] == ["a0000000", "shards", "Shards"]
    assert total.startswith("3 artifacts, ")
    assert advice == ("1 in a newer layout, written by a later saevx: upgrade saevx to read it")
    rows = {row["key"]: row for row in as_json("ls")}
    assert [rows[key]["state"] for key in (A, B, C)] == ["newer layout", None, None]
    assert rows[A]["version"] is None
    assert rows[A]["fields"] == {}


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["--kind", "shards"], {A}),
        (["--type", "Shards"], {A}),
        (["--type", "Table"], {B, C}),
        (["--where", "layer=1"], {B}),
        (["--where", "state=newer layout"], {A}),
        (["--older"], set()),
        (["--sort", "layer"], {A, B, C}),
        (["--sort", "-size", "--limit", "1"], {A}),
    ],
)
def test_it_is_found_by_what_is_known_of_it(store: Store, words: list[str], keys: set[str]):
    assert {row["key"] for row in as_json("ls", *words)} == keys
    assert saevx("ls", *words).exit_code == 0


def test_fields_show_as_without_it(store: Store):
    head, *lines, _, _ = saevx("ls", "--columns", "layer").stdout.splitlines()
    assert head.split()[-1] == "layer"
    assert sorted(line.split()[-1] for line in lines if "Table" in line) == ["0", "1"]


def test_tables_are_refused_only_where_it_may_be_among_them(store: Store):
    assert {row.entry.key for row in search(store, type="Table").rows} == {B, C}
    with pytest.raises(NewerLayout, match="Upgrade saevx"):
        search(store)
    with pytest.raises(NewerLayout, match="Upgrade saevx"):
        table(store=str(store.root), spec="Shards", kind="shards")


def test_gc_goes_on_and_leaves_it_alone(store: Store):
    said = saevx("gc", "--dry-run", "--all").stdout
    assert "1 artifact in a newer layout" in said
    assert [item["key"] for item in as_json("gc", "--dry-run")["stale"]] == [B, C]
    done = as_json("gc", "--yes", "--unrecorded")
    assert sorted(done["moved"]) == [B, C]
    assert (store.root / "shards" / "a0" / A).is_dir()


def test_why_and_show_tell_of_it(store: Store):
    assert "written by a later saevx" in saevx("why", "a").stdout
    assert as_json("why", "a")["alive"]
    assert "upgrade saevx" in saevx("show", "b").stdout
    refused = saevx("show", "a")
    assert refused.exit_code == 1
    assert "Upgrade saevx" in refused.stderr


def test_the_doctor_warns(store: Store):
    found = [f for f in as_json("doctor") if f["topic"] == "newer layout"]
    assert [(f["severity"], f["key"]) for f in found] == [("warning", A)]
    assert "upgrade saevx" in found[0]["advice"]
    assert not [f for f in as_json("doctor") if f["topic"] == "missing inputs"]
