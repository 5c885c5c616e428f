"""Artifacts made in parts: finished parts are kept, made once, and joined in order."""

from __future__ import annotations

import errno
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import saevx
from saevx import Artifact, Batch, Exec, recipe
from saevx.recipes import find_recipe
from saevx.resolve.context import Context
from saevx.resolve.leases import Backoff
from saevx.resolve.parts import Part, Parts, PendingParts
from saevx.resolve.plan import Node, State, make_plan
from saevx.resolve.provenance import CodeVersion
from saevx.resolve.run import Listener, RunResult, run_parts, run_plan
from saevx.workspace import Workspace, open_workspace
from spec import Keys
from store import Store
from store.artifact import verify
from store.layout import part_home, part_key
from store.locks import lease as leases
from store.locks.process import ProcessId

REPOSITORY = Path(__file__).resolve().parents[2]


class Cake(Artifact):
    kind: ClassVar = "checkpoints"
    namespace: ClassVar = "cakes"  # whatever the name of this module in a process
    value: int
    n: int = 4
    group: int = 0
    how: Annotated[str, Exec()] = ""
    """Word and part, as in "killed 2": what happens there."""
    pause_s: Annotated[float, Exec()] = 0.0


def log(what: str) -> None:
    with open(os.environ["CAKE_LOG"], "a") as file:
        file.write(f"{what} {os.getpid()}\n")


def bake(batch: Batch[Cake], todo: PendingParts[Cake]) -> None:
    if any(spec.how == "idle" for spec in batch.open_specs):
        return
    for part in todo:
        bake_part(batch, part)


def bake_part(batch: Batch[Cake], part: Part[Cake]) -> None:
    for spec in part.specs:
        word, _, where = spec.how.partition(" ")
        trouble = word if where == str(part.index) else ""
        log(f"{spec.value}.{part.index}")
        time.sleep(spec.pause_s)
        values = np.arange(2, dtype="f4") + 2 * part.index + 100 * spec.value
        with part.draft(spec).array("x", (2,), "f4", rows_per_shard=2) as writer:
            writer.append(values[:1])
            match trouble:
                case "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "interrupted":
                    raise KeyboardInterrupt
                case "bug":
                    raise RuntimeError("a bug")
            writer.append(values[1:])
        if trouble == "fails":
            batch.fail(spec, saevx.RecipeError(f"{spec.value} fails in part {part.index}"))
        elif trouble != "forgets":
            part.publish(spec, {"sum": float(values.sum())})


@recipe(
    Cake,
    batch_by=lambda spec: (spec.group, spec.n),
    load=lambda artifact: artifact.array("x").read().tolist(),
    parts=Parts(lambda spec, site: spec.n, bake),
)
def seal(batch: Batch[Cake]) -> None:
    for spec in batch.open_specs:
        if spec.how == "vanishes":
            victim = batch.store.find_part(spec.kind, batch.key_of(spec), 1)
            if victim is not None and not Path(os.environ["CAKE_LOG"] + ".vanished").exists():
                Path(os.environ["CAKE_LOG"] + ".vanished").touch()
                shutil.rmtree(victim.path)
        log(f"{spec.value}.seal")
        parts = batch.parts(spec)
        batch.draft(spec).join("x", [part.array("x") for part in parts])
        batch.publish(spec, {"sum": sum(part.manifest.attributes["sum"] for part in parts)})


@pytest.fixture(autouse=True)
def diary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAKE_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # no test cuts the power
    return open_workspace(tmp_path / "store")


def begun(diary: Path) -> list[str]:
    """Return the parts and artifacts that were begun, in order, and empty the log."""
    lines = diary.read_text().splitlines() if diary.exists() else []
    diary.unlink(missing_ok=True)
    return [line.split()[0] for line in lines]


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


CODE = CodeVersion.of()


def run(workspace: Workspace, *cakes: Cake, notes: Notes | None = None) -> RunResult:
    keys = Keys(workspace)
    plan = make_plan(cakes, keys, workspace.store)
    return run_plan(plan, Context(keys, workspace.store, find_recipe, CODE), notes)


def run_some(workspace: Workspace, indices: Iterable[int], *cakes: Cake) -> RunResult:
    """Make some parts, as a job does."""
    keys = Keys(workspace)
    nodes = [Node(cake, keys.of(cake), State.TO_MAKE, "asked for") for cake in cakes]
    store = workspace.store
    return run_parts(nodes, list(indices), Context(keys, store, find_recipe, CODE), Notes())


