"""Which store is meant, and where its kinds lie, however it is named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from saevx.cli import main
from saevx.config import open_store
from saevx.errors import ConfigError
from store import Store
from store.io import digest

NAMES: dict[str, Callable[[Path, pytest.MonkeyPatch], Store]] = {
    "nothing": lambda place, patch: open_store(),
    "a relative path": lambda place, patch: open_store(os.path.relpath(place)),
    "an absolute path": lambda place, patch: open_store(str(place)),
    "a detour": lambda place, patch: open_store(place / ".." / place.name),
    "the environment": lambda place, patch: (
        patch.setenv("SAEVX_STORE", str(place)) or open_store()  # type: ignore[func-returns-value]
    ),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose saevx.toml names a store with shards elsewhere."""
    monkeypatch.delenv("SAEVX_STORE", raising=False)
    project = tmp_path / "project"
    project.mkdir()
    toml = '[store]\nroot = "st"\nroots = { shards = "../scratch" }\n'
    (project / "saevx.toml").write_text(toml)
    monkeypatch.chdir(project)
    return project


@pytest.mark.parametrize(
    ("name", "where"),
    [
        (name, where)
        for name in NAMES
        for where in ("project", "project/below", ".")
        if (name, where) != ("nothing", ".")  # where no saevx.toml says anything
    ],
)
def test_a_store_has_its_roots_whichever_way_it_is_named(
    name: str, where: str, project: Path, monkeypatch: pytest.MonkeyPatch
):
    (project.parent / where).mkdir(exist_ok=True)
    monkeypatch.chdir(project.parent / where)
    store = NAMES[name](project / "st", monkeypatch)
    assert store.root.resolve() == project / "st"
    assert store.root_of("shards").resolve() == project.parent / "scratch"
    assert store.root_of("results") == store.root


def test_a_store_by_a_symbolic_link(project: Path):
    Path("st").mkdir()
    Path("link").symlink_to("st")
    assert open_store("link").root_of("shards").resolve() == project.parent / "scratch"


def test_other_stores_do_not_have_the_roots(project: Path, tmp_path: Path):
    for place in (project / "other", tmp_path / "st", tmp_path / "a" / "b"):
        assert open_store(place).root_of("shards") == place


def test_a_file_with_only_roots_configures_the_default_store(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    Path("saevx.toml").write_text('[store.roots]\nshards = "elsewhere"\n')
    assert open_store(".saevx").root_of("shards") == project / "elsewhere"
    monkeypatch.chdir(project.parent)
    assert open_store("project/.saevx").root_of("shards") == project / "elsewhere"
    assert open_store("project/st").root_of("shards") == project / "st"


def test_the_file_of_another_store_must_be_valid(project: Path, tmp_path: Path):
    (tmp_path / "saevx.toml").write_text("[stroe]")
    with pytest.raises(ConfigError, match="unknown field `stroe`"):
        open_store(tmp_path / "st")


def saevx(*words: str) -> Result:
    return CliRunner().invoke(main, list(words), catch_exceptions=False)


def put(store: Store, kind: str) -> str:
    key = digest(kind.encode())
    with store.draft(kind, key) as draft:
        draft.publish(type="Thing", version=1, canonical=kind, spec={}, parents={}, provenance={})
    return key


def test_listings_and_copies_see_all_kinds(project: Path, tmp_path: Path):
    key = put(open_store(), "shards")
    assert (tmp_path / "scratch/shards" / key[:2] / key).is_dir()
    for words in ([], ["--store", "st"]):
        assert [row["key"] for row in json.loads(saevx("ls", "--json", *words).stdout)] == [key]
    done = saevx("import", key, "--from", "st", "--store", str(tmp_path / "copy"))
    assert done.stdout.startswith("copied 1 artifact")
    assert (tmp_path / "copy/shards").is_dir()
    saevx("gc", "--grace", "0", "--yes", "--unrecorded")
    assert not (tmp_path / "scratch/shards" / key[:2] / key).exists()
    done = saevx("export", key, "--to", "st", "--store", str(tmp_path / "copy"))
    assert done.stdout.startswith("copied 1 artifact")
    assert (tmp_path / "scratch/shards" / key[:2] / key).is_dir()


@pytest.mark.parametrize("words", [["ls"], ["gc", "--dry-run"], ["doctor"], ["show", "ab"]])
def test_a_plain_file_is_not_a_store(words: list[str], project: Path):
    Path("file").write_text("not a store")
    for said in (saevx(*words, "--store", "file"), saevx(*words, "--store", str(project / "file"))):
        assert said.exit_code == 1
        assert "file is a file, and a store is a folder" in said.stderr
    Path("../scratch").write_text("neither")
    assert "scratch is a file" in saevx(*words).stderr


def test_a_copy_to_a_plain_file_is_refused(project: Path):
    key = put(open_store(), "results")
    Path("file").write_text("not a store")
    assert "is a file" in saevx("export", key, "--to", "file").stderr
    assert "is a file" in saevx("import", key, "--from", "file").stderr
    assert "there is no store" in saevx("import", key, "--from", "nowhere").stderr
