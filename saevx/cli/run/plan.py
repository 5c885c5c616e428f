"""saevx plan: print what a run would make, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from saevx.cli.common.options import clear_errors, json_option, store_option, warn
from saevx.cli.common.units import some

if TYPE_CHECKING:
    from saevx.dispatch.cost import ArrayEstimate
    from saevx.resolve.plan import Node, Plan
    from spec import Keys

SHOWN_PER_TYPE = 100
"""Artifacts of one type that are printed without --all."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--all", "show_all", is_flag=True, help="Print all artifacts of each type.")
@click.option(
    "--executor", type=click.Choice(["inline", "local", "slurm"]), help="As for `saevx run`."
)
@click.option("--profile", metavar="NAME", help="Profile in saevx.toml: what jobs ask for.")
@store_option
@json_option
@clear_errors
def plan(
    file: Path,
    show_all: bool,
    executor: str | None,
    profile: str | None,
    store: str | None,
    as_json: bool,
) -> None:
    """Print what `saevx run FILE` would make, and why. Make nothing.

    With the local or slurm executor, also print the job arrays, what each job asks for, and the
    cost estimated from similar artifacts in the store. A staged experiment is planned up to the
    first stage whose targets are not all in the store.
    """
    from saevx.cli.run.progress import TerminalDisplay
    from saevx.dispatch.execution import Execution
    from saevx.experiments.load import load_experiment
    from saevx.recipes import find_recipe
    from saevx.resolve.run import notes_on
    from saevx.session import Session
    from saevx.user_types import notes_on_names
    from saevx.workspace import open_workspace

    experiment = load_experiment(file)
    execution = Execution(executor, None, profile)
    display = TerminalDisplay(experiment.name, quiet=as_json)
    session = Session(experiment, open_workspace(store), execution, display)
    plans = list(session.plans())
    complete = plans[-1].done or not experiment.is_staged
    arrays = None
    if not session.execution.is_inline:
        warn(session.execution.lint_profile(plans[-1], session.keys))
        arrays = session.execution.estimate_arrays(plans[-1], session.context)
    notes = [
        *notes_on_names((node.spec for node in plans[-1].to_make), session.store),
        *notes_on(plans[-1], find_recipe),
    ]
    if as_json:
        document = {**_document(experiment.name, plans, complete), "notes": notes}
        if arrays is not None:
            document["arrays"] = [line.document for line in arrays]
        click.echo(json.dumps(document))
        return
    for note in notes:
        click.echo(f"note: {note}", err=True)
    for stage in plans:
        _print(experiment.name, stage, session.keys, None if show_all else SHOWN_PER_TYPE)
    if arrays:
        _print_arrays(arrays)
    if not complete:
        click.echo("later stages depend on these results, and cannot be planned yet")


def _document(name: str, plans: list[Plan], complete: bool) -> dict[str, Any]:
    return {
        "experiment": name,
        "complete": complete,
        "stages": [
            {
                "targets": list(plan.targets),
                "nodes": [
                    {
                        "key": node.key,
                        "type": type(node.spec).__name__,
                        "kind": node.spec.kind,
                        "state": node.state.value,
                        "why": node.why,
                        "inputs": list(node.inputs),
                    }
                    for node in plan.nodes.values()
                ],
            }
            for plan in plans
        ],
    }


def _print(name: str, plan: Plan, keys: Keys, limit: int | None) -> None:
    from saevx.cli.common.console import console, table
    from saevx.cli.run.progress import count_by_type

    out = console()
    n_present = sum(plan.nodes[key].state.value == "present" for key in plan.targets)
    out.print(f"{name}: {n_present} of {len(plan.targets)} targets are in the store", markup=False)
    _print_warnings(plan)
    if plan.done:
        return
    out.print(f"to make: {count_by_type(node.spec for node in plan.to_make)}", markup=False)
    by_type: dict[str, list[Node]] = {}
    for node in plan.to_make:
        by_type.setdefault(type(node.spec).__name__, []).append(node)
    for type_name, nodes in by_type.items():
        common, columns, rows = _differences(nodes[:limit], keys)
        out.print(f"\n{type_name} ({len(nodes)})  {common}", markup=False, style="bold")
        shown = [[node.key[:8], *row, node.why] for node, row in zip(nodes, rows, strict=False)]
        out.print(table(["key", *columns, "why"], shown))
        if len(rows) < len(nodes):
            out.print(f"and {len(nodes) - len(rows)} more; --all prints them")


def _print_warnings(plan: Plan) -> None:
    """Print each warning about what the store has, once, with the artifacts that it concerns."""
    found: dict[str, list[str]] = {}
    for node in plan.nodes.values():
        for text in node.warnings:
            found.setdefault(text, []).append(f"{type(node.spec).__name__} {node.key}")
    warn(f"{some(names)}: {text}" for text, names in found.items())


def _print_arrays(lines: list[ArrayEstimate]) -> None:
    from saevx.cli.common.console import console, table
    from saevx.cli.common.units import size

    rows = []
    for line in lines:
        asked = line.resources
        parts = [
            f"{asked.hours:g} h",
            f"{asked.cpus} cpus",
            f"{asked.memory_gb:g} GB" if asked.memory_gb else "",
            f"{asked.gpus} gpus" if asked.gpus else "",
            f"on {asked.partition}" if asked.partition else "",
        ]
        work = "?" if line.work_s is None else f"{line.work_s / 60:,.1f} min"
        n_bytes = "?" if line.n_bytes is None else size(line.n_bytes)
        jobs = " + ".join(map(str, line.arrays[:6])) + (" + ..." if line.arrays[6:] else "")
        resources = ", ".join(filter(None, parts))
        rows.append([line.recipe, line.n_artifacts, jobs, resources, work, n_bytes])
    out = console()
    out.print("")
    columns = ["arrays of", "artifacts", "jobs", "each asks for", "work", "size"]
    out.print(table(columns, rows, right=["artifacts", "work", "size"]))


def _differences(nodes: list[Node], keys: Keys) -> tuple[str, list[str], list[list[Any]]]:
    """Return the fields that all specs share, as text, and names and values of the others."""
    from saevx.query.flatten import explode
    from spec import to_document

    rows = [explode(to_document(node.spec, keys)) for node in nodes]
    names = [n for n in dict.fromkeys(n for row in rows for n in row) if n not in ("type", "key")]
    differ = [name for name in names if len({repr(row.get(name)) for row in rows}) > 1]
    common = {name: rows[0].get(name) for name in names if name not in differ}
    text = " ".join(f"{name}={value}" for name, value in common.items() if value is not None)
    return text, differ, [[row.get(name) for name in differ] for row in rows]
