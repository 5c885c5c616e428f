"""saevx run: make what an experiment lacks, print and save its report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import clear_errors, json_option, store_option

if TYPE_CHECKING:
    from spec import Artifact
    from store.roots import Recording

    from ..experiment import Experiment
    from ..resolve.plan import Plan
    from ..resolve.run import Outcome
    from ..workspace import Workspace
    from .run_record import RunRecord
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
@click.option("--follow", is_flag=True, help="Let a small Slurm job of its own do the waiting.")
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
    follow: bool,
    retry_failed: bool,
    store: str | None,
    as_json: bool,
) -> None:
    """Make what the experiment FILE lacks, and print its report.

    Ends with 0 only when every target is there, with 3 when work goes on without this command
    (--detach, --follow, or Ctrl-C with Slurm): the same command again attaches to it.
    """
    from .sending import Sending

    sending = Sending(executor, jobs, profile, detach, retry_failed, quiet=as_json)
    from store.roots import Recording

    from ..experiment import load_experiment
    from ..stages import give_back
    from ..workspace import open_workspace
    from .run_record import RunRecord

    workspace = open_workspace(store)
    experiment = load_experiment(file)
    if sending.detaches_itself:
        sending.start_detached(experiment, workspace.store)
    if follow:
        sending.start_following(experiment, workspace.store)
    recording = Recording(workspace.store, file, experiment.name)
    record = RunRecord(experiment.name, str(workspace.store.root))
    results: list[Artifact] = []
    stages = experiment.stages()
    given: Any = None
    while True:
        try:
            specs = stages.send(given)
        except StopIteration:
            break
        plan, outcome = make_stage(experiment, specs, workspace, recording, sending)
        record.add(plan, outcome, workspace.store)
        if not outcome.ok:
            break
        results += [spec for spec in specs if spec.kind == "results"]
        given = give_back(specs, workspace) if experiment.is_staged else None
    stages.close()
    if record.ok:
        recording.complete()
        report(experiment, results, workspace, record)
    elif experiment.report is not None:
        record.notes.append("no report: it is made once every target is there")
    if recording.problem:
        click.echo(f"warning: `saevx gc` may not see this run: {recording.problem}", err=True)
    record.show(as_json)
    if not record.ok:
        sys.exit(1)


def report(
    experiment: Experiment, results: list[Artifact], workspace: Workspace, record: RunRecord
) -> None:
    """Add the experiment's report to the record; one that cannot be saved is a warning."""
    if experiment.report is None:
        return
    from ..errors import StoreError
    from ..report import make_report
    from ..stages import table_of

    table = table_of(results, workspace) if results else None
    record.report = make_report(experiment, table)
    try:
        record.saved = record.report.save(workspace.reports)
    except StoreError as error:
        record.warnings.setdefault(str(error), []).append("report")


def make_stage(
    experiment: Experiment,
    specs: list[Artifact],
    workspace: Workspace,
    recording: Recording,
    sending: Sending,
) -> tuple[Plan, Outcome]:
    """Plan one stage's specs, and make what is missing."""
    from spec import Keys

    from ..recipes import find_recipe
    from ..resolve.provenance import Origin
    from ..resolve.record import plan_recorded, run_recorded
    from ..resolve.run import Outcome

    keys = Keys(workspace)
    plan = plan_recorded(specs, keys, workspace.store, recording)
    if plan.done:
        return plan, Outcome()
    from .bars import Bars, count

    if not sending.quiet:
        click.echo(f"{experiment.name}: to make: {count(plan.to_make)}", err=True)
    origin = Origin(experiment.path)
    how = (plan, keys, workspace.store, recording, find_recipe)
    if sending.executor != "inline":
        return run_recorded(*how, None, origin, sending.executing(experiment))
    with Bars(sending.quiet) as bars:
        return run_recorded(*how, bars, origin)
