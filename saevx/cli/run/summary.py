"""What `saevx run` tells at its end, to people and to programs."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from saevx.experiments.report import Report
    from saevx.resolve.plan import Plan
    from saevx.resolve.run import Outcome
    from store import Store


@dataclass
class RunSummary:
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
    warnings: dict[str, list[str]] = field(default_factory=dict)
    """What looks wrong -> in which targets."""
    notes: list[str] = field(default_factory=list)
    """What else people should know."""
    report: Report | None = None
    saved: list[Path] = field(default_factory=list)
    """Files of the report."""
    began: float = field(default_factory=time.monotonic)

    @property
    def ok(self) -> bool:
        return not self.failed and not self.blocked

    def add(self, plan: Plan, outcome: Outcome, store: Store) -> None:
        """Take in the outcome of one stage, and what its recipes found suspicious."""
        from saevx.resolve.lookup import warnings_of
        from saevx.resolve.run import explain

        new = {node.key for node in (*outcome.made, *outcome.came)}
        for key in plan.targets:
            node = plan.nodes[key]
            name = type(node.spec).__name__
            state = node.state.value if key not in outcome.failed else "failed"
            state = "blocked" if key in outcome.blocked else state
            self.targets.append({"key": key, "type": name, "state": state})
            made = store.find(node.spec.kind, key) if key in new else None
            for text in warnings_of(made) if made else node.warnings:
                self.warnings.setdefault(text, []).append(f"{name} {key}")
        self.made += len(outcome.made)
        self.came += len(outcome.came)
        self.blocked += len(outcome.blocked)
        for key, error in outcome.failed.items():
            self.failed[f"{type(plan.nodes[key].spec).__name__} {key}"] = explain(error)

    def add_report(self, report: Report | None, folder: Path) -> None:
        """Take in the report; one that cannot be saved is a warning."""
        from saevx.errors import StoreError

        self.report = report
        try:
            self.saved = report.save(folder) if report else []
        except StoreError as error:
            self.warnings.setdefault(str(error), []).append("report")

    def show(self, as_json: bool) -> None:
        """Print the record, the report before its last line."""
        wall = round(time.monotonic() - self.began, 2)
        if as_json:
            document = {
                "experiment": self.experiment,
                "store": self.store,
                "targets": self.targets,
                "made": self.made,
                "came": self.came,
                "failed": self.failed,
                "blocked": self.blocked,
                "warnings": self.warnings,
                "report": [str(path) for path in self.saved],
                "wall_s": wall,
            }
            click.echo(json.dumps(document))
            return
        if self.report is not None:
            self.report.show()
            click.echo("")
        for path in self.saved:
            click.echo(f"saved {path}")
        for text, where in self.warnings.items():
            click.echo(f"warning: {_some(where)}: {text}", err=True)
        for what, why in _grouped(self.failed).items():
            click.echo(f"failed: {what}\n  {why.replace(chr(10), chr(10) + '  ')}", err=True)
        if self.blocked:
            click.echo(f"{self.blocked} could not begin, since what they need failed", err=True)
        for note in self.notes:
            click.echo(note, err=True)
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
