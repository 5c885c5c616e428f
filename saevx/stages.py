"""What a staged experiment gets back for the specs that it yields."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from spec import Artifact

from .errors import SaevxWarning
from .notebook import load, table
from .workspace import Workspace

if TYPE_CHECKING:
    import polars as pl


def table_of(specs: list[Artifact], workspace: Workspace) -> pl.DataFrame:
    """The table of results, as reports get it: the end of the run tells what looks wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaevxWarning)
        return table(specs, workspace)


def give_back(specs: list[Artifact], workspace: Workspace) -> Any:
    """The table of specs that all load as tables, else a list of what `saevx.load` gives."""
    import polars as pl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaevxWarning)
        loaded = [load(spec, workspace) for spec in specs]
    are_tables = all(spec.kind == "results" for spec in specs)
    if are_tables and all(isinstance(one, pl.DataFrame) for one in loaded):
        return table_of(specs, workspace)
    return loaded
