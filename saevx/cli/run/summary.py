"""What `saevx run` says at its end, to people and to programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

import click

from saevx.cli.common.units import some, things

if TYPE_CHECKING:
    from saevx.experiments.report import Report
    from saevx.resolve.plan import Plan
    from saevx.resolve.run import RunResult
    from store import Store


@dataclass
class RunSummary:
    """What a run found, made and failed to make: the fields of `saevx run --json`."""

    experiment: str
    store: str
    targets: list[dict[str, str]] = field(default_factory=list)
    made: int = 0
    made_elsewhere: int = 0
    """Artifacts that another run made meanwhile."""
    failed: dict[str, str] = field(default_factory=dict)
    """Type and key of each spec that failed -> why."""
    blocked: int = 0
    """Specs that were not made because an input failed."""
    warnings: dict[str, list[str]] = field(default_factory=dict)
    """Warning -> type and key of the artifacts that it concerns."""
    report: list[str] = field(default_factory=list)
    """Files of the report."""
    wall_s: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.failed and not self.blocked

    def add(self, plan: Plan, outcome: RunResult, store: Store) -> None:
        """Add the outcome of one stage, and the warnings of what it made."""
        from saevx.errors import explain
        from saevx.resolve.lookup import warnings_of

        new = {node.key for node in (*outcome.made, *outcome.made_elsewhere)}
        for key in plan.targets:
            node = plan.nodes[key]
            name = type(node.spec).__name__
            state = node.state.value if key not in outcome.failed else "failed"
            state = "blocked" if key in outcome.blocked else state
            self.targets.append({"key": key, "type": name, "state": state})
        for key, node in plan.nodes.items():  # inputs too: what they warn of concerns the targets
            made = store.find(node.spec.kind, key) if key in new else None
            for text in warnings_of(made) if made else node.warnings:
                self.warnings.setdefault(text, []).append(f"{type(node.spec).__name__} {key}")
        self.made += len(outcome.made)
        self.made_elsewhere += len(outcome.made_elsewhere)
        self.blocked += len(outcome.blocked)
        for key, error in outcome.failed.items():
            self.failed[f"{type(plan.nodes[key].spec).__name__} {key}"] = explain(error)

    def save(self, report: Report, folder: Path) -> None:
        """Save the report; a failure to write it is a warning, since its tables can be printed."""
        from saevx.errors import StoreError

        try:
            self.report = [str(path) for path in report.save(folder)]
        except StoreError as error:
            self.warnings.setdefault(str(error), []).append("report")

    def show(self) -> None:
        """Print the summary for people: problems on standard error, the last line on output."""
        for path in self.report:
            click.echo(f"saved {path}")
        for text, where in self.warnings.items():
            click.echo(f"warning: {some(where)}: {text}", err=True)
        by_reason: dict[str, list[str]] = {}
        for what, why in self.failed.items():
            by_reason.setdefault(why, []).append(what)
        for why, specs in by_reason.items():
            click.echo(f"failed: {some(specs)}\n{indent(why, '  ')}", err=True)
        if self.blocked:
            click.echo(f"{self.blocked} not made, because an input failed", err=True)
        present = sum(target["state"] == "present" for target in self.targets)
        did = f"made {things(self.made)}" if self.made or not self.ok else "nothing to make"
        did += f"; other runs made {self.made_elsewhere}" if self.made_elsewhere else ""
        click.echo(
            f"{self.experiment}: {present} of {len(self.targets)} targets are in the store; "
            f"{did}; {self.wall_s:.1f} s"
        )
