"""`import saevx`: what it costs, what it offers, and what it refuses."""

import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

import saevx

HOME = Path(__file__).resolve().parents[2]


def python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, HOME]))},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def test_import_costs_nothing_heavy():
    done = python(
        "import sys, saevx\n"
        "heavy = {'torch', 'timm', 'zarr', 'polars', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "saevx.TraitAP, saevx.load, saevx.table\n"
        "heavy = {'torch', 'timm', 'zarr', 'polars'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["spec", "store"])
def test_another_module_of_the_same_name_is_reported(tmp_path: Path, name: str):
    (tmp_path / f"{name}.py").write_text("")
    done = python("import saevx", tmp_path)
    assert done.returncode == 1
    assert f"needs its own package `{name}`" in done.stderr
    assert str(tmp_path / f"{name}.py") in done.stderr


def test_another_module_that_is_already_imported_is_reported():
    done = python("import sys, types; sys.modules['spec'] = types.ModuleType('spec'); import saevx")
    assert "needs its own package `spec`" in done.stderr


@pytest.mark.parametrize("package", ["saevx", "spec", "store"])
def test_type_checkers_are_told_that_the_packages_are_typed(package: str):
    assert resources.files(package).joinpath("py.typed").is_file()


def test_every_public_name_can_be_imported():
    assert set(dir(saevx)) == set(saevx.__all__)
    for name in saevx.__all__:
        assert getattr(saevx, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="SAE"):
        _ = saevx.SAE  # type: ignore[attr-defined]
