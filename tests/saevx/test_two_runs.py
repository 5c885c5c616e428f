"""Two concurrent runs of one experiment: each artifact is made once, and both runs have all."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import saevx
from saevx import Artifact, Batch, recipe
from saevx.cli.run.progress import BatchProgress, TerminalDisplay
from saevx.recipes import find_recipe
from saevx.resolve.context import Context
from saevx.resolve.leases import Backoff
from saevx.resolve.plan import Plan, State, make_plan
from saevx.resolve.run import Listener, RunResult, run_plan
from saevx.workspace import Workspace, open_workspace
from spec import Keys
from store import Store
from store.locks import lease as leases
from store.locks.process import ProcessId

from .dispatching import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]

SLOW = """
import os
import time
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np

from saevx import Artifact, Batch, Exec, recipe


def log(what):
    with open("log", "a") as file:
        file.write(f"{what} {os.getpid()}\\n")


class Slow(Artifact):
    kind: ClassVar = "checkpoints"
    namespace: ClassVar = "two_runs"  # whatever the name of this module in a process
    value: int
    group: int = 0
    pause_s: Annotated[float, Exec()] = 0.0


class Double(Artifact):
    kind: ClassVar = "results"
    namespace: ClassVar = "two_runs"  # whatever the name of this module in a process
    slow: Slow


@recipe(Slow, batch_by=lambda spec: spec.group)
def make_slow(batch):
    for spec in batch.specs:
        log(f"slow{spec.value}")
        end = time.monotonic() + spec.pause_s
        while time.monotonic() < end and not Path("hurry").exists():
            time.sleep(0.01)
        batch.draft(spec).write("value", np.array([spec.value]))
        batch.publish(spec)


@recipe(Double)
def make_double(batch):
    (spec,) = batch.specs
    log(f"double{spec.slow.value}")
    values = 2 * batch.input(spec.slow).array("value").read()
    batch.draft(spec).write("value", values)
    batch.publish(spec)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAEVX_STORE", raising=False)
    return tmp_path


def write(targets: str) -> str:
    Path("slow.py").write_text(textwrap.dedent(SLOW))
    Path("twice.py").write_text(f"from slow import Double, Slow\ntargets = {targets}\n")
    return "twice.py"


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from saevx.cli import main; main()", "run", *words],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{Path.cwd()}"},
    )


def made() -> dict[str, str]:
    """Return what was made -> by which process; check that nothing was made twice."""
    lines = [line.split() for line in Path("log").read_text().splitlines()]
    assert Counter(what for what, _ in lines).most_common(1)[0][1] == 1
    return {what: pid for what, pid in lines}


def wait_for_log(n_lines: int = 1) -> None:
    deadline = time.monotonic() + 240
    while not Path("log").exists() or Path("log").read_text().count("\n") < n_lines:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def leftovers() -> list[Path]:
    found = [*Path(".saevx").glob("*/.leases/*"), *Path(".saevx").glob("*/.build/*")]
    return [path for path in found if path.name != ".clock"]


def test_two_concurrent_runs_make_everything_once(here: Path):
    """They share the batches."""
    file = write("[Double(slow=Slow(value=v, group=v // 3, pause_s=0.05)) for v in range(12)]")
    both = [start(file, "--json") for _ in range(2)]
    records = [json.loads(run.communicate()[0]) for run in both]
    assert [run.returncode for run in both] == [0, 0]
    assert len(made()) == 24
    assert sum(record["made"] for record in records) == 24
    for record in records:
        assert [target["state"] for target in record["targets"]] == ["present"] * 12
    assert leftovers() == []


def test_the_second_run_makes_other_artifacts_first_then_waits(here: Path):
    file = write("[Slow(value=v, pause_s=3600) for v in range(3)]")
    first = start(file)
    wait_for_log()
    write("[Double(slow=Slow(value=v, group=v // 7)) for v in (1, 7)]")
    second = start(file)
    said = ""
    while "waiting for" not in said:
        said += second.stderr.readline()
        assert second.poll() is None, said
    Path("hurry").touch()
    said += second.communicate()[1]
    first.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert f"waiting for {os.uname().nodename} (process {first.pid}) to make 1 Slow" in said
    assert said.count("waiting for") == 1
    assert said.index("1 Double: ") < said.index("waiting for")
    made_by = made()
    assert {made_by[f"slow{v}"] for v in range(3)} == {str(first.pid)}
    assert {made_by[what] for what in ("slow7", "double7", "double1")} == {str(second.pid)}
    assert leftovers() == []


