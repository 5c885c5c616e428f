"""Listing, planning and publishing at scale.

Run as `python tests/bench/stores.py [--quick] [--rounds N] [--folder FOLDER]`. Stores of up to
100,000 artifacts are generated: the files of artifacts that were really published, with the
manifest of another spec. What the generator writes is first compared with what a recipe publishes.

- `ls` runs in processes of its own: cold (no catalogue and, as root, no page cache) and warm.
- A no-op run and a plan are timed within one process, from specs to their end, beside the time that
  building the specs takes; the command line over 1,000 targets beside the same over one.
- Tables of 1,000 specs, and those that a search finds, are read into one frame.
- Publishing is compared with writing and flushing the same files plainly, in turns.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, ClassVar, NamedTuple

import msgspec
import numpy as np
import polars as pl
from _report import Bar, at_most, median_wall_s, report, wall_s

from saevx import (
    CUB200,
    Artifact,
    RandomInit,
    RandomPrototypes,
    Shards,
    Squash,
    TraitAP,
    ViT,
)
from saevx.notebook import table
from saevx.recipes import find_recipe
from saevx.resolve.context import Context
from saevx.resolve.plan import make_plan
from saevx.workspace import Workspace
from spec import Keys, to_document
from store import Manifest, Reference, Store
from store.artifact.manifest import encode_manifest
from store.layout import home, node_file

HERE = Path(__file__).resolve().parent

N_TRAITS = 312
"""As many rows as a table over CUB-200-2011 has."""


def targets(cub: Path, n: int) -> list[Artifact]:
    """`n` different tables. Every one is built anew from the image set up, as in a plain loop."""
    choices = itertools.product(
        range(1 + n // 5000), (16, 64, 256, 1024, 4096, None), (128, 512, 2048, 8192), range(24)
    )
    found: list[Artifact] = []
    for seed, n_train, k, layer in itertools.islice(choices, n):
        vit = ViT(name="vit_tiny_patch16_224", weights=RandomInit(seed=0), resize=Squash(size=32))
        train, test = (CUB200(split=split, root=str(cub)) for split in ("train", "test"))
        shards = Shards(images=train.images, vit=vit, layer=layer)
        scorer = RandomPrototypes(shards=shards, n=k, seed=seed)
        found.append(TraitAP(scorer=scorer, train=train, test=test, n_train=n_train))
    if len(found) < n:
        found += [
            target.model_copy(update={"n_train": 5000 + i})
            for i, target in zip(range(n - len(found)), itertools.cycle(found[:]), strict=False)
        ]
    return found


class Template(NamedTuple):
    """An artifact that was really published."""

    manifest: Manifest
    files: dict[str, bytes]


def publish(spec: Artifact, workspace: Workspace) -> Template:
    """Through the same door as a recipe, with the arrays or the table that one would write."""
    rng = np.random.default_rng(0)
    context = Context(Keys(workspace), workspace.store, find_recipe)
    with context.batch((spec,)) as batch:
        draft = batch.draft(spec)
        facts: dict[str, Any] = {}
        if isinstance(spec, TraitAP):
            draft.table("traits", frame())
            facts = {"n_traits": N_TRAITS, "left_out": [], "mean_ap": 0.25, "mean_constant_ap": 0.1}
        else:
            draft.write("values", rng.standard_normal((64, 8), np.float32))
        made = batch.publish(spec, facts)
    files = {name: (made.path / name).read_bytes() for name in made.manifest.files}
    return Template(made.manifest, files)


def frame() -> pl.DataFrame:
    rng = np.random.default_rng(1)
    return pl.DataFrame(
        {
            "trait": [f"has_part_{i // 8}::colour_{i % 8}" for i in range(N_TRAITS)],
            "prototype": rng.integers(0, 1024, N_TRAITS),
            "ap": rng.random(N_TRAITS),
            "train_ap": rng.random(N_TRAITS),
            "constant_ap": rng.random(N_TRAITS),
            "n_pos_train": rng.integers(0, 99, N_TRAITS),
            "n_pos_test": rng.integers(0, 99, N_TRAITS),
            "n_train_images": np.full(N_TRAITS, 959),
            "n_test_images": np.full(N_TRAITS, 959),
            "left_out": [None] * N_TRAITS,
        },
        schema_overrides={"left_out": pl.String},
    )


class Generator:
    """Writes artifacts of any spec after the templates, without drafts and without flushing."""

    def __init__(self, workspace: Workspace, scratch: Path, examples: list[Artifact]) -> None:
        self.keys = Keys(workspace)
        aside = Workspace(Store(scratch), {})
        self.templates = {type(spec): publish(spec, aside) for spec in examples}

    def manifest(self, spec: Artifact) -> Manifest:
        return msgspec.structs.replace(
            self.templates[type(spec)].manifest,
            key=self.keys.of(spec),
            canonical=self.keys.canonical(spec),
            spec=to_document(spec, self.keys),
            parents={
                name: Reference(parent.kind, self.keys.of(parent))
                for name, parent in spec.inputs().items()
            },
        )

    def write(self, store: Store, spec: Artifact, *, with_files: bool) -> None:
        manifest = self.manifest(spec)
        folder = home(store.root_of(spec.kind), spec.kind, manifest.key)
        folder.mkdir(parents=True)
        if with_files:
            files = self.templates[type(spec)].files
            for name in sorted({os.path.dirname(name) for name in files}):
                (folder / name).mkdir(exist_ok=True)
            for name, data in files.items():
                (folder / name).write_bytes(data)
        (folder / node_file("")).write_bytes(encode_manifest(manifest))

    def check(self, spec: Artifact, workspace: Workspace) -> None:
        """Raises AssertionError when it writes something else than a recipe publishes."""
        really = publish(spec, workspace)
        made = self.manifest(spec)
        origin = {"created": made.created, "provenance": made.provenance}
        assert msgspec.structs.replace(really.manifest, **origin) == made
        assert really.files == self.templates[type(spec)].files
        folder = home(workspace.store.root, spec.kind, made.key)
        whole = encode_manifest(really.manifest)
        assert (folder / node_file("")).read_bytes() == whole
        shutil.rmtree(folder)
        self.write(workspace.store, spec, with_files=True)
        found = workspace.store.open(spec.kind, made.key)
        assert found.verify() == []
        assert found.manifest == made


def with_inputs(specs: list[Artifact], keys: Keys, n: int) -> list[Artifact]:
    """Specs and all below them, each once, `n` at most: those below first."""
    found: dict[str, Artifact] = {}

    def add(spec: Artifact) -> None:
        if keys.of(spec) not in found:
            for below in spec.inputs().values():
                add(below)
            found[keys.of(spec)] = spec

    for spec in specs:
        add(spec)
        if len(found) >= n:
            break
    return list(found.values())[:n]


class Run(NamedTuple):
    """One run of the command line in a process of its own."""

    wall_s: float
    peak_memory_bytes: int
    n_lines: int


COMMAND = """
import atexit, os, sys
from pathlib import Path
def tell():  # of this program alone: ru_maxrss counts what the parent had when it forked, too
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            Path(sys.argv.pop()).write_text(line.split()[1])
atexit.register(tell)
peak, sys.argv = sys.argv[1], ["saevx", *sys.argv[2:]]
from saevx.cli import main
try:
    main()