def parts_of(workspace: Workspace, cake: Cake) -> list[int]:
    return workspace.store.parts(cake.kind, cake.key)


def expected(cake: Cake) -> list[float]:
    return [100.0 * cake.value + i for i in range(2 * cake.n)]


def assert_baked(workspace: Workspace, *cakes: Cake) -> None:
    """Check that all are published and whole, and that no temporary files are left."""
    for cake in cakes:
        artifact = workspace.store.open(cake.kind, cake.key)
        assert artifact.verify() == []
        assert artifact.array("x").read().tolist() == expected(cake)
        assert artifact.manifest.attributes == {"sum": sum(expected(cake))}
        assert parts_of(workspace, cake) == []
    assert leftovers(workspace.store.root) == []


def leftovers(root: Path) -> list[Path]:
    found = [path for name in ("work", "build", "leases") for path in root.glob(f"*/.{name}/*")]
    return [path for path in found if path.name != ".clock"]


# One run.


def test_parts_are_made_sealed_and_deleted(workspace: Workspace, diary: Path):
    cakes = [Cake(value=v) for v in (1, 2)]
    outcome = run(workspace, *cakes)
    assert outcome.ok
    assert [node.spec for node in outcome.made] == cakes
    assert begun(diary) == [*(f"{v}.{i}" for i in range(4) for v in (1, 2)), "1.seal", "2.seal"]
    assert_baked(workspace, *cakes)
    assert run(workspace, *cakes).made == []
    assert begun(diary) == []


def test_provenance_sums_times_and_names_hosts(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    """The time of each part counts once, also if the sealing process made it."""
    cakes = [Cake(value=v, n=3, pause_s=100) for v in (1, 2)]
    now = [0.0]

    def pause(seconds: float) -> None:
        now[0] += seconds

    clock = SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0] / 2)
    monkeypatch.setattr("saevx.resolve.provenance.time", clock)
    monkeypatch.setattr(time, "sleep", pause)
    with monkeypatch.context() as patch:
        patch.setattr("platform.node", lambda: "elsewhere")
        patch.setenv("SLURM_JOB_ID", "7")
        assert [node.spec for node in run_some(workspace, [1], *cakes).parts_missing] == cakes
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert run(workspace, *cakes).ok
    for cake, wall_s in zip(cakes, (300, 600), strict=True):  # of each part one was there first
        provenance = workspace.store.open(cake.kind, cake.key).manifest.provenance
        assert provenance["n_batch"] == 2
        assert provenance["wall_s"] == wall_s
        assert provenance["cpu_s"] == wall_s / 2
        assert provenance["parts"]["n"] == 3
        assert provenance["parts"]["hosts"] == [os.uname().nodename, "elsewhere"]
        assert provenance["parts"]["slurm_jobs"] == ["7"]
        assert provenance["slurm_job"] is None
        assert provenance["parts"]["code"] == [provenance["code"]]


@pytest.mark.parametrize("at", range(4))
def test_an_interrupted_run_resumes_at_the_next_part(workspace: Workspace, diary: Path, at: int):
    with pytest.raises(KeyboardInterrupt):
        run(workspace, Cake(value=1), Cake(value=2, how=f"interrupted {at}"))
    assert parts_of(workspace, Cake(value=2)) == list(range(at))
    assert parts_of(workspace, Cake(value=1)) == list(range(at + 1))
    assert not list(workspace.store.root.glob("*/.build/*"))
    assert list(workspace.store.leases()) == []
    begun(diary)
    cakes = [Cake(value=1), Cake(value=2)]
    run(workspace, *cakes)
    rest = [f"{v}.{i}" for i in range(4) for v in (1, 2) if i > at or (i == at and v == 2)]
    assert begun(diary) == [*rest, "1.seal", "2.seal"]
    assert_baked(workspace, *cakes)


def test_only_the_missing_parts_of_each_spec_are_made(workspace: Workspace, diary: Path):
    one, two, three = (Cake(value=v) for v in (1, 2, 3))
    run_some(workspace, [0, 2], one)
    run_some(workspace, [2, 3], two)
    begun(diary)
    assert run(workspace, one, two, three).ok
    made = begun(diary)
    assert made[:-3] == ["2.0", "3.0", "1.1", "2.1", "3.1", "3.2", "1.3", "3.3"]
    assert_baked(workspace, one, two, three)


