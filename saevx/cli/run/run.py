"""saevx run: make the targets of an experiment that are missing, and print its report."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

import click

from saevx.cli.common.options import clear_errors, json_option, store_option, warn


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--executor",
    type=click.Choice(["inline", "local", "slurm"]),
    help="Run in this process (inline, the default), in local processes, or in Slurm jobs.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Number of local processes.")
@click.option("--profile", metavar="NAME", help="Profile in saevx.toml: what jobs ask for.")
@click.option("--detach", is_flag=True, help="Submit the work, and do not wait for it.")
@click.option("--follow", is_flag=True, help="Run this command in a small Slurm job of its own.")
@click.option("--retry-failed", is_flag=True, help="Retry what failed with the same code.")
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
    """Make the targets of experiment FILE that are missing, and print its report.

    Exit codes: 0 when every target is in the store, 1 when some could not be made, 3 when the work
    continues without this command (--detach, --follow, or Ctrl-C with Slurm). Run the same command
    again to attach to that work.
    """
    from saevx.cli.run.detach import start_detached, start_following
    from saevx.cli.run.progress import TerminalDisplay
    from saevx.cli.run.summary import RunSummary
    from saevx.dispatch.execution import Execution
    from saevx.experiments.load import load_experiment
    from saevx.session import Session
    from saevx.workspace import open_workspace

    began = time.monotonic()
    execution = Execution(executor, jobs, profile, detach=detach, retry_failed=retry_failed)
    workspace = open_workspace(store)
    experiment = load_experiment(file)
    if detach and execution.executor == "local":  # local workers need a parent process
        start_detached(experiment, workspace.store)
    if follow:
        start_following(experiment, workspace.store, execution)
    display = TerminalDisplay(experiment.name, quiet=as_json)
    session = Session(experiment, workspace, execution, display)
    summary = RunSummary(experiment.name, str(workspace.store.root))
    for plan, outcome in session.run():
        summary.add(plan, outcome, workspace.store)
    report = session.report() if summary.ok else None
    if report is not None:
        summary.save(report, workspace.reports)
    if session.recording.problem:
        warn([f"`saevx gc` may collect what this run needs: {session.recording.problem}"])
    summary.wall_s = round(time.monotonic() - began, 2)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(summary)))
    else:
        if report is not None:
            report.show()
            click.echo("")
        elif experiment.report is not None:
            click.echo("no report, because some targets are missing", err=True)
        summary.show()
    if not summary.ok:
        sys.exit(1)
