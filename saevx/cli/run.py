"""saevx run: make what an experiment lacks, print and save its report."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import clear_errors, json_option, store_option

if TYPE_CHECKING:
    import polars as pl

    from spec import Artifact, Keys
    from store import Store
    from store.roots import Recording

    from ..experiment import Experiment
    from ..resolve.plan import Plan
    from ..resolve.run import Outcome
    from ..workspace import Workspace
    from .sending import Sending


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--executor",
    type=click.Choice(["inline", "local", "slurm"]),
    help="This process (the default), processes of this machine, or Slurm jobs.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes of the local executor.")
@click.option("--profile", metavar="NAME", help="A profile of saevx.toml: what jobs ask for.")
@click.option("--detach", is_flag=True, help="Send the work off, and do not wait for it.")
@click.option("--retry-failed", is_flag=True, help="Try again what failed with the same code.")
@store_option
@json_option
@clear_errors
def run(
    file: Path,
    executor: str | None,
    jobs: int | None,
    profile: str | None,
    detach: bool,
    retry_failed: bool,
    store: str | None,
    as_json: bool,
) -> None:
    """Make what the experiment FILE lacks, and print its report.

    Ends with 0 only when every target is there, with 3 when work goes on without this command
    (--detach, or Ctrl-C with Slurm): the same command again attaches to it.
    """
    from .sending import Sending

    sending = Sending(executor, jobs, profile, detach, retry_failed, quiet=as_json)
    if sending.detaches_itself:
        sending.start_detached()
    from spec import Keys
    from store.roots import Recording

    from ..experiment import load_experiment
    from ..workspace import open_workspace

    workspace = open_workspace(store)
    experiment = load_experiment(file)
    recording = Recording(workspace.store, file, experiment.name)
    record = RunRecord(experiment.name, str(workspace.store.root))
    stages = experiment.stages()
    result: Any = None
    while True:
        try:
            specs = stages.send(result)
        except StopIteration:
            break
        keys = Keys(workspace)
        plan, outcome = make_stage(experiment, specs, keys, workspace, recording, sending)
        record.add(plan, outcome, workspace.store)
        if not outcome.ok:
            break
        if experiment.wants_tables:
            result = read_stage(specs, workspace)
            record.tables += [result] if hasattr(result, "columns") else []
    stages.close()
    if record.ok:
        recording.complete()
    if recording.problem:
        click.echo(f"warning: `saevx gc` may not see this run: {recording.problem}", err=True)
    if record.ok and experiment.report is not None:
        from ..report import make_report

        record.report = make_report(experiment, record.tables, workspace.reports)
    record.show(as_json)
    if not record.ok:
        sys.exit(1)


def make_stage(
    experiment: Experiment,
    specs: list[Artifact],
    keys: Keys,
    workspace: Workspace,
    recording: Recording,
    sending: Sending,
) -> tuple[Plan, Outcome]:
    """Plan one stage's specs, and make what is missing."""
    from ..recipes import find_recipe
    from ..resolve.record import plan_recorded, run_recorded
    from ..resolve.run import Outcome

    plan = plan_recorded(specs, keys, workspace.store, recording)
    if plan.done:
        return plan, Outcome()
    from .bars import Bars, count

    if not sending.quiet:
        click.echo(f"{experiment.name}: to make: {count(plan.to_make)}", err=True)
    if sending.executor != "inline":
        execute = sending.executing(experiment)
        return run_recorded(plan, keys, workspace.store, recording, find_recipe, execute=execute)
    with Bars(sending.quiet) as bars:
        return run_recorded(plan, keys, workspace.store, recording, find_recipe, bars)


def read_stage(specs: list[Artifact], workspace: Workspace) -> Any:
    """What a staged experiment gets back: a table of results, else what `saevx.load` gives."""
    import warnings

    from ..errors import SaevxWarning

    warnings.simplefilter("ignore", SaevxWarning)  # the record of the run tells them
    from ..notebook import load, table

    if all(spec.kind == "results" for spec in specs):
        return table(specs, workspace)
    return [load(spec, workspace) for spec in specs]


@dataclass
class RunRecord:
    """What a run found, made and could not make."""

    experiment: str
    store: str
    targets: list[dict[str, str]] = field(default_factory=list)
    made: int = 0
    came: int = 0
    """Made by another run meanwhile."""
    failed: dict[str, str] = field(default_factory=dict)
    """Key and type of what failed -> why."""
    blocked: int = 0
    tables: list[pl.DataFrame] = field(default_factory=list)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    """What looks wrong -> in which targets."""
    report: Any = None
    began: float = field(default_factory=time.monotonic)

    @property
    def ok(self) -> bool:
        return not self.failed and not self.blocked

    def add(self, plan: Plan, outcome: Outcome, store: Store) -> None:
        """Take in the outcome of one stage, and what its recipes found suspicious."""
        from ..resolve.run import explain

        for key in plan.targets:
            node = plan.nodes[key]
            name = type(node.spec).__name__
            state = node.state.value if key not in outcome.failed else "failed"
            state = "blocked" if key in outcome.blocked else state
            self.targets.append({"key": key, "type": name, "state": state})
            made = store.find(node.spec.kind, key) if node.spec.kind == "results" else None
            for text in made.manifest.attributes.get("warnings", []) if made else []:
                self.warnings.setdefault(text, []).append(f"{name} {key}")
        self.made += len(outcome.made)
        self.came += len(outcome.came)
        self.blocked += len(outcome.blocked)
        for key, error in outcome.failed.items():
            self.failed[f"{type(plan.nodes[key].spec).__name__} {key}"] = explain(error)

    def show(self, as_json: bool) -> None:
        """Print the record, the report before its last line."""
        wall = round(time.monotonic() - self.began, 2)
        if as_json:
            saved = [str(path) for path in self.report.files] if self.report else []
            document = {
                "experiment": self.experiment,
                "store": self.store,
                "targets": self.targets,
                "made": self.made,
                "came": self.came,
                "failed": self.failed,
                "blocked": self.blocked,
                "warnings": self.warnings,
                "report": saved,
                "wall_s": wall,
            }
            click.echo(json.dumps(document))
            return
        if self.report is not None:
            self.report.show()
        for text, where in self.warnings.items():
            click.echo(f"warning: {_some(where)}: {text}", err=True)
        for what, why in _grouped(self.failed).items():
            click.echo(f"failed: {what}\n  {why.replace(chr(10), chr(10) + '  ')}", err=True)
        if self.blocked:
            click.echo(f"{self.blocked} could not begin, since what they need failed", err=True)
        present = sum(target["state"] == "present" for target in self.targets)
        did = f"made {self.made} artifacts" if self.made or not self.ok else "nothing to make"
        did += f"; {self.came} came from other runs" if self.came else ""
        click.echo(
            f"{self.experiment}: {present} of {len(self.targets)} targets are there; "
            f"{did}; {wall:.1f} s"
        )


def _grouped(failed: dict[str, str]) -> dict[str, str]:
    """Failures with one message told once: what failed, joined -> why."""
    by_reason: dict[str, list[str]] = {}
    for what, why in failed.items():
        by_reason.setdefault(why, []).append(what)
    return {_some(what): why for why, what in by_reason.items()}


def _some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