def test_one_failed_spec_does_not_fail_the_others(workspace: Workspace, diary: Path):
    good, bad = Cake(value=1), Cake(value=2, how="fails 1")
    outcome = run(workspace, good, bad)
    assert {key: str(error) for key, error in outcome.failed.items()} == {
        bad.key: "2 fails in part 1"
    }
    assert [node.spec for node in outcome.made] == [good]
    assert begun(diary) == ["1.0", "2.0", "1.1", "2.1", "1.2", "1.3", "1.seal"]
    assert parts_of(workspace, bad) == [0]
    assert run(workspace, Cake(value=2)).ok
    assert begun(diary) == ["2.1", "2.2", "2.3", "2.seal"]
    assert_baked(workspace, good, bad)


def test_a_bug_in_a_part_keeps_the_finished_parts(workspace: Workspace, diary: Path):
    outcome = run(workspace, Cake(value=1, how="bug 2"), Cake(value=9, group=1))
    assert [str(error) for error in outcome.failed.values()] == ["a bug"]
    assert [node.spec.value for node in outcome.made] == [9]
    assert parts_of(workspace, Cake(value=1)) == [0, 1]
    assert not list(workspace.store.root.glob("*/.build/*"))
    assert list(workspace.store.leases()) == []


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("forgets 2", "the recipe of Cake ended without making part 2 of Cake"),
        ("idle", "the recipe of Cake took no part of Cake"),
    ],
)
def test_a_recipe_that_makes_no_part_fails(workspace: Workspace, how: str, says: str):
    outcome = run(workspace, Cake(value=1, how=how))
    assert says in str(outcome.failed[Cake(value=1).key])
    assert isinstance(next(iter(outcome.failed.values())), saevx.RecipeError)
    outcome = run_some(workspace, [2, 3], Cake(value=3, how=how))
    assert says in str(outcome.failed[Cake(value=3).key])
    assert outcome.parts_missing == []
    assert run(workspace, Cake(value=1)).ok


def test_a_part_that_is_deleted_before_sealing_is_reported(workspace: Workspace, diary: Path):
    cake = Cake(value=1, how="vanishes")
    error = run(workspace, cake).failed[cake.key]
    assert "part 1 of 4 of Cake" in str(error)
    assert "is gone: run again" in str(error)
    assert workspace.store.find(cake.kind, cake.key) is None
    begun(diary)
    assert run(workspace, cake).ok
    assert begun(diary) == ["1.1", "1.seal"]
    assert_baked(workspace, cake)


def test_a_part_of_another_spec_is_not_a_hit(workspace: Workspace):
    """As with artifacts, an equal key alone is not a hit."""
    cake = Cake(value=1)
    with workspace.store.draft(cake.kind, cake.key, 0) as draft:
        draft.publish(type="Cake", version=1, canonical="{}", spec={}, parents={}, provenance={})
    error = run(workspace, cake).failed[cake.key]
    assert isinstance(error, saevx.CorruptArtifact)
    assert "describes another spec" in str(error)


def test_a_damaged_part_is_made_again(workspace: Workspace, diary: Path):
    cake = Cake(value=1)
    run_some(workspace, [0, 1], cake)
    part = workspace.store.find_part(cake.kind, cake.key, 1)
    os.truncate(part.path / "x" / "c.0", 3)
    begun(diary)
    assert run(workspace, cake).ok
    assert begun(diary) == ["1.1", "1.2", "1.3", "1.seal"]
    assert_baked(workspace, cake)


def alter(part: Any) -> None:
    """Flip a bit of a part's array, which changes its digest and not its size."""
    file = part.path / "x" / "c.0"
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)


def test_a_part_with_altered_bytes_is_moved_to_the_trash_and_made_again(
    workspace: Workspace, diary: Path
):
    """The digests in its manifest are about to become those of the artifact."""
    cake, other = Cake(value=1), Cake(value=2)
    run_some(workspace, [0, 1], cake, other)
    alter(workspace.store.find_part(cake.kind, cake.key, 0))
    begun(diary)
    assert run(workspace, cake, other).ok
    rest = [f"{v}.{i}" for i in (2, 3) for v in (1, 2)]
    assert begun(diary) == ["1.0", *rest, "1.seal", "2.seal"]
    assert_baked(workspace, cake, other)
    (aside,) = workspace.store.root.glob("*/.trash/*")
    assert (aside / "x" / "c.0").exists()