finally:
    sys.argv.append(peak)
"""


def saevx(*words: str, cwd: Path) -> Run:
    env = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    peak = cwd / "peak"
    with tempfile.TemporaryFile() as out:
        start = time.perf_counter()
        command = [sys.executable, "-c", COMMAND, str(peak), *words]
        subprocess.run(command, stdout=out, env=env, cwd=cwd, check=True)
        seconds = time.perf_counter() - start
        out.seek(0)
        return Run(seconds, int(peak.read_text()) * 1024, sum(1 for _ in out))


def drop_page_cache() -> bool:
    """Whether that was permitted."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def forget_catalogues(root: Path) -> None:
    for folder in root.glob("*/.catalogue"):
        shutil.rmtree(folder)


def bench_ls(folder: Path, cub: Path, n: int, rounds: int) -> tuple[dict[str, Any], dict[str, Bar]]:
    workspace = Workspace(Store(folder / "many"), {})
    wanted = targets(cub, n)
    keys = Keys(workspace)
    specs = with_inputs(wanted, keys, n)
    generator = Generator(workspace, folder / "templates", examples(specs))
    for spec in examples(specs):
        generator.check(spec, Workspace(Store(folder / "checked"), {}))
    seconds = wall_s(lambda: [generator.write(workspace.store, s, with_files=False) for s in specs])
    print(f"{len(specs)} artifacts generated in {seconds:.0f} s", flush=True)
    ls = ("ls", "--store", str(folder / "many"))
    cold, no_catalogue = [], []
    for _ in range(rounds):
        forget_catalogues(folder / "many")
        dropped = drop_page_cache()
        cold.append(saevx(*ls, cwd=folder))
        forget_catalogues(folder / "many")
        no_catalogue.append(saevx(*ls, cwd=folder))
    forms = {
        "warm": ls,
        "where": (*ls, "--where", "layer=13", "--where", "n_train>=64"),
        "json": (*ls, "--json"),
    }
    runs = {
        name: [saevx(*words, cwd=folder) for _ in range(2 * rounds + 1)]
        for name, words in forms.items()
    }
    assert cold[0].n_lines >= len(specs), cold
    figures: dict[str, Any] = {
        "ls_artifacts": len(specs),
        "ls_page_cache_dropped": dropped,
        "ls_no_catalogue_s": median(run.wall_s for run in no_catalogue),
        "ls_catalogue_mb": sum(f.stat().st_size for f in (folder / "many").glob("*/.catalogue/*"))
        / 1e6,
        **{f"ls_{name}_s": median(run.wall_s for run in each) for name, each in runs.items()},
    }
    peak = max(
        run.peak_memory_bytes for each in (cold, no_catalogue, *runs.values()) for run in each
    )
    bars = {
        "ls_cold_s": at_most(median(run.wall_s for run in cold), 20),
        "ls_warm_s": at_most(median(run.wall_s for run in runs["warm"]), 1.5),
        "ls_memory_bytes": at_most(peak, 1 << 30),
    }
    return figures, bars