def test_the_second_run_uses_artifacts_before_their_batch_ends(here: Path):
    file = write("[Slow(value=v, pause_s=0.3 if v == 1 else 3600) for v in (1, 2)]")
    first = start(file)
    wait_for_log(2)  # the first artifact is published, the batch goes on
    write("[Double(slow=Slow(value=1))]")
    second = start(file, "--json")
    out, _ = second.communicate()
    assert second.returncode == 0
    assert json.loads(out)["made"] == 1
    first.kill()
    first.communicate()


def test_the_second_run_takes_over_from_a_killed_one(here: Path):
    file = write("[Slow(value=v, pause_s=0 if v == 0 else 3600) for v in range(3)]")
    first = start(file)
    wait_for_log(2)
    write("[Slow(value=v) for v in range(3)]")
    second = start(file)
    line = second.stderr.readline()
    while "waiting" not in line:
        line = second.stderr.readline()
    assert f"process {first.pid}) to make 2 Slow" in line
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second.communicate()
    assert second.returncode == 0
    made_by = [line.split() for line in Path("log").read_text().splitlines()]
    assert [what for what, pid in made_by if pid == str(second.pid)] == ["slow1", "slow2"]
    assert leftovers() == []


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_ctrl_c_interrupts_waiting(here: Path, words: tuple[str, ...]):
    file = write("[Slow(value=1, pause_s=3600)]")
    first = start(file)
    wait_for_log()
    second = start(file, *words)
    if words:  # it prints nothing, but records what it wants before it looks for owners
        wait_until(lambda: len(list(Path(".saevx").glob(".runs/*/*.*.json"))) == 2)
    else:
        while "waiting" not in second.stderr.readline():
            pass
    second.send_signal(signal.SIGINT)
    _, said = second.communicate()
    assert second.returncode != 0
    if words:
        assert "waiting" not in said
    assert len(list(Path(".saevx/checkpoints/.leases").glob("?" * 32))) == 1
    first.send_signal(signal.SIGINT)
    first.communicate()
    assert leftovers() == []


# In this process, with leases that seem to be held by others.


class Thing(Artifact):
    kind = "checkpoints"
    value: int
    below: Artifact | None = None
    group: int = 0


batches: list[list[int]] = []
"""Values of each batch that was made."""


@recipe(Thing, batch_by=lambda spec: spec.group)
def make_things(batch: Batch[Thing]) -> None:
    batches.append(sorted(spec.value for spec in batch.specs))
    for spec in batch.specs:
        if spec.value < 0:
            batch.fail(spec, saevx.RecipeError(f"{spec.value} is below zero"))
            continue
        batch.draft(spec).write("value", np.array([spec.value]))
        batch.publish(spec)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    batches.clear()
    return open_workspace(tmp_path / "store")


