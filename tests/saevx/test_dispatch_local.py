"""Dispatch to processes of this machine, and what can be tested of dispatch without Slurm."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from dispatching import Place, wait_until

BRANCHES = "targets = [Branch(leaf=Leaf(value=value), value=2) for value in range(6)]"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.profile("")
    return place


def workers(place: Place) -> list[int]:
    """Processes that work in a place."""
    found = []
    for name in os.listdir("/proc"):
        try:
            words = Path("/proc", name, "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"saevx.dispatch.worker.main" in words and any(
            word.startswith(os.fsencode(place.folder)) for word in words
        ):
            found.append(int(name))
    return found


def test_the_same_bytes_as_an_inline_run_and_nothing_twice(place: Place, tmp_path: Path):
    ran = place.saevx("run", place.write(BRANCHES), "--jobs", "2")
    assert ran.code == 0, ran
    assert "made 12 artifacts" in ran.out
    assert set(place.makings("begin").values()) == {1}
    processes = {line.split()[2] for line in place.log.read_text().splitlines()}
    assert len(processes) == 2
    inline = Place(tmp_path / "inline")
    inline.folder.mkdir()
    inline.profile("")
    inline.saevx("run", inline.write(BRANCHES))
    assert place.contents() == inline.contents()
    assert workers(place) == []


def test_a_failure_stops_only_what_needs_it_and_is_remembered(place: Place):
    file = place.write("""
        leaves = [Leaf(value=1), Leaf(value=2, how="error"), Leaf(value=3)]
        targets = [Branch(leaf=leaf, value=7) for leaf in leaves]
    """)
    ran = place.saevx("run", file, "--jobs", "2")
    assert ran.code == 1
    assert "2 of 3 targets are in the store" in ran.out
    assert "2 cannot be made" in ran.err
    assert "1 not made, because an input failed" in ran.err
    again = place.saevx("run", file, "--jobs", "2")
    assert "--retry-failed" in again.err
    assert sum(place.makings("begin").values()) == 5
    place.saevx("run", file, "--jobs", "2", "--retry-failed")
    assert sum(place.makings("begin").values()) == 6


@pytest.mark.slow
def test_a_change_of_the_code_tries_failures_again(place: Place):
    file = place.write('targets = [Leaf(value=2, how="error")]')
    place.saevx("run", file, "--jobs", "1")
    place.write('targets = [Leaf(value=2, how="error")]  # better now?')
    place.saevx("run", file, "--jobs", "1")
    assert sum(place.makings("begin").values()) == 2


def test_a_killed_worker_is_tried_again_once(place: Place):
    file = place.write("""
        targets = [Leaf(value=1), Leaf(value=2, how="killed once"), Leaf(value=3, how="killed")]
    """)
    ran = place.saevx("run", file, "--jobs", "2")
    assert "2 of 3 targets are in the store" in ran.out
    assert "ended by SIGKILL" in ran.err
    assert "tried 2 times" in ran.err
    assert sorted(place.makings("begin").values()) == [1, 2, 2]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_run(place: Place, sign: signal.Signals):
    file = place.write("targets = [Leaf(value=value, pause_s=60) for value in range(3)]")
    process = place.start("run", file, "--jobs", "2")
    wait_until(lambda: len(place.makings("begin")) == 2)
    assert len(workers(place)) == 2
    process.send_signal(sign)
    process.communicate()
    assert process.returncode != 0
    wait_until(lambda: not workers(place))
    assert place.leases() == []
    assert place.json("status")[0]["artifacts"] == {"unknown": 3}


@pytest.mark.slow
def test_the_next_run_takes_over_from_a_killed_one(place: Place):
    file = place.write("targets = [Leaf(value=value, pause_s=1.5) for value in range(4)]")
    process = place.start("run", file, "--jobs", "2")
    wait_until(lambda: len(place.makings("made")) == 2)
    process.kill()
    process.communicate()
    ran = place.saevx("run", file, "--jobs", "2")
    assert ran.code == 0, ran
    assert set(place.makings().values()) == {1}
    assert place.saevx("status").out == "nothing is queued or running\n"


@pytest.mark.slow
def test_two_runs_at_once_share_the_work(place: Place):
    file = place.write("""
        targets = [Branch(leaf=Leaf(value=value, pause_s=0.3), value=2) for value in range(6)]
    """)
    runs = [place.start("run", file, "--jobs", "2") for _ in range(2)]
    for run in runs:
        out, err = run.communicate()
        assert run.returncode == 0, (out, err)
    assert len(place.makings()) == 12
    assert set(place.makings().values()) == {1}


@pytest.mark.slow
def test_detached_it_goes_on_and_can_be_cancelled(place: Place):
    file = place.write("targets = [Leaf(value=value, pause_s=60) for value in range(3)]")
    ran = place.saevx("run", file, "--jobs", "2", "--detach")
    assert ran.code == 3
    (log,) = (place.folder / ".saevx" / ".jobs" / ".detached").iterdir()
    assert f"logs to {log}" in ran.out
    wait_until(lambda: len(place.makings("begin")) == 2)
    (run,) = place.json("status")
    assert run["artifacts"] == {"running": 2, "waiting": 1}
    ran = place.saevx("cancel", "other.py", "abcdef")
    assert ran.code == 1
    assert "nothing is queued or running for other.py" in ran.err
    assert "nothing is queued or running for abcdef" in ran.err
    assert len(workers(place)) == 2
    done = place.json("cancel", file)
    assert (done["cancelled"], len(done["keys"]), done["nothing"]) == (3, 3, [])
    wait_until(lambda: not workers(place))
    assert place.makings() == {}
    assert place.json("status") == []
    assert place.saevx("cancel", file).code == 1
    assert place.saevx("cancel", "--all").code == 0


@pytest.mark.slow
def test_editing_the_experiment_changes_nothing_that_is_queued(place: Place):
    code = """
        import time
        from typing import ClassVar
        from saevx import Artifact, recipe

        class Word(Artifact):
            kind: ClassVar = "checkpoints"
            n: int

        @recipe(Word)
        def make_word(batch):
            (spec,) = batch.specs
            time.sleep(1)
            batch.draft(spec).write("word", __import__("numpy").array([len("old")]))
            batch.publish(spec, {"word": "old"})

        targets = [Word(n=n) for n in range(3)]
    """
    process = place.start("run", place.write(code), "--jobs", "1")
    wait_until(place.arrays)
    place.write(code.replace("old", "a new one"))
    out, err = process.communicate()
    assert process.returncode == 0, (out, err)
    words = [artifact.manifest.attributes["word"] for artifact in place.store.scan()]
    assert words == ["old"] * 3


def test_one_gpu_a_worker(place: Place):
    file = place.write("targets = [Leaf(value=value, pause_s=3600) for value in range(2)]")
    process = place.start("run", file, "--jobs", "2", CUDA_VISIBLE_DEVICES="4,7")
    found = wait_until(lambda: workers(place) if len(workers(place)) == 2 else [])
    seen = set()
    for pid in found:
        for entry in Path("/proc", str(pid), "environ").read_bytes().split(b"\0"):
            if entry.startswith(b"CUDA_VISIBLE_DEVICES="):
                seen.add(entry.partition(b"=")[2])
    place.hurry()
    process.communicate()
    assert seen == {b"4", b"7"}


@pytest.mark.parametrize(
    ("toml", "words", "says"),
    [
        ("", ["--profile", "cluster"], "no profile 'cluster'"),
        ("[profiles.a]\nexecutor = 'cloud'", ["--profile", "a"], "must be one of"),
        ("[profiles.a]\nhuors = 3", ["--profile", "a"], "huors"),
        ("[profiles.a]\nhours = -3", ["--profile", "a"], "> 0.0"),
        ("[profiles.a]\nmemory_gb = 'much'", ["--profile", "a"], "memory_gb"),
        ("[profiles.a.recipes.Leaf]\ngpu = 1", ["--profile", "a"], "recipes.Leaf"),
        ("[[profiles.a.match]]\ngpus = 1", ["--profile", "a"], "needs `where`"),
        ("[profiles.a]\ngpus = -1", ["--profile", "a"], ">= 0"),
        ("[profiles.a]\nhours = 1e9", ["--profile", "a"], "<= 596522.0"),
        ("[profiles.a]\nhours = nan", ["--profile", "a"], "> 0.0"),
        ("[profiles.a]\nmemory_gb = inf", ["--profile", "a"], "memory_gb"),
        ("[profiles.a]\nfollow_hours = true", ["--profile", "a"], "follow_hours"),
        ("[profiles.a]\njobs = 4", ["--profile", "a"], "number of local processes"),
        ("profile = 3", [], "at `profile`"),
        ("", ["--detach"], "--detach needs"),
        ("", ["--executor", "slurm", "--jobs", "2"], "--jobs is the number of local processes"),
    ],
)
def test_options_that_make_no_sense(place: Place, toml: str, words: list[str], says: str):
    place.profile(toml)
    ran = place.saevx("run", place.write(BRANCHES), *words)
    assert ran.code == 1
    assert says in ran.err
    assert "Traceback" not in ran.err
    assert place.contents() == {}


def test_what_fits_no_type_or_column_is_a_warning(place: Place):
    place.profile("""
        [profiles.a]
        executor = "local"
        recipes = { Lef = { cpus = 1 }, Leaf = { cpus = 1 }, Shards = { cpus = 1 } }
        match = [
            { where = { typ = "Leaf" }, cpus = 1 },
            { where = { type = "Leaf", valu = 3 }, cpus = 1 },
            { where = { type = "Leaf", value = 3 }, cpus = 1 },
            { where = { type = "Branch", "leaf.value" = 3 }, cpus = 1 },
            { where = { type = "Twig" }, cpus = 1 },
            { where = { "vit.name" = "x" }, cpus = 1 },
        ]
    """)
    for command in ("plan", "run"):
        ran = place.saevx(command, place.write("targets = [Leaf(value=3)]"), "--profile", "a")
        assert ran.code == 0
        assert [line for line in ran.err.splitlines() if line.startswith("warning")] == [
            "warning: profile a: recipes.Lef: no type of spec has that name",
            "warning: profile a: match[0]: no type of spec has a field 'typ'",
            "warning: profile a: match[1]: Leaf has no column 'valu'",
            "warning: profile a: match[4]: no type of spec has the name 'Twig'",
        ]


def test_what_cannot_be_loaded_is_not_detached(place: Place):
    ran = place.saevx("run", "typo.py", "--jobs", "2", "--detach")
    assert ran.code == 1
    assert "typo.py" in ran.err
    (place.folder / "broken.py").write_text("targets = [")
    assert place.saevx("run", "broken.py", "--jobs", "2", "--detach").code == 1
    assert not (place.folder / ".saevx" / ".jobs" / ".detached").exists()


def test_what_runs_out_of_memory_here_is_not_tried_again(place: Place):
    file = place.write("""
        from saevx import recipe

        class Fat(Leaf):
            pass

        @recipe(Fat)
        def make_fat(batch):
            batch.fail(batch.specs[0], MemoryError("no more"))

        targets = [Fat(value=1)]
    """)
    ran = place.saevx("run", file, "--jobs", "1")
    assert ran.code == 1
    assert "out of memory" in ran.err
    assert "tried" not in ran.err
    assert "use fewer --jobs" in ran.err
    assert len(place.arrays()) == 1


def test_dispatch_costs_no_torch():
    import subprocess

    code = """
