"""saevx run: make what an experiment lacks, print and save its report."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from saevx.cli.common.options import clear_errors, json_option, store_option, warn


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
    from saevx.cli.run.detach import start_detached, start_following
    from saevx.cli.run.display import Terminal
    from saevx.cli.run.summary import RunSummary
    from saevx.dispatch.execution import Execution
    from saevx.experiments.load import load_experiment
    from saevx.session import Session
    from saevx.workspace import open_workspace

    execution = Execution(executor, jobs, profile, detach=detach, retry_failed=retry_failed)
    workspace = open_workspace(store)
    experiment = load_experiment(file)
    if detach and execution.executor == "local":  # work goes on only while a process of ours does
        start_detached(experiment, workspace.store)
    if follow:
        start_following(experiment, workspace.store, execution)
    session = Session(experiment, workspace, execution, Terminal(experiment.name, quiet=as_json))
    record = RunSummary(experiment.name, str(workspace.store.root))
    for plan, outcome in session.run():
        record.add(plan, outcome, workspace.store)
    if record.ok:
        record.add_report(session.report(), workspace.reports)
    elif experiment.report is not None:
        record.notes.append("no report: it is made once every target is there")
    if session.recording.problem:
        warn([f"`saevx gc` may not see this run: {session.recording.problem}"])
    record.show(as_json)
    if not record.ok:
        sys.exit(1)
