"""What a coordinator is asked to do, and what it reports meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from saevx.dispatch.profiles import Profile
from saevx.dispatch.run_folder import run_prefix


@dataclass(frozen=True)
class Counts:
    """How far a run is."""

    made: int
    total: int
    running: int
    """Jobs; so is `waiting`."""
    waiting: int
    failed: int
    unanswered_s: float = 0.0
    """For how long Slurm has not answered."""
    reason: str = ""
    """Why most of the waiting jobs wait, as Slurm says."""


@dataclass
class Request:
    """What the coordinator is asked to do."""

    name: str
    """Of the experiment."""
    path: Path | None
    """Of its file."""
    profile: Profile
    files: Sequence[Path] = ()
    """What the experiment names in `job_files`."""
    retry_failed: bool = False
    detach: bool = False
    """Submit, and do not wait."""
    watch: Callable[[Counts], None] = field(default=lambda counts: None)

    @property
    def file(self) -> str:
        """The experiment file as runs record it; "" where there is none."""
        return str(self.path.resolve()) if self.path else ""

    @property
    def prefix(self) -> str:
        """How the names of the folders of all runs of this experiment file begin."""
        return run_prefix(self.name, self.file)