def examples(specs: list[Artifact]) -> list[Artifact]:
    """One of each type."""
    return list({type(spec): spec for spec in specs}.values())


EXPERIMENT = """
import sys
sys.path[:0] = {paths!r}
from stores import targets as many
from pathlib import Path
targets = many(Path({cub!r}), {n})
"""


def bench_no_op(
    folder: Path, cub: Path, n: int, rounds: int
) -> tuple[dict[str, Any], dict[str, Bar]]:
    """A run that finds everything, in this process and by the command line."""
    store = Store(folder / "whole")
    workspace = Workspace(store, {})
    specs = targets(cub, n)
    generator = Generator(workspace, folder / "templates-whole", specs[:1])
    generator.check(specs[0], Workspace(Store(folder / "checked-whole"), {}))
    seconds = wall_s(lambda: [generator.write(store, spec, with_files=True) for spec in specs])
    print(f"{n} whole artifacts generated in {seconds:.0f} s", flush=True)

    def no_op(some: int) -> Callable[[], object]:
        def run() -> None:
            plan = make_plan(targets(cub, some), Keys(Workspace(store, {})), store)
            assert plan.done
            assert len(plan.targets) == some

        return run

    small = min(n, 1000)
    sides = {
        "few": no_op(small),
        "many": no_op(n),
        "few_specs": lambda: targets(cub, small),
        "many_specs": lambda: targets(cub, n),
    }
    took = median_wall_s(sides, rounds)
    walls: dict[int, list[float]] = {1: [], small: []}
    for some in walls:
        (folder / f"run_{some}.py").write_text(
            EXPERIMENT.format(paths=[str(HERE)], cub=str(cub), n=some)
        )
    for _ in range(2 * rounds + 1):
        for some, seen in walls.items():
            run = saevx("run", f"run_{some}.py", "--store", str(store.root), cwd=folder)
            seen.append(run.wall_s)
    tables = {
        "by_specs": lambda: table(targets(cub, small), Workspace(store, {})),
        "by_search": lambda: table(
            store=Workspace(store, {}), spec="TraitAP", where={"n_train": 16, "n": 128}
        ),
    }
    n_tables = {name: read()["key"].n_unique() for name, read in tables.items()}
    read_s = median_wall_s(tables, rounds)
    figures = {
        **{f"table_{name}_n": n for name, n in n_tables.items()},
        **{f"table_{name}_s": seconds for name, seconds in read_s.items()},
        f"no_op_{small}_specs_s": took["few_specs"],
        f"no_op_{n}_specs_s": took["many_specs"],
        f"no_op_{small}_command_line_s": median(walls[small]),
        "no_op_1_command_line_s": median(walls[1]),
    }
    bars = {
        f"no_op_{small}_s": at_most(took["few"], 0.25),
        f"no_op_{small}_command_line_beyond_start_s": at_most(
            median(walls[small]) - median(walls[1]), 0.25
        ),
        f"no_op_{n}_s": at_most(took["many"], 4),
    }
    return figures, bars