def test_a_part_that_another_process_published_first_is_verified(
    workspace: Workspace, diary: Path, monkeypatch: pytest.MonkeyPatch
):
    """After a lost lease, the part in the store is not the one that was just written."""
    cake = Cake(value=1, n=2)
    real = Part.publish
    published: list[Path] = []

    def publish(part: Part[Cake], spec: Cake, facts: Any) -> Any:
        if part.index == 1 and not published:
            place = part_home(workspace.store.root, spec.kind, spec.key, 1)
            with (
                Context(Keys(workspace), workspace.store).batch((spec,)) as batch,
                ExitStack() as stack,
            ):
                other = Part(batch, 1, (spec,), stack)
                values = np.zeros(2, "f4")
                with other.draft(spec).array("x", (2,), "f4", rows_per_shard=2) as writer:
                    writer.append(values)
                published.append(real(other, spec, facts).path)
            assert published == [place]
            alter(workspace.store.find_part(spec.kind, spec.key, 1))
        return real(part, spec, facts)

    monkeypatch.setattr(Part, "publish", publish)
    error = run(workspace, cake).failed[cake.key]
    assert "ended without making part 1" in str(error)
    begun(diary)
    assert run(workspace, cake).ok
    assert begun(diary) == ["1.1", "1.seal"]
    assert_baked(workspace, cake)


