"""What a staged experiment gets back for the specs that it yields."""

from __future__ import annotations

import warnings
from typing import Any

from spec import Artifact

from .errors import SaevxWarning
from .notebook import load, table
from .workspace import Workspace


def give_back(specs: list[Artifact], workspace: Workspace) -> Any:
    """The table of specs that are all results, else a list of what `saevx.load` gives for each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaevxWarning)  # the end of the run tells them
        if all(spec.kind == "results" for spec in specs):
            return table(specs, workspace)
        return [load(spec, workspace) for spec in specs]