class Others:
    """Another process that has leases, on another host."""

    def __init__(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self._monkeypatch = workspace.store, monkeypatch

    def take(self, *things: Thing) -> list[Any]:
        with self._monkeypatch.context() as patch:
            here = ProcessId.here()
            patch.setattr(ProcessId, "here", lambda: here._replace(host="elsewhere", pid=42))
            patch.setattr(leases.heartbeats, "add", lambda lease: None)
            taken = self.store.lease_all([(thing.kind, thing.key) for thing in things])
        assert taken
        return taken


@pytest.fixture
def others(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Others:
    return Others(workspace, monkeypatch)


class Notes(Listener):
    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.owners: list[dict[str, list[int]]] = []
        self.meanwhile = meanwhile
        """Called each time that the run reports which processes it waits for."""

    def wait(self, owners: Any) -> None:
        self.owners.append(
            {who: sorted(spec.value for spec in specs) for who, specs in owners.items()}
        )
        if owners:
            self.meanwhile()


def run(workspace: Workspace, *things: Thing, notes: Notes | None = None) -> tuple[Plan, RunResult]:
    keys = Keys(workspace)
    plan = make_plan(things, keys, workspace.store)
    return plan, run_plan(plan, Context(keys, workspace.store, find_recipe), notes)


def test_whole_batches_are_made_first(workspace: Workspace, others: Others):
    things = [Thing(value=v) for v in range(4)]
    taken = others.take(things[1], things[2])

    def end_the_others() -> None:
        if [0, 3] in batches:
            while taken:
                taken.pop().release()

    notes = Notes(end_the_others)
    _, outcome = run(workspace, *things, Thing(value=9, group=9), notes=notes)
    assert batches == [[9], [0, 3], [1, 2]]
    assert outcome.ok
    assert len(outcome.made) == 5
    assert {"elsewhere (process 42)": [1, 2]} in notes.owners
    assert notes.owners[-1] == {}
    assert list(workspace.store.leases()) == []


def make_alone(workspace: Workspace, thing: Thing) -> None:
    """As another run would."""
    with Context(Keys(workspace), workspace.store).batch((thing,)) as batch:
        find_recipe(Thing).make(batch)


def test_a_batch_waits_for_an_input_that_another_run_is_about_to_publish(
    workspace: Workspace, others: Others, monkeypatch: pytest.MonkeyPatch
):
    inputs = [Thing(value=v, group=v) for v in (1, 2)]
    above = [Thing(value=10 * thing.value, below=thing) for thing in inputs]
    (lease,) = others.take(inputs[0])

    def meanwhile(backoff: Backoff) -> None:
        make_alone(workspace, inputs[0])
        lease.release()

    monkeypatch.setattr(Backoff, "pause", meanwhile)
    _, outcome = run(workspace, *above)
    assert batches == [[2], [1], [10, 20]]
    assert [node.spec for node in outcome.made_elsewhere] == inputs[:1]


def test_a_published_artifact_is_used_though_its_lease_is_held(
    workspace: Workspace, others: Others
):
    """Its owner has not released the lease yet, or never will."""
    thing = Thing(value=1)
    others.take(thing)
    notes = Notes(functools.cache(lambda: make_alone(workspace, thing)))
    _, outcome = run(workspace, thing, notes=notes)
    assert [node.spec for node in outcome.made_elsewhere] == [thing]
    assert batches == [[1]]


def test_an_artifact_made_by_another_run_is_used(workspace: Workspace, others: Others):
    thing = Thing(value=1)
    (lease,) = others.take(thing)

    @functools.cache
    def make() -> None:
        make_alone(workspace, thing)
        lease.release()

    plan, outcome = run(workspace, thing, Thing(value=2, group=2), notes=Notes(make))
    assert batches == [[2], [1]]
    assert [node.spec for node in outcome.made_elsewhere] == [thing]
    assert [node.spec.value for node in outcome.made] == [2]
    assert {node.state for node in plan.nodes.values()} == {State.PRESENT}
    assert outcome.ok


def test_an_artifact_published_just_before_the_lease_is_not_made_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    """Another run publishes and releases after this one looked at the store."""
    thing = Thing(value=1)
    take_all = Store.lease_all

    def late(store: Store, wanted: Any) -> Any:
        make_alone(workspace, thing)
        return take_all(store, wanted)

    monkeypatch.setattr(Store, "lease_all", late)
    _, outcome = run(workspace, thing, Thing(value=2))
    assert batches == [[1], [2]]
    assert [node.spec for node in outcome.made_elsewhere] == [thing]
    assert list(workspace.store.leases()) == []


def test_a_lease_of_this_process_is_not_waited_for(workspace: Workspace):
    with workspace.store.lease("checkpoints", Thing(value=1).key):
        run(workspace, Thing(value=1), Thing(value=2))
    assert batches == [[1, 2]]


def test_failures_release_their_leases(workspace: Workspace):
    _, outcome = run(workspace, Thing(value=-1), Thing(value=1))
    assert len(outcome.failed) == 1
    assert list(workspace.store.leases()) == []


def test_an_interrupted_batch_releases_its_leases(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(self: Any, spec: Any) -> None:
        assert len(list(workspace.store.leases())) == 2
        raise KeyboardInterrupt

    monkeypatch.setattr(Batch, "draft", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(workspace, Thing(value=1), Thing(value=2))
    assert list(workspace.store.leases()) == []


def test_an_error_under_leases_releases_them(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    real = Store.lookup

    def broken(store: Store, *where: str) -> Any:
        if list(store.leases()):
            raise saevx.StoreError("the disk is gone")
        return real(store, *where)

    monkeypatch.setattr(Store, "lookup", broken)
    with pytest.raises(saevx.StoreError, match="gone"):
        run(workspace, Thing(value=1))
    assert list(workspace.store.leases()) == []


def test_the_bar_of_waiting_appears_and_disappears(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, for rich
    monkeypatch.setenv("COLUMNS", "200")
    with TerminalDisplay().batches() as shown:
        assert isinstance(shown, BatchProgress)
        shown.wait({"node7 (process 42)": [Thing(value=1)]})
        shown.wait({"node8 (process 43)": [Thing(value=1)]})
        assert shown._bars is not None
        shown._bars.refresh()
        shown.wait({})
        assert shown._bars.tasks == []
    said = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    assert "waiting for node8 (process 43) to make 1 Thing" in said
