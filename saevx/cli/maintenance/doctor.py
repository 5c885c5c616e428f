"""saevx doctor: find what is wrong in a store, say what to do, and set aside what is damaged."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from saevx.cli.common.options import clear_errors, json_option, store_option
from saevx.cli.common.units import things

if TYPE_CHECKING:
    from store.check.report import Finding
    from store.check.store_check import Progress

SHOWN = 20
"""Findings of one topic that are printed, unless --all."""

STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}


@click.command()
@click.option("--deep", is_flag=True, help="Read every byte and compare it with its digest.")
@click.option("--fix", is_flag=True, help="Move what is damaged, and orphans, to the trash.")
@click.option("--all", "show_all", is_flag=True, help="Print every finding, however many.")
@store_option
@json_option
@clear_errors
def doctor(deep: bool, fix: bool, show_all: bool, store: str | None, as_json: bool) -> None:
    """Look over the store: artifacts, orphans, records, datasets, weights, types, code.

    Ends with 1 if there are errors that are not fixed.
    """
    from saevx.check.specs import check_specs
    from saevx.user_types import DeclaredTypes
    from saevx.workspace import open_workspace
    from store.check.store_check import StoreCheck

    workspace = open_workspace(store)
    check = StoreCheck(workspace.store)
    with _bar(deep and not as_json) as progress:
        findings = list(check.findings(deep=deep, progress=progress))
    manifests = check.manifests.values()
    declared = DeclaredTypes.in_store(workspace.store)
    findings += check_specs(workspace, manifests, declared, deep=deep)
    done = _fix(findings) if fix else {}
    n_checked = len(check.manifests)
    if as_json:
        click.echo(
            json.dumps([_document(finding, done.get(i)) for i, finding in enumerate(findings)])
        )
    else:
        _show(findings, done, show_all)
        counts = [
            things(sum(f.severity == severity for f in findings), severity)
            for severity in ("error", "warning")
        ]
        how = "every byte read" if deep else "sizes compared; --deep reads every byte"
        click.echo(f"{things(n_checked, 'whole manifest')}, {how}: {', '.join(counts)}")
    left = [
        finding
        for i, finding in enumerate(findings)
        if finding.severity == "error" and done.get(i) != "fixed"
    ]
    if left:
        sys.exit(1)


def _fix(findings: list[Finding]) -> dict[int, str]:
    """Fix what can be fixed. Returns the outcome by the index of the finding.

    Raises StoreError if the store holds a newer layout.
    """
    from saevx.errors import StoreError
    from store.check.report import NEWER

    for finding in findings:
        if finding.topic == NEWER:
            raise StoreError(f"nothing was fixed: {finding.where} {finding.what}. Upgrade saevx")
    done: dict[int, str] = {}
    for i, finding in enumerate(findings):
        if finding.fix:
            try:
                done[i] = "fixed" if finding.fix() else "has changed meanwhile; run doctor again"
            except StoreError as error:
                done[i] = f"not fixed: {error}"
    return done


def _show(findings: list[Finding], done: dict[int, str], show_all: bool) -> None:
    from saevx.cli.common.console import console

    out = console()
    topics: dict[tuple[str, str], list[int]] = {}
    for severity in STYLES:
        for i, finding in enumerate(findings):
            if finding.severity == severity:
                topics.setdefault((severity, finding.topic), []).append(i)
    for (severity, topic), places in topics.items():
        count = f" ({len(places):,})" if len(places) > 1 else ""
        out.print(f"{severity}: {topic}{count}", style=STYLES[severity], markup=False)
        for i in places if show_all else places[:SHOWN]:
            finding = findings[i]
            state = f"  [{done[i]}]" if i in done else ""
            where = f"{finding.where}: " if finding.where else ""
            out.print(f"  {where}{finding.what}{state}", markup=False)
        if len(places) > SHOWN and not show_all:
            out.print(f"  and {len(places) - SHOWN:,} more; --all prints them")
        advice = dict.fromkeys(findings[i].advice for i in places if done.get(i) != "fixed")
        for text in [text for text in advice if text][:5]:
            out.print(f"  → {text}", markup=False)


def _document(finding: Finding, state: str | None) -> dict[str, Any]:
    return {
        "severity": finding.severity,
        "topic": finding.topic,
        "where": finding.where,
        "what": finding.what,
        "advice": finding.advice,
        "kind": finding.ref[0] if finding.ref else None,
        "key": finding.ref[1] if finding.ref else None,
        "fix": state,
    }


@contextmanager
def _bar(wanted: bool) -> Iterator[Progress | None]:
    from saevx.cli.common.console import console

    out = console(stderr=True)
    if not wanted or not out.is_terminal:
        yield None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=out) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
