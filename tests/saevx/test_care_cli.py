"""Commands on artifacts that are damaged, purged, in the trash, or cannot be copied."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from saevx.cli import main
from store import Store, StoredArtifact
from store.io import digest


def document(kind: str, type_name: str, **fields: Any) -> dict[str, Any]:
    """The document of a spec, with a key that follows from it."""
    body = {"type": type_name, "kind": kind, "version": 1, "fields": fields}
    return body | {"key": digest(json.dumps(body).encode())}


SHARDS = document("shards", "Acts", layer=3, vit={"type": "ViT", "fields": {"name": "tiny"}})
CODE = document("checkpoints", "Code", acts=SHARDS, n=7)
MIXED = document("checkpoints", "Mix", parts=[CODE], share=0.5)
TABLE = document("results", "Table", mix=MIXED, top=2)
CHAIN = (SHARDS, CODE, MIXED, TABLE)

PROVENANCE = {
    "host": "vm",
    "packages": {"numpy": "2.1.0", "torch": "2.6.0"},
    "parts": {"n": 4, "hosts": ["a", "b"], "code": [{"commit": "0123", "dirty": True}]},
    "codes": [{"commit": "4567"}, {"commit": "89ab"}],
}


def put(store: Store, spec: dict[str, Any], parent: dict[str, Any] | None = None) -> None:
    below = {"kind": parent["kind"], "key": parent["key"]} if parent else None
    body = {name: value for name, value in spec.items() if name != "key"}
    with store.draft(spec["kind"], spec["key"]) as draft:
        draft.write("x", np.arange(100))
        draft.publish(
            type=spec["type"],
            version=1,
            canonical=json.dumps(body),
            spec=spec,
            parents={"below": below} if below else {},
            provenance=PROVENANCE,
        )


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A table, and all that it was made from."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAEVX_STORE", "store")
    store = Store("store")
    for spec, parent in zip(CHAIN, (None, *CHAIN), strict=False):
        put(store, spec, parent)
    return store


def saevx(*words: str) -> Result:
    return CliRunner().invoke(main, list(words), catch_exceptions=False)


def as_json(*words: str) -> Any:
    return json.loads(saevx(*words, "--json").stdout)


def stored(store: Store, spec: dict[str, Any]) -> StoredArtifact:
    return store.open(spec["kind"], spec["key"])


def tree(spec: dict[str, Any]) -> list[str]:
    return saevx("show", spec["key"]).stdout.split("\n\n")[0].splitlines()


def short(spec: dict[str, Any]) -> str:
    return str(spec["key"][:8])


def test_provenance_survives_a_purge(store: Store):
    whole = tree(TABLE)
    assert len(whole) == 4
    for kind in ("shards", "checkpoints"):
        shutil.rmtree(store.root / kind)
    gone = "(not in the store any more)"
    expected = [whole[0], *(f"{line.replace('●', '○')}  {gone}" for line in whole[1:])]
    assert tree(TABLE) == expected
    assert whole[-1].endswith(f"● Acts layer=3 vit=ViT(name=tiny)  {short(SHARDS)}")


def test_show_marks_present_inputs_of_missing_artifacts(store: Store):
    shutil.rmtree(stored(store, CODE).path)
    shutil.rmtree(stored(store, MIXED).path)
    lines = tree(TABLE)
    assert [line.strip("└─ ").split()[0] for line in lines] == ["●", "○", "○", "●"]


def test_show_prints_nested_provenance_one_fact_a_line(store: Store):
    shown = saevx("show", TABLE["key"]).stdout.splitlines()
    facts = dict(line.split(None, 1) for line in shown[6:] if len(line.split(None, 1)) == 2)
    assert facts["parts.hosts"] == "a, b"
    assert (facts["parts.code.commit"], facts["parts.code.dirty"]) == ("0123", "True")
    assert (facts["codes[0].commit"], facts["codes[1].commit"]) == ("4567", "89ab")
    assert facts["packages"] == "numpy 2.1.0, torch 2.6.0"


def cut(artifact: StoredArtifact) -> None:
    (artifact.path / "x" / "c.0").write_bytes(b"")


def lose_manifest(artifact: StoredArtifact) -> None:
    (artifact.path / "zarr.json").unlink()


def spoil_manifest(artifact: StoredArtifact) -> None:
    (artifact.path / "zarr.json").write_bytes(b"{}")


def pinned(store: Store) -> None:
    assert saevx("pin", TABLE["key"]).exit_code == 0


HARMS = [cut, lose_manifest, spoil_manifest]


@pytest.mark.parametrize("harm", HARMS)
def test_all_commands_report_damage_alike(store: Store, harm: Callable[[StoredArtifact], None]):
    pinned(store)
    harm(stored(store, CODE))
    fault = store.absence("checkpoints", CODE["key"])
    assert fault is not None
    assert fault.startswith("damaged: ")
    shown = saevx("show", CODE["key"])
    said = shown.stdout + shown.stderr
    assert fault in said
    assert "the next run that needs it makes it again" in said
    assert "not in the store" not in said
    assert "saevx restore" not in said
    (line,) = [line for line in tree(TABLE) if short(CODE) in line]
    assert f"○ Code n=7  {short(CODE)}  ({fault})" in line
    assert tree(TABLE)[-1].endswith(f"● Acts layer=3 vit=ViT(name=tiny)  {short(SHARDS)}")
    for command in ("pin", "export"):
        refused = saevx(command, CODE["key"], *(["--to", "other"] if command == "export" else []))
        assert refused.exit_code == 1
        assert fault in refused.stderr
    assert [pin["key"] for pin in as_json("pin")] == [TABLE["key"]]
    young = as_json("why", CODE["key"])
    assert (young["fault"], young["present"], young["reason"]) == (fault, False, None)
    assert saevx("why", CODE["key"]).stdout.splitlines()[-1].startswith(f"it is {fault}")
    assert as_json("why", CODE["key"], "--grace", "0")["reason"] == "failed check"


@pytest.mark.parametrize("harm", HARMS)
def test_restore_is_only_offered_for_intact_artifacts(
    store: Store, harm: Callable[[StoredArtifact], None]
):
    pinned(store)
    harm(stored(store, CODE))
    said = saevx("gc", "--grace", "0", "--yes").stdout
    assert "moved 1 item" in said
    assert "saevx restore" not in said
    saevx("unpin", TABLE["key"])  # `why` tells of what is pinned although it is not there
    for words in (["show"], ["why", "--grace", "0"]):
        refused = saevx(*words, CODE["key"])
        assert refused.exit_code == 1
        assert "is in the trash and damaged: " in refused.stderr
        assert "saevx restore" not in refused.stderr
    assert saevx("restore", CODE["key"]).exit_code == 1


def test_restore_is_offered_if_one_of_several_is_intact(store: Store):
    cut(stored(store, CODE))
    key = CODE["key"]
    saevx("gc", "--grace", "0", "--yes", "--unrecorded", "--kind", "checkpoints")
    put(store, CODE, SHARDS)
    said = saevx("gc", "--grace", "0", "--yes", "--unrecorded").stdout
    assert "restore KEY` brings an artifact back" in said
    assert f"`saevx restore {key}`" in saevx("show", key).stderr
    assert as_json("restore", key) == {
        "kind": "checkpoints",
        "key": key,
        "path": str(stored(store, CODE).path),
    }


def test_json_of_show_has_the_fault(store: Store):
    assert as_json("show", CODE["key"])["fault"] is None
    cut(stored(store, CODE))
    assert as_json("show", CODE["key"])["fault"].startswith("damaged: x/c.0 is ")


def test_json_of_unpin(store: Store):
    saevx("pin", TABLE["key"], "--note", "figure 3")
    assert as_json("unpin", TABLE["key"][:9]) == {
        "kind": "results",
        "key": TABLE["key"],
        "note": "figure 3",
    }
    assert "no pin begins" in as_json("unpin", TABLE["key"])["error"]


def test_copies_continue_after_one_fails(store: Store):
    file = stored(store, CODE).path / "x" / "c.0"
    file.write_bytes(bytes(len(file.read_bytes())))  # of the same size
    cut(stored(store, MIXED))
    words = ["export", "0000000", CODE["key"], MIXED["key"], TABLE["key"], "--to", "other"]
    done = saevx(*words, "--parents")
    assert done.exit_code == 1
    assert done.stdout.startswith("copied 2 artifacts, ")
    assert sorted(a.manifest.type for a in Store("other").scan()) == ["Acts", "Table"]
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("not copied: 0000000: no artifact in")
    assert lines[1].startswith(f"not copied: checkpoints {MIXED['key']}: it is damaged: x/c.0")
    assert lines[2].startswith(f"not copied: checkpoints {CODE['key']}: ")
    assert "digest differs" in lines[2]
    assert "othing was copied" not in done.stderr
    again = saevx(*words, "--json")
    assert again.exit_code == 1
    told = json.loads(again.stdout)
    assert [(item["kind"], item["key"]) for item in told["failed"]] == [
        (None, "0000000"),
        ("checkpoints", MIXED["key"]),
        ("checkpoints", CODE["key"]),
    ]
    assert (told["copied"], told["there"]) == ([], 1)


def test_imports_continue_after_one_fails(store: Store):
    cut(stored(store, CODE))
    words = ["import", CODE["key"], SHARDS["key"], "--from", "store", "--store", "mine"]
    assert saevx(*words).exit_code == 1
    assert [a.manifest.type for a in Store("mine").scan()] == ["Acts"]


def test_forget_refuses_a_file_without_recorded_runs(store: Store):
    from store.gc.roots import RunRecording

    for name in ("squares", "cubes"):
        recording = RunRecording(store, Path(f"{name}.py"), name)
        recording.add_targets([("results", TABLE["key"])], {("results", TABLE["key"]): ()})
        recording.complete()
    before = sorted(store.root.rglob(".runs/*/*"))
    for words in (["--yes"], ["--dry-run"]):
        said = saevx("gc", "--grace", "0", "--forget", "suares.py", *words)
        assert said.exit_code == 1
        assert f"no run of {Path('suares.py').resolve()} is recorded" in said.stderr
        for name in ("squares", "cubes"):
            assert str(Path(f"{name}.py").resolve()) in said.stderr
    assert sorted(store.root.rglob(".runs/*/*")) == before
    saevx("gc", "--forget", "cubes.py", "--yes")
    assert len(list(store.root.rglob(".runs/*/*"))) == 1
