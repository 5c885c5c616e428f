"""Shared by tests of dispatch: experiment files, and `saevx` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from store import Store

HERE = Path(__file__).resolve().parent

HEAD = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from unruly import Album, Branch, Leaf, Top
"""


class Place:
    """A folder with an experiment, its store, and a record of what was made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.code = ""
        """Python that each `saevx` here runs before it begins."""
        self.environment = {
            name: value for name, value in os.environ.items() if name != "SAEVX_STORE"
        }
        self.environment |= {"UNRULY_LOG": str(self.log), "OMP_NUM_THREADS": "1"}

    @property
    def store(self) -> Store:
        return Store(self.folder / ".saevx")

    def write(self, targets: str, name: str = "trial.py") -> str:
        (self.folder / name).write_text(HEAD + textwrap.dedent(targets))
        return name

    def hurry(self) -> None:
        """End the pauses of all specs that are made here."""
        (self.folder / "hurry").touch()

    def profile(self, text: str) -> None:
        (self.folder / "saevx.toml").write_text(textwrap.dedent(text))

    def start(self, *words: str, code: str = "", **environment: str) -> subprocess.Popen[str]:
        """`saevx` as a process; `code` runs in it first."""
        program = f"{self.code}\n{code}\nfrom saevx.cli import main\nmain()"
        return subprocess.Popen(
            [sys.executable, "-c", program, *words],
            cwd=self.folder,
            env=self.environment | environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def saevx(self, *words: str, code: str = "", **environment: str) -> Ran:
        process = self.start(*words, code=code, **environment)
        out, err = process.communicate()
        return Ran(process.returncode, out, err)

    def json(self, *words: str) -> Any:
        return json.loads(self.saevx(*words, "--json").out)

    def makings(self, word: str = "made") -> Counter[str]:
        """How often each key was begun, or made."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return Counter(line.split()[1] for line in lines if line.startswith(word))

    def arrays(self) -> list[Any]:
        """What was submitted."""
        files = sorted((self.folder / ".saevx" / ".jobs").glob("*/arrays/*.json"))
        return [json.loads(file.read_text()) for file in files]

    def jobs(self) -> list[str]:
        """Slurm's ids of what was submitted."""
        files = sorted((self.folder / ".saevx" / ".jobs").glob("*/arrays/*.job"))
        return [file.read_text().removeprefix("slurm:") for file in files]

    def contents(self) -> dict[str, Any]:
        """Key -> what makes an artifact equal to another: all but where it came from."""
        found = {}
        for artifact in self.store.scan():
            manifest = artifact.manifest
            files = {name: (file.size, file.xxh3) for name, file in manifest.files.items()}
            parents = {name: parent.key for name, parent in manifest.parents.items()}
            found[manifest.key] = (manifest.canonical, files, parents, manifest.attributes)
        return found

    def leases(self) -> list[str]:
        """Who has leases and lives; what a killed process leaves, the next one breaks."""
        return [str(one) for one in self.store.leases() if one.may_be_alive]


class Ran:
    """A command that has ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


def wait_until(holds: Callable[[], Any], seconds: float = 240.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"did not come true within {seconds} s"
        time.sleep(0.1)
    return found
