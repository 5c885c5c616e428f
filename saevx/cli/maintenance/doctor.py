"""saevx doctor: check a store, say what to do, and move what is damaged to the trash."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from saevx.cli.common.console import byte_bar, console
from saevx.cli.common.options import clear_errors, json_option, store_option
from saevx.cli.common.units import things
from store.check.report import NEWER, Finding
from store.check.store_check import StoreCheck
from store.errors import StoreError

SHOWN = 20
"""Findings of one topic that are printed without --all."""

STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}

Fixed = dict[int, str]
"""The outcome of each fix, by the index of its finding."""


@click.command()
@click.option("--deep", is_flag=True, help="Read every byte and compare it with its digest.")
@click.option("--fix", is_flag=True, help="Move what is damaged and orphaned to the trash.")
@click.option("--all", "show_all", is_flag=True, help="Print every finding.")
@store_option
@json_option
@clear_errors
def doctor(deep: bool, fix: bool, show_all: bool, store: str | None, as_json: bool) -> None:
    """Check artifacts, orphans, records, datasets, weights, types and code of the store.

    Exits with 1 if an error is found and not fixed.
    """
    from saevx.check.specs import check_specs
    from saevx.user_types import DeclaredTypes
    from saevx.workspace import open_workspace

    workspace = open_workspace(store)
    check = StoreCheck(workspace.store)
    with byte_bar("reading", quiet=as_json or not deep) as progress:
        findings = list(check.findings(deep=deep, progress=progress))
    manifests = check.manifests.values()
    declared = DeclaredTypes.in_store(workspace.store)
    findings += check_specs(workspace, manifests, declared, deep=deep)
    fixed = _fix(findings) if fix else {}
    if as_json:
        documents = [_document(finding, fixed.get(i)) for i, finding in enumerate(findings)]
        click.echo(json.dumps(documents))
    else:
        _show(findings, fixed, show_all)
        n_errors, n_warnings = (
            things(sum(finding.severity == severity for finding in findings), severity)
            for severity in ("error", "warning")
        )
        how = "every byte read" if deep else "sizes compared; --deep reads every byte"
        checked = things(len(check.manifests), "whole manifest")
        click.echo(f"{checked}, {how}: {n_errors}, {n_warnings}")
    if any(f.severity == "error" and fixed.get(i) != "fixed" for i, f in enumerate(findings)):
        sys.exit(1)


def _fix(findings: list[Finding]) -> Fixed:
    """Fix what can be fixed. Raise StoreError if the store holds a newer layout."""
    for finding in findings:
        if finding.topic == NEWER:
            raise StoreError(f"nothing was fixed: {finding.where} {finding.what}. Upgrade saevx")
    fixed: Fixed = {}
    for i, finding in enumerate(findings):
        if finding.fix:
            try:
                fixed[i] = "fixed" if finding.fix() else "has changed meanwhile; run doctor again"
            except StoreError as error:
                fixed[i] = f"not fixed: {error}"
    return fixed


def _show(findings: list[Finding], fixed: Fixed, show_all: bool) -> None:
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
            state = f"  [{fixed[i]}]" if i in fixed else ""
            where = f"{findings[i].where}: " if findings[i].where else ""
            out.print(f"  {where}{findings[i].what}{state}", markup=False)
        if len(places) > SHOWN and not show_all:
            out.print(f"  and {len(places) - SHOWN:,} more; --all prints them")
        advice = dict.fromkeys(findings[i].advice for i in places if fixed.get(i) != "fixed")
        for text in list(filter(None, advice))[:5]:
            out.print(f"  → {text}", markup=False)


def _document(finding: Finding, fixed: str | None) -> dict[str, Any]:
    kind, key = finding.ref or (None, None)
    texts = {
        name: getattr(finding, name) for name in ("severity", "topic", "where", "what", "advice")
    }
    return {**texts, "kind": kind, "key": key, "fix": fixed}