import sys
import saevx.dispatch.coordinator, saevx.dispatch.worker.main, saevx.dispatch.runs.status
heavy = {"torch", "zarr", "timm", "sklearn", "submitit", "polars"} & set(sys.modules)
sys.exit(", ".join(heavy) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_hangs_when_a_recipe_ends_the_process(place: Place):
    file = place.write("""
        from saevx import recipe

        class Rude(Leaf):
            pass

        @recipe(Rude)
        def make_rude(batch):
            import os
            os._exit(3)

        targets = [Rude(value=1)]
    """)
    ran = place.saevx("run", file, "--jobs", "1")
    assert ran.code == 1
    assert "ended with code 3" in ran.err


@pytest.mark.parametrize("name", ["Leaf", "unruly.Leaf"])
def test_a_match_names_a_users_type_with_its_namespace_or_without(place: Place, name: str):
    place.profile(f"""
        [profiles.a]
        executor = "local"
        match = [{{ where = {{ type = "{name}", value = 2 }}, cpus = 3 }}]
    """)
    file = place.write("targets = [Leaf(value=value) for value in (1, 2)]")
    planned = place.json("plan", file, "--profile", "a")
    assert sorted(line["resources"]["cpus"] for line in planned["arrays"]) == [1, 3]
    assert "warning" not in place.saevx("plan", file, "--profile", "a").err
