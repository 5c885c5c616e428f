"""Jobs run the submitted copy of the code, and nothing that others have put there."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from saevx.dispatch.code.checked_start import LISTING, WRITABLE
from saevx.dispatch.code.snapshot import Snapshot, command

sys.path.insert(0, str(Path(__file__).resolve().parent))
from dispatching import Place

HELPER = "WORD = 'helper'\n"


@pytest.fixture
def copy(tmp_path: Path) -> tuple[Path, str]:
    """The copy of an experiment with a helper, and its digest."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "trial.py").write_text("import helper\nprint('ran', helper.WORD)\n")
    (here / "helper.py").write_text(HELPER)
    (here / "words.json").write_text("[1]")
    code = tmp_path / "code"
    return code, Snapshot(here / "trial.py").write(code)


def start(code: Path, digest: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(code, digest, "trial"), capture_output=True, text=True, check=False
    )


def change_a_byte(code: Path) -> Path:
    file = code / "experiment" / "helper.py"
    file.write_text(HELPER.replace("h", "H"))
    return file


def change_data(code: Path) -> Path:
    file = code / "experiment" / "words.json"
    file.write_text("[2]")
    return file


def change_the_listing(code: Path) -> Path:
    change_a_byte(code)
    (code / LISTING).write_text('{"private": false, "sha256": {}}')
    return code / LISTING


def add_a_module(code: Path) -> Path:
    file = code / "experiment" / "sitecustomize.py"
    file.write_text("print('ran what was added')")
    return file


def add_bytecode(code: Path) -> Path:
    file = code / "experiment" / "__pycache__" / "helper.cpython-311.pyc"
    file.parent.mkdir()
    file.write_bytes(b"")
    return file


def add_a_link(code: Path) -> Path:
    file = code / "experiment" / "linked"
    file.symlink_to(code / "experiment")
    return file


def remove_one(code: Path) -> Path:
    file = code / "experiment" / "helper.py"
    file.unlink()
    return file


def let_others_write(code: Path) -> Path:
    folder = code / "experiment"
    folder.chmod(0o775)
    return folder


def give_to_another_user(code: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    file = code / "experiment" / "helper.py"
    os.chown(file, 12345, -1)
    return file


HARMS = [
    change_a_byte,
    change_data,
    change_the_listing,
    add_a_module,
    add_bytecode,
    add_a_link,
    remove_one,
    let_others_write,
    give_to_another_user,
]


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_a_changed_copy_is_refused(copy: tuple[Path, str], harm: Callable[[Path], Path]):
    code, digest = copy
    file = harm(code)
    started = start(code, digest)
    assert started.returncode == 1
    assert "not as it was submitted" in started.stderr
    assert str(file) in started.stderr
    assert "ran" not in started.stdout


def test_a_copy_runs_repeatedly_without_changing(copy: tuple[Path, str]):
    for _ in range(2):  # the first leaves no bytecode, which the second would refuse
        started = start(*copy)
        assert started.stdout == "ran helper\n", started.stderr


def test_others_cannot_write_to_a_copy(tmp_path: Path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2777)
    if shutil.which("setfacl"):
        rights = "default:user:daemon:rwx,default:group::rwx,default:other::rwx"
        subprocess.run(["setfacl", "-m", rights, str(shared)], check=False)
    (tmp_path / "trial.py").write_text("")
    before = os.umask(0)
    try:
        Snapshot(tmp_path / "trial.py").write(shared / "code")
    finally:
        os.umask(before)
    copied = [shared / "code", *(shared / "code").rglob("*")]
    assert len(copied) > 100
    for path in copied:
        assert not stat.S_IMODE(path.stat().st_mode) & WRITABLE, path


TAMPER = """
from pathlib import Path
import msgspec
from saevx.dispatch.run_folder import RunFolder
from saevx.dispatch.code.snapshot import Snapshot
write, write_info = Snapshot.write, RunFolder.write_info
def change(self, code):
    told = write(self, code)
    {change}
    return told
def redirect(self, info):
    write_info(self, msgspec.structs.replace(info, {fields}))
Snapshot.write, RunFolder.write_info = change, redirect
"""


@pytest.mark.parametrize(
    ("change", "fields", "says"),
    [
        ("(code / 'experiment' / 'trial.py').write_text(EVIL)", "", "trial.py was changed"),
        ("(code.parent / 'evil.py').write_text(EVIL)", "experiment=str(self.path / 'evil.py')", ""),
    ],
    ids=["another copy", "another file"],
)
def test_a_run_reports_changed_code(tmp_path: Path, change: str, fields: str, says: str):
    place = Place(tmp_path)
    canary = tmp_path / "canary"
    evil = f"EVIL = \"open({str(canary)!r}, 'w')\"\n"
    file = place.write("targets = [Leaf(value=1)]")
    tamper = evil + TAMPER.format(change=change, fields=fields)
    ran = place.saevx("run", file, "--jobs", "1", code=tamper)
    assert ran.code == 1, ran
    assert says in ran.err
    assert not canary.exists()
