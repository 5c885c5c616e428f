"""An experiment's report: frames printed and saved as CSV, charts saved as PNG and HTML."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ExperimentError, StoreError
from .experiment import Experiment

if TYPE_CHECKING:
    import altair as alt
    import polars as pl

Part = Any
"""A polars frame, an altair chart, or a line of text."""

PNG_SCALE = 2
"""Pixels of a PNG per pixel of the chart, for sharp figures."""


@dataclass
class Report:
    """The parts of a report, and the files that they were saved to."""

    parts: dict[str, Part]
    files: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def show(self) -> None:
        """Print the frames, the text, and where the charts are."""
        import click
        import polars as pl

        for name, part in self.parts.items():
            if isinstance(part, pl.DataFrame):
                click.echo(f"\n{name}")
                click.echo(_as_text(part))
            elif isinstance(part, str):
                click.echo(f"\n{part}")
        click.echo("")
        for file in self.files:
            click.echo(f"saved {file}")


def make_report(experiment: Experiment, tables: list[pl.DataFrame], folder: Path) -> Report:
    """Call the experiment's `report` with one table of all its results; save what it gives.

    It may give a frame, a chart, a text, or a dict of them by name. Files go to
    `folder`/<experiment>/<name>.csv, .png and .html. Raises ExperimentError when it fails.
    """
    import polars as pl

    from .experiment import user_error

    assert experiment.report is not None
    table = pl.concat(tables, how="diagonal_relaxed") if tables else pl.DataFrame()
    try:
        given = experiment.report(table)
    except Exception as error:
        raise user_error(experiment.path, error) from error
    parts: dict[str, Part] = given if isinstance(given, dict) else {experiment.name: given}
    report = Report({name: part for name, part in parts.items() if part is not None})
    home = folder / experiment.name
    try:
        home.mkdir(parents=True, exist_ok=True)
        for name, part in report.parts.items():
            report.files += _save(home, str(name), part, experiment.path)
    except OSError as error:
        raise StoreError(f"cannot save the report in {home}: {error.strerror}") from error
    return report


def _save(home: Path, name: str, part: Part, experiment: Path) -> list[Path]:
    import polars as pl

    if isinstance(part, str):
        return []
    if isinstance(part, pl.DataFrame):
        file = home / f"{name}.csv"
        part.write_csv(file)
        return [file]
    if hasattr(part, "to_dict") and hasattr(part, "save"):
        return _save_chart(home, name, part)
    raise ExperimentError(
        f"{experiment}: report gives {type(part).__name__} for {name!r}; it may give polars "
        "frames, altair charts and text"
    )


def _save_chart(home: Path, name: str, chart: alt.Chart) -> list[Path]:
    """Draw a chart, unless the same one is drawn already: drawing takes a second."""
    files = [home / f"{name}.png", home / f"{name}.html"]
    drawn = home / f"{name}.drawn"
    text = json.dumps(chart.to_dict(), sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()
    if drawn.exists() and drawn.read_text() == digest and all(file.exists() for file in files):
        return files
    drawn.unlink(missing_ok=True)
    chart.save(str(files[0]), scale_factor=PNG_SCALE)
    chart.save(str(files[1]), inline=True)  # opens without a network
    drawn.write_text(digest)
    return files


def _as_text(frame: pl.DataFrame) -> str:
    import polars as pl

    with pl.Config(
        tbl_rows=200,
        tbl_cols=-1,
        tbl_width_chars=200,
        fmt_str_lengths=60,
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        tbl_formatting="ASCII_MARKDOWN",
        float_precision=3,
    ):
        return str(frame)
