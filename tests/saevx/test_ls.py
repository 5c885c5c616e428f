"""saevx ls, on a store that holds every kind of difference."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from saevx.cli import main
from saevx.cli.common.columns import cut, lay_out
from saevx.cli.common.units import age, cell, size
from store import Store, StoredArtifact

HERE = Path(__file__).resolve().parent


def put(
    store: Store, kind: str, type_name: str, version: int = 1, fields: Any = None, **attributes: Any
) -> str:
    """An artifact with the spec's document that a recipe would write; its key."""
    key = f"{put.n:02x}{put.n * 7919 % 16**6:06x}{put.n:024x}"  # type: ignore[attr-defined]
    put.n += 1  # type: ignore[attr-defined]
    document = {
        "type": type_name,
        "kind": kind,
        "version": version,
        "key": key,
        "fields": fields or {},
    }
    with store.draft(kind, key) as draft:
        draft.publish(
            type=type_name,
            version=version,
            canonical=key,
            spec=document,
            parents={},
            provenance={},
            attributes=attributes,
        )
    return key


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("ls") / "store")
    put.n = 1  # type: ignore[attr-defined]
    vit = {"type": "ViT", "fields": {"name": "vit_tiny"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        for layer in (3, 5):
            put(store, "shards", "Shards", fields={"vit": vit, "layer": layer}, n_images=9)
        for n_train in (16, None):
            for layer in (3, 5, 12):
                fields = {"layer": layer, "n_train": n_train, "vit": vit, "exact": layer == 5}
                put(store, "results", "TraitAP", 2, fields, mean_ap=layer / 9, n_traits=31)
        put(store, "results", "TraitAP", 1, {"layer": 7, "n_train": 16, "vit": vit}, mean_ap=0.7)
    return store


@pytest.fixture
def saevx(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("SAEVX_STORE", str(store.root))

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, ["ls", *words], catch_exceptions=False)

    return run


@pytest.fixture
def rows(saevx: Callable[..., Result]) -> Callable[..., list[dict[str, Any]]]:
    return lambda *words: json.loads(saevx(*words, "--json").stdout)


def test_the_whole_listing(saevx: Any, store: Store):
    head, *lines, total = saevx().stdout.splitlines()
    assert head.split() == ["key", "kind", "type", "size", "age", "state", "fields"]
    assert len(lines) == 9
    assert lines[0].split() == ["01001eef", "shards", "Shards", "0", "B", "0", "s", "layer=3"]
    assert lines[2].endswith("layer=3 n_train=16 exact=false mean_ap=0.3333 n_traits=31")
    assert lines[-1].endswith("older version  layer=7 n_train=16 mean_ap=0.7")
    assert total == f"9 artifacts, 0 B in {store.root}"
    assert not [line for line in (head, *lines) if line != line.rstrip()]


def test_differences_within_one_type_are_columns(saevx: Any):
    head, *lines, _ = saevx("--type", "TraitAP", "--where", "version=2").stdout.splitlines()
    assert head.split() == ["key", "type", "size", "age", "layer", "n_train", "exact", "mean_ap"]
    assert [line.split()[-4:] for line in lines[:4]] == [
        ["3", "16", "false", "0.3333"],
        ["5", "16", "true", "0.5556"],
        ["12", "16", "false", "1.333"],
        ["3", "null", "false", "0.3333"],
    ]
    assert len({line.index(lines[0].split()[1]) for line in lines}) == 1
    assert len({len(line) for line in lines}) == 1


def test_a_single_artifact_shows_its_own_fields(saevx: Any):
    head, line, _ = saevx("--where", "layer=3", "--kind", "shards").stdout.splitlines()
    assert head.split() == ["key", "type", "size", "age", "vit", "layer", "n_images"]
    assert line.split()[-3:] == ["ViT", "3", "9"]


def test_filters(rows: Any):
    assert {row["kind"] for row in rows("--kind", "shards")} == {"shards"}
    assert len(rows("--type", "TraitAP")) == 7
    assert len(rows("--type", "TraitAP", "--where", "layer>3", "--where", "n_train=null")) == 2
    assert rows("--where", "layer=99") == []
    found = rows("--where", "vit.name~tiny and mean_ap>1")
    assert [row["fields"]["mean_ap"] for row in found] == [12 / 9] * 2


def test_sorting_and_limiting(rows: Any):
    def layers(*words: str) -> list[int]:
        return [row["fields"]["layer"] for row in rows("--type", "TraitAP", *words)]

    assert layers("--sort", "-layer") == [12, 12, 7, 5, 5, 3, 3]
    assert layers("--sort", "n_train,-layer", "--limit", "4") == [12, 7, 5, 3]
    created = [row["created"] for row in rows()]
    assert created == sorted(created)
    assert [row["created"] for row in rows("--limit", "2")] == created[-2:]


def test_the_total_counts_what_a_limit_hides(saevx: Any):
    assert saevx("--limit", "2").stdout.splitlines()[-1].startswith("2 of 9 artifacts, ")
    assert "1 artifact, " in saevx("--where", "layer=7").stdout


def test_requested_columns(saevx: Any):
    listing = saevx("--columns", "layer,n_images,created,size", "--where", "layer=3").stdout
    head, *lines, _ = listing.splitlines()
    assert head.split()[-3:] == ["layer", "n_images", "created"]
    assert lines[0].split()[-3:-1] == ["3", "9"]
    assert len(lines[1].split()) == len(lines[0].split()) - 1  # a table has no n_images
    assert head.split().count("size") == 1


def test_full_paths_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Store(tmp_path / "store")
    shards = {"type": "Shards", "kind": "shards", "version": 1, "key": "0" * 32}
    for layer in (3, 5):
        scorer = shards | {"fields": {"layer": layer}}
        put(store, "results", "Score", fields={"of": scorer, "n": 1})
    monkeypatch.setenv("SAEVX_STORE", str(store.root))

    def listed(*words: str) -> list[str]:
        return CliRunner().invoke(main, ["ls", *words], catch_exceptions=False).stdout.splitlines()

    put(store, "results", "Note", text="")
    assert listed("--where", "text=")[-1].startswith("1 artifact, ")
    head, *lines, _ = listed("--type", "Score", "--columns", "of.layer,n", "--sort", "-of.layer")
    assert head.split()[-2:] == ["of.layer", "n"]
    assert [line.split()[-2:] for line in lines] == [["5", "1"], ["3", "1"]]
    assert listed("--where", "of.layer>3")[-1].startswith("1 artifact, ")
    assert listed("--where", "created>=2020-01-01")[-1].startswith("3 artifacts, ")


def test_json_has_all_fields(rows: Any, store: Store):
    for row in rows():
        manifest = store.open(row["kind"], row["key"]).manifest
        assert row == {
            "key": manifest.key,
            "kind": manifest.kind,
            "type": manifest.type,
            "version": manifest.version,
            "state": "older version"
            if (manifest.type, manifest.version) == ("TraitAP", 1)
            else None,
            "n_bytes": StoredArtifact(store.root, manifest).n_bytes,
            "created": manifest.created,
            "fields": row["fields"],
        }
        assert row["fields"]["layer"] == manifest.spec["fields"]["layer"]
        assert row["fields"]["vit.name"] == "vit_tiny"


def test_older_compares_with_current_specs(rows: Any, monkeypatch: pytest.MonkeyPatch):
    from spec import Shards

    assert [row["version"] for row in rows("--older")] == [1]
    monkeypatch.setattr(Shards, "version", 2)
    assert [row["type"] for row in rows("--older")] == ["Shards", "Shards", "TraitAP"]
    assert rows("--kind", "shards")[0]["state"] is None  # without --older, the store is all it has


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--where", "lyer=3"], "no artifact has a field 'lyer'; did you mean layer?"),
        (["--columns", "vit.nam"], "did you mean vit.name or vit?"),
        (["--sort", "-meanap"], "did you mean mean_ap?"),
        (["--where", "layer"], "is no condition"),
    ],
)
def test_mistakes_are_explained(saevx: Any, words: list[str], says: str):
    result = saevx(*words)
    assert result.exit_code == 1
    assert says in result.stderr
    assert says in json.loads(saevx(*words, "--json").stdout)["error"]