class Link(Artifact):
    """One of a chain: a graph that is deep where that of tables is wide."""

    kind: ClassVar = "checkpoints"
    seed: int
    before: Link | None = None


def chains(n: int, length: int) -> list[Artifact]:
    """The last links of chains, `n` links in all."""
    ends: list[Artifact] = []
    for seed in range(n // length):
        end = None
        for _ in range(length):
            end = Link(seed=seed, before=end)
        ends.append(end)
    return ends


def bench_plan(
    folder: Path, cub: Path, n: int, rounds: int
) -> tuple[dict[str, Any], dict[str, Bar]]:
    """Plans of graphs of `n` nodes of which nothing is there, from specs to reasons."""
    store = Store(folder / "empty")
    wide = targets(cub, n)
    keys = Keys(Workspace(store, {}))
    n_targets = next(i for i in range(0, n, n // 100) if len(with_inputs(wide[:i], keys, n)) >= n)
    shapes: dict[str, Callable[[], list[Artifact]]] = {
        "wide": lambda: targets(cub, n)[:n_targets],
        "deep": lambda: chains(n, 100),
    }
    sizes = {}

    def plan(name: str) -> None:
        specs = shapes[name]()
        start = time.perf_counter()
        made = make_plan(specs, Keys(Workspace(store, {})), store)
        seconds[name].append(time.perf_counter() - start)
        sizes[name] = len(made.nodes)

    seconds: dict[str, list[float]] = {name: [] for name in shapes}
    for _ in range(rounds):
        for name in shapes:
            plan(name)
    figures = {f"plan_{name}_nodes": size for name, size in sizes.items()}
    bars = {f"plan_{name}_s": at_most(median(seconds[name]), 3) for name in shapes}
    return figures, bars


def bench_publish(folder: Path, rounds: int) -> tuple[dict[str, Any], dict[str, Bar]]:
    """A table drafted and published, beside its files written and flushed one after another."""
    store = Store(folder / "publish")
    rows = frame()
    facts = {"type": "TraitAP", "version": 1, "canonical": "{}", "spec": {}, "parents": {}}
    numbers = itertools.count()
    with store.draft("results", f"{next(numbers):032x}") as draft:
        draft.table("traits", rows)
        made = draft.publish(**facts, provenance={})
    files = {
        name: (made.path / name).read_bytes() for name in [*made.manifest.files, node_file("")]
    }
    folders = sorted({os.path.dirname(name) for name in files})

    def ours() -> None:
        key = f"{next(numbers) % 256:02x}{next(numbers):030x}"
        with store.draft("results", key) as draft:
            draft.table("traits", rows)
            draft.publish(**facts, provenance={})

    def plain() -> None:
        place = folder / f"plain{next(numbers)}"
        for name in folders:
            (place / name).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            with open(place / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for name in folders:
            fd = os.open(place / name, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)

    for run in (ours, plain):
        run()
    took = median_wall_s({"ours": ours, "plain": plain}, 10 * rounds + 1)
    figures = {f"publish_{name}_ms": seconds * 1e3 for name, seconds in took.items()}
    return figures, {"publish_beyond_plain_ms": at_most((took["ours"] - took["plain"]) * 1e3, 15)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="stores of a twentieth of the size")
    parser.add_argument(
        "--folder", type=Path, help="where to put the stores, on the disk to measure"
    )
    options = parser.parse_args()
    part = 20 if options.quick else 1
    figures: dict[str, Any] = {"cores": os.cpu_count(), "rounds": options.rounds}
    bars: dict[str, Bar] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        folder = Path(scratch)
        sys.path.append(str(HERE.parent / "saevx"))
        from cub_tree import make_cub

        cub = make_cub(folder / "cub").root
        for bench in (
            lambda: bench_publish(folder, options.rounds),
            lambda: bench_plan(folder, cub, 20_000 // part, options.rounds),
            lambda: bench_no_op(folder, cub, 20_000 // part, options.rounds),
            lambda: bench_ls(folder, cub, 100_000 // part, options.rounds),
        ):
            found, held = bench()
            print(found, held, flush=True)
            figures |= found
            bars |= held
    figures["load"] = os.getloadavg()[0]
    return report("stores", figures, bars)


if __name__ == "__main__":
    raise SystemExit(main())