def test_parts_are_verified_once_and_those_made_here_are_not(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    cake = Cake(value=1)
    run_some(workspace, [1, 3], cake)
    read: list[str] = []
    real = verify.digest_file

    def digest_file(path: str) -> Any:
        read.append(Path(path).parts[-3])
        return real(path)

    monkeypatch.setattr(verify, "digest_file", digest_file)
    assert run(workspace, cake).ok
    assert sorted(set(read)) == ["1", "3"]
    assert len(read) == 4  # an array is two files


def test_a_part_that_cannot_be_read_is_not_moved(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    cake = Cake(value=1)
    run_some(workspace, [1], cake)

    def digest_file(path: str) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    with monkeypatch.context() as patch:
        patch.setattr(verify, "digest_file", digest_file)
        error = run(workspace, cake).failed[cake.key]
    assert "I/O error" in str(error)
    assert parts_of(workspace, cake) == [1]
    assert run(workspace, cake).ok


def test_a_part_deleted_while_it_is_read_counts_as_missing(
    workspace: Workspace, diary: Path, monkeypatch: pytest.MonkeyPatch
):
    """Another process that seals the artifact deletes its parts."""
    cake = Cake(value=1, n=2)
    run_some(workspace, [0], cake)
    real = verify.digest_file

    def digest_file(path: str) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(verify, "digest_file", real)
            run(workspace, cake)
        return real(path)

    monkeypatch.setattr(verify, "digest_file", digest_file)
    outcome = run(workspace, cake)
    assert [node.spec for node in outcome.made_elsewhere] == [cake]
    assert begun(diary) == ["1.0", "1.1", "1.seal"]
    assert_baked(workspace, cake)


# Some parts in each of several processes.


@st.composite
def shares(draw: Any) -> tuple[int, list[list[int]]]:
    """Indices of parts, shared among processes in any order; some go to two processes."""
    n = draw(st.integers(1, 5))
    dealt: list[list[int]] = [[] for _ in range(draw(st.integers(1, 4)))]
    for index in draw(st.permutations(range(n))):
        for share in draw(st.sets(st.sampled_from(range(len(dealt))), min_size=1, max_size=2)):
            dealt[share].append(index)
    return n, [share for share in dealt if share]


@settings(max_examples=20)
@given(shares())
def test_the_artifact_does_not_depend_on_how_parts_are_shared(drawn: Any):
    n, dealt = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        with tempfile.TemporaryDirectory() as folder:
            patch.setenv("CAKE_LOG", f"{folder}/log")
            whole, shared = (open_workspace(Path(folder) / name) for name in ("whole", "shared"))
            cakes = [Cake(value=v, n=n) for v in (1, 2)]
            run(whole, *cakes)
            begun(Path(folder) / "log")
            lacking = set(range(n))
            for share in dealt:
                outcome = run_some(shared, share, *cakes)
                was_sealed, lacking = not lacking, lacking - set(share)
                now = "parts_missing" if lacking else "made_elsewhere" if was_sealed else "made"
                for which in ("parts_missing", "made_elsewhere", "made"):
                    specs = [node.spec for node in getattr(outcome, which)]
                    assert specs == (cakes if which == now else [])
                assert outcome.ok
            made = Counter(begun(Path(folder) / "log"))
            assert set(made.values()) == {1}
            assert len(made) == 2 * (n + 1)
            assert_baked(shared, *cakes)
            for cake in cakes:
                manifests = [w.store.open(cake.kind, cake.key).manifest for w in (whole, shared)]
                assert manifests[0].files == manifests[1].files
                assert manifests[0].attributes == manifests[1].attributes


def test_a_job_whose_artifact_is_published_makes_nothing(workspace: Workspace, diary: Path):
    """For example a job that was requeued after others have sealed the artifact."""
    cake, other = Cake(value=1), Cake(value=2)
    run(workspace, cake)
    begun(diary)
    outcome = run_some(workspace, [0, 1], cake, other)
    assert begun(diary) == ["2.0", "2.1"]
    assert [node.spec for node in outcome.made_elsewhere] == [cake]
    assert [node.spec for node in outcome.parts_missing] == [other]
    assert parts_of(workspace, cake) == []


def test_a_failed_part_is_reported_beside_what_was_made(workspace: Workspace):
    good, bad = Cake(value=1, n=2), Cake(value=2, n=2, how="fails 1")
    run_some(workspace, [0], good, bad)
    outcome = run_some(workspace, [1], good, bad)
    assert list(outcome.failed) == [bad.key]
    assert [node.spec for node in outcome.made] == [good]
    assert outcome.parts_missing == []


def test_an_artifact_sealed_by_another_process_counts_as_made_elsewhere(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    """This process had lost its lease, as after a long pause."""
    cake = Cake(value=1)
    real, meanwhile = Batch.restart_stopwatch, []

    def sealed_elsewhere(batch: Batch[Cake]) -> None:
        if not meanwhile:
            meanwhile.append(True)
            with Context(Keys(workspace), workspace.store).batch((cake,)) as other:
                find_recipe(Cake).make(other)
        real(batch)

    monkeypatch.setattr(Batch, "restart_stopwatch", sealed_elsewhere)
    outcome = run(workspace, cake)
    assert [node.spec for node in outcome.made_elsewhere] == [cake]
    assert outcome.made == []
    assert outcome.ok
    assert_baked(workspace, cake)


# Parts that others are making.


class Others:
    """Another process that has leases of parts, on another host."""

    def __init__(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self._monkeypatch = workspace.store, monkeypatch

    def take(self, cake: Cake, *indices: int) -> list[Any]:
        with self._monkeypatch.context() as patch:
            here = ProcessId.here()
            patch.setattr(ProcessId, "here", lambda: here._replace(host="elsewhere", pid=42))
            patch.setattr(leases.heartbeats, "add", lambda lease: None)
            taken = self.store.lease_all([(cake.kind, part_key(cake.key, i)) for i in indices])
        assert taken
        return taken


@pytest.fixture
def others(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Others:
    return Others(workspace, monkeypatch)


def make_part(workspace: Workspace, cake: Cake, index: int) -> None:
    """Make a part as the process that holds its lease does."""
    log(f"{cake.value}.{index}")
    with Context(Keys(workspace), workspace.store).batch((cake,)) as batch:
        values = np.arange(2, dtype="f4") + 2 * index + 100 * cake.value
        draft = batch.store.draft(cake.kind, cake.key, index)
        with draft:
            with draft.array("x", (2,), "f4", rows_per_shard=2) as writer:
                writer.append(values)
            facts = batch.facts(cake, batch._watch, 1)
            draft.publish(**facts, attributes={"sum": float(values.sum())})


def test_parts_that_others_make_are_waited_for(
    workspace: Workspace, others: Others, diary: Path, monkeypatch: pytest.MonkeyPatch
):
    """The wait does not become longer because this process's own parts took long."""
    cake = Cake(value=1, pause_s=0.4)
    (lease,) = others.take(cake, 1)

    def finish() -> None:
        make_part(workspace, cake, 1)
        lease.release()

    looks_s: list[float] = []
    pause = Backoff.pause

    def timed(backoff: Backoff) -> None:
        looks_s.append(time.monotonic() - backoff._woke)
        pause(backoff)

    monkeypatch.setattr(Backoff, "pause", timed)
    notes = Notes(functools.cache(finish))
    assert run(workspace, cake, notes=notes).ok
    assert max(looks_s) < 3 * cake.pause_s
    assert Counter(begun(diary)) == Counter(["1.0", "1.2", "1.3", "1.1", "1.seal"])
    assert {"elsewhere (process 42)": [1]} in notes.owners
    assert notes.owners[-1] == {}
    assert_baked(workspace, cake)


def test_a_part_that_another_process_gives_up_is_made_here(
    workspace: Workspace, others: Others, diary: Path
):
    cake = Cake(value=1)
    taken = others.take(cake, 0, 2)
    notes = Notes(functools.cache(lambda: [lease.release() for lease in taken]))
    assert run(workspace, cake, Cake(value=2), notes=notes).ok
    made = begun(diary)
    assert sorted(made[:-2]) == sorted(f"{v}.{i}" for v in (1, 2) for i in range(4))
    assert made[:2] == ["1.1", "2.1"]


def test_the_listener_is_told_when_waiting_ends(
    workspace: Workspace, others: Others, diary: Path, monkeypatch: pytest.MonkeyPatch
):
    """Even if nothing is left to make afterwards, and before sealing."""
    cake = Cake(value=1, n=2)
    run_some(workspace, [0], cake)
    (lease,) = others.take(cake, 1)

    def meanwhile(backoff: Backoff) -> None:
        make_part(workspace, cake, 1)
        lease.release()

    monkeypatch.setattr(Backoff, "pause", meanwhile)
    begun(diary)

    class Loud(Notes):
        def wait(self, owners: Any) -> None:
            super().wait(owners)
            log("waiting" if owners else "over")

    notes = Loud()
    assert run(workspace, cake, notes=notes).ok
    assert {"elsewhere (process 42)": [1]} in notes.owners
    logged = begun(diary)
    assert logged[logged.index("waiting") :][:4] == ["waiting", "1.1", "over", "1.seal"]


def test_an_artifact_sealed_just_before_the_lease_is_not_made_again(
    workspace: Workspace, diary: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its parts were deleted by then, and do not count as missing."""
    cake, meanwhile = Cake(value=1), []
    take_all = Store.lease_all

    def late(store: Store, wanted: Any) -> Any:
        if not meanwhile:
            meanwhile.append(True)
            run(workspace, cake)
        return take_all(store, wanted)

    monkeypatch.setattr(Store, "lease_all", late)
    outcome = run_some(workspace, [0, 1], cake)
    assert [node.spec for node in outcome.made_elsewhere] == [cake]
    assert begun(diary) == ["1.0", "1.1", "1.2", "1.3", "1.seal"]
    assert_baked(workspace, cake)


def test_a_recipe_may_itself_run_what_its_batch_makes(workspace: Workspace, diary: Path):
    class Nested(Artifact):
        kind: ClassVar = "checkpoints"
        value: int

    inside: list[RunResult] = []

    def make(batch: Batch[Nested], todo: PendingParts[Nested]) -> None:
        for part in todo:
            if not inside:
                inside.append(RunResult())
                inside[0] = run(workspace, Nested(value=2))
            for spec in part.specs:
                log(f"{spec.value}.{part.index}")
                part.draft(spec).write("x", np.arange(2))
                part.publish(spec)

    @recipe(Nested, batch_by=lambda spec: 0, parts=Parts(lambda spec, site: 1, make))
    def join(batch: Batch[Nested]) -> None:
        for spec in batch.open_specs:
            batch.draft(spec).join("x", [part.array("x") for part in batch.parts(spec)])
            batch.publish(spec)

    outcome = run(workspace, Nested(value=1), Nested(value=2))
    assert outcome.ok
    assert inside[0].ok
    assert [node.spec.value for node in inside[0].made] == [2]
    assert [node.spec.value for node in outcome.made] == [1]
    assert [node.spec.value for node in outcome.made_elsewhere] == [2]
    assert leftovers(workspace.store.root) == []


# Other processes.


CHILD = """
import importlib.util, json, sys
sys.path.insert(0, {repository!r})
loaded = importlib.util.spec_from_file_location("cakes", {file!r})
cakes = importlib.util.module_from_spec(loaded)
sys.modules["cakes"] = cakes
loaded.loader.exec_module(cakes)
cakes.child(json.loads(sys.argv[1]))
"""


def child(what: dict[str, Any]) -> None:
    """Make some cakes, or parts of them, once all processes are ready."""
    os.fsync = lambda fd: None
    workspace = open_workspace(Path(what["root"]))
    barrier = Path(what["root"] + ".ready")
    barrier.mkdir(exist_ok=True)
    (barrier / str(os.getpid())).touch()
    while len(list(barrier.iterdir())) < what["crowd"]:
        time.sleep(0.001)
    cakes = [Cake(**fields) for fields in what["cakes"]]
    share = what["parts"]
    outcome = run(workspace, *cakes) if share is None else run_some(workspace, share, *cakes)
    assert outcome.ok, outcome
    print(json.dumps({
        "made": [node.spec.value for node in outcome.made],
        "made_elsewhere": [node.spec.value for node in outcome.made_elsewhere],
        "parts_missing": [node.spec.value for node in outcome.parts_missing],
    }))  # fmt: skip


def start(
    workspace: Workspace, *cakes: Cake, parts: list[int] | None = None, crowd: int = 1
) -> subprocess.Popen[str]:
    what = {
        "root": str(workspace.store.root),
        "cakes": [cake.model_dump() for cake in cakes],
        "parts": parts,
        "crowd": crowd,
    }
    code = CHILD.format(repository=str(REPOSITORY), file=__file__)
    return subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(what)], stdout=subprocess.PIPE, text=True
    )


def end(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(out)


def wait_for(diary: Path, what: str) -> None:
    deadline = time.monotonic() + 240
    while not diary.exists() or what not in diary.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_run_resumes_at_the_next_part(workspace: Workspace, diary: Path):
    killed = start(workspace, Cake(value=1), Cake(value=2, how="killed 2"))
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert parts_of(workspace, Cake(value=2)) == [0, 1]
    begun(diary)
    cakes = [Cake(value=1), Cake(value=2)]
    assert run(workspace, *cakes).ok
    assert begun(diary) == ["2.2", "1.3", "2.3", "1.seal", "2.seal"]
    for holder in workspace.store.leases():  # of 1.2, which was there, and so not leased again
        assert not holder.may_be_alive
        leases.remove_dead(workspace.store.root, holder)
    assert_baked(workspace, *cakes)


def test_the_part_of_a_killed_process_is_made_here(workspace: Workspace, diary: Path):
    slow = start(workspace, Cake(value=1, pause_s=3600), parts=[1])
    wait_for(diary, "1.1")
    notes = Notes(slow.kill)
    assert run(workspace, Cake(value=1), notes=notes).ok
    slow.communicate()
    host = os.uname().nodename
    assert {f"{host} (process {slow.pid})": [1]} in notes.owners
    assert begun(diary) == ["1.1", "1.0", "1.2", "1.3", "1.1", "1.seal"]
    assert_baked(workspace, Cake(value=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "shares",
    [[None, None], [None, [0, 2, 4]], [None, [5, 4, 3], [0, 1, 2]], [[0, 1, 2], [3, 4, 5], [2, 3]]],
    ids=["inline twice", "inline and a share", "inline and shares", "shares that overlap"],
)
def test_concurrent_runs_make_nothing_twice(workspace: Workspace, diary: Path, shares: list[Any]):
    cakes = [Cake(value=v, n=6, pause_s=0.03) for v in (1, 2)]
    running = [start(workspace, *cakes, parts=one, crowd=len(shares)) for one in shares]
    results = [end(process) for process in running]
    made = Counter(begun(diary))
    assert set(made.values()) == {1}
    assert len(made) == 2 * 7
    assert sum(len(one["made"]) for one in results) == 2
    for one, share in zip(results, shares, strict=True):
        if share is None:
            assert sorted(one["made"] + one["made_elsewhere"]) == [1, 2]
            assert one["parts_missing"] == []
        else:
            assert sorted(one["made"] + one["made_elsewhere"] + one["parts_missing"]) == [1, 2]
    assert_baked(workspace, *cakes)
