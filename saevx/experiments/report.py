"""An experiment's report: frames printed and saved as CSV, charts saved as PNG and HTML."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from saevx.errors import ExperimentError, StoreError
from saevx.experiments.experiment import Experiment
from store.names import safe_name

if TYPE_CHECKING:
    import altair as alt
    import polars as pl

Part = Any
"""A polars frame, an altair chart, or a line of text."""

PNG_SCALE = 2
"""Pixels of a PNG per pixel of the chart, for sharp figures."""


@dataclass
class Report:
    """What an experiment's `report` returned, by name."""

    experiment: Experiment
    parts: dict[str, Part]

    def show(self) -> None:
        """Print the frames and the text."""
        import click

        for name, part in self.parts.items():
            if isinstance(part, str):
                click.echo(f"\n{part}")
            elif not _is_chart(part):
                click.echo(f"\n{name}\n{_as_text(part)}")

    def save(self, folder: Path) -> list[Path]:
        """Save frames as .csv and charts as .png and .html below `folder`; return the files.

        Raises StoreError when they cannot be written, ExperimentError when a part cannot be drawn.
        """
        home = self._make_home(folder)
        files: list[Path] = []
        for name, part in self.parts.items():
            file = home / f"{_file_name(name)}.csv"
            try:
                if _is_chart(part):
                    files += _save_chart(file, part)
                elif not isinstance(part, str):
                    part.write_csv(file)
                    files.append(file)
            except OSError as error:
                why = error.strerror or str(error)
                raise StoreError(f"cannot save {name!r} of the report in {home}: {why}") from error
            except Exception as error:  # polars and altair fail in their own ways
                raise ExperimentError(
                    f"{self.experiment.label}: the part {name!r} of the report cannot be saved: "
                    f"{error}"
                ) from error
        return files

    def _make_home(self, folder: Path) -> Path:
        """Make `folder`/<experiment>; another file of the same name gets a folder of its own."""
        file = self.experiment.path
        path = bytes(file.resolve()) if file else b""
        name = _file_name(self.experiment.name)
        home = folder / name
        try:
            if not _claim(home, path):
                home = folder / f"{name}-{xxhash.xxh3_64_hexdigest(path)[:8]}"
                _claim(home, path)
        except OSError as error:
            raise StoreError(f"cannot save the report in {home}: {error.strerror}") from error
        return home


def make_report(experiment: Experiment, table: pl.DataFrame | None) -> Report:
    """Call the experiment's `report` with the table of all its results.

    It may return a polars frame, an altair chart, a text, or a dict of them by name. Raises
    ExperimentError when it fails, or returns something else.
    """
    import polars as pl

    assert experiment.report is not None
    given = experiment.call(experiment.report, pl.DataFrame() if table is None else table)
    parts: dict[str, Part] = given if isinstance(given, dict) else {experiment.name: given}
    parts = {str(name): part for name, part in parts.items() if part is not None}
    for name, part in parts.items():
        if not isinstance(part, str | pl.DataFrame) and not _is_chart(part):
            raise ExperimentError(
                f"{experiment.label}: report gives {type(part).__name__} for {name!r}; it may give "
                "polars frames, altair charts and text"
            )
    return Report(experiment, parts)


def _claim(home: Path, path: bytes) -> bool:
    """Make a folder for the reports of the experiment at `path`, unless it is another's."""
    mark = home / ".experiment"
    home.mkdir(parents=True, exist_ok=True)
    if not mark.exists():
        mark.write_bytes(path)
    return mark.read_bytes() == path


def _file_name(name: str) -> str:
    return safe_name(name, also=r"\w ")


def _is_chart(part: Part) -> bool:
    return hasattr(part, "to_dict") and hasattr(part, "save")


def _save_chart(file: Path, chart: alt.Chart) -> list[Path]:
    """Draw a chart, unless the same one is drawn already: drawing takes a second."""
    import altair as alt

    files = [file.with_suffix(".png"), file.with_suffix(".html")]
    drawn = file.with_name(f".{file.stem}.drawn")
    with alt.data_transformers.enable("default", max_rows=None):  # a file takes any number
        text = json.dumps(chart.to_dict(), sort_keys=True, default=str)
        digest = xxhash.xxh3_128_hexdigest(text.encode())
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
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=10_000,
        fmt_str_lengths=60,
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        tbl_formatting="ASCII_MARKDOWN",
        float_precision=3,
    ):
        return str(frame)