def test_an_unknown_type_lists_the_known_ones(saevx: Any):
    first, hint = saevx("--type", "TraitAp").stdout.splitlines()
    assert first.startswith("0 artifacts")
    assert hint == "no TraitAp among them; the types are Shards, TraitAP"


def test_an_empty_store(tmp_path: Path, saevx: Any):
    where = str(tmp_path / "none")
    assert saevx("--store", where, "--where", "x=3").stdout == f"0 artifacts, 0 B in {where}\n"
    assert not (tmp_path / "none").exists()


def test_long_listings_do_not_show_fields(saevx: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("saevx.cli.artifacts.ls.DESCRIBED", 8)
    head, *_, note, _total = saevx().stdout.splitlines()
    assert head.split()[-1] == "state"
    assert note.startswith("the fields of so many are not shown")
    assert "layer=3" in saevx("--where", "layer<9").stdout


def on_terminal(store: Store, width: int, *words: str) -> str:
    """What a terminal of that width shows."""
    pid, terminal = pty.fork()
    if pid == 0:
        env = {"PYTHONPATH": str(HERE.parents[1]), "SAEVX_STORE": str(store.root)}
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        code = "from saevx.cli import main; main()"
        os.execve(sys.executable, [sys.executable, "-c", code, "ls", *words], env)
    shown = b""
    while True:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.waitpid(pid, 0)
    os.close(terminal)
    return shown.decode().replace("\r\n", "\n")


def test_a_terminal_gets_lines_that_fit(store: Store):
    shown = on_terminal(store, 60)
    head, *lines, _ = shown.splitlines()
    assert head.startswith("\x1b[1mkey")
    assert max(map(len, lines)) == 60
    assert lines[-1].endswith("…")
    narrow = on_terminal(store, 60, "--type", "TraitAP", "--where", "version=2").splitlines()
    assert "they differ in mean_ap, too: choose with --columns" in narrow
    assert max(map(len, narrow[1:-2])) <= 60
    wide = on_terminal(store, 120, "--type", "TraitAP", "--where", "version=2")
    assert "mean_ap" in wide.splitlines()[0]
    assert "they differ" not in wide


def test_a_pipe_gets_whole_lines_without_escapes(store: Store):
    done = subprocess.run(
        [sys.executable, "-c", "from saevx.cli import main; main()", "ls"],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1]), "SAEVX_STORE": str(store.root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout


def test_listing_loads_neither_specs_nor_rich(store: Store):
    code = (
        "import sys\nfrom saevx.cli import main\nmain(['ls'], standalone_mode=False)\n"
        "print({'spec', 'pydantic', 'rich', 'numpy', 'polars'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1]), "SAEVX_STORE": str(store.root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "set()"


def test_sizes():
    sizes = [0, 999, 1000, 99_940, 99_960, 999_499, 999_500, 2.5e9, 4.93e12, 7.2e15]
    assert ", ".join(map(size, sizes)) == (
        "0 B, 999 B, 1.0 kB, 99.9 kB, 100 kB, 999 kB, 1.0 MB, 2.5 GB, 4.9 TB, 7200 TB"
    )


def test_ages():
    h, d = 3600, 86400
    ages = [-5, 59, 98.9, 99, 3 * h, 47.9 * h, 48 * h, 98 * d, 100 * d]
    assert ", ".join(map(age, ages)) == "0 s, 59 s, 98 s, 1 min, 3 h, 47 h, 2 d, 98 d, 14 w"


def test_cells_and_lines():
    assert [cell(v) for v in (None, True, 3, 0.123456, 12345.6, "x")] == [
        *("null", "true", "3", "0.1235", "1.235e+04", "x"),
    ]
    assert lay_out(["a", "bb"], [("1", "x"), ("22", "")], {"a"})[1:] == [" 1  x", "22  "]
    assert (cut("abcdef", 4), cut("abcd", 4), cut("abcd", None)) == ("abc…", "abcd", "abcd")
