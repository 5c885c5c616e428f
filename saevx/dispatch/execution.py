"""The choice of an executor: inline, local processes, or Slurm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from saevx.config import find_config, read_config
from saevx.errors import ConfigError

if TYPE_CHECKING:
    from saevx.dispatch.cost import ArrayEstimate
    from saevx.dispatch.executors.base import Executor
    from saevx.resolve.context import Context
    from saevx.resolve.plan import Plan
    from spec import Keys


class Execution:
    """An executor, as requested by options and by the profiles of saevx.toml."""

    def __init__(
        self,
        executor: str | None = None,
        jobs: int | None = None,
        profile: str | None = None,
        *,
        detach: bool = False,
        retry_failed: bool = False,
    ) -> None:
        from saevx.dispatch.profiles import EXECUTORS, read_profile

        file = find_config(Path.cwd())
        config = read_config(file)
        self.profile = read_profile(config.profiles, profile or config.profile, file)
        self.executor = executor or ("local" if jobs and not profile else self.profile.executor)
        self.jobs = jobs or self.profile.jobs
        self.detach, self.retry_failed = detach, retry_failed
        if self.executor not in EXECUTORS:
            options = ", ".join(EXECUTORS)
            raise ConfigError(f"{self.executor!r} is no executor; use one of {options}")
        if detach and self.is_inline:
            raise ConfigError("--detach needs --executor local or slurm: inline is this process")
        if jobs and self.executor != "local":
            raise ConfigError(
                f"--jobs is the number of local processes, and the executor is {self.executor}: "
                "use --executor local, or `parallelism` in the profile"
            )

    @property
    def is_inline(self) -> bool:
        return self.executor == "inline"

    def lint_profile(self, plan: Plan, keys: Keys) -> list[str]:
        """Report settings of the profile that fit no type or column."""
        from saevx.dispatch.profiles import lint_profile

        return lint_profile(self.profile, plan, keys)

    def estimate_arrays(self, plan: Plan, context: Context) -> list[ArrayEstimate]:
        """List the arrays that a run would submit for a plan."""
        from saevx.dispatch.cost import estimate_arrays

        return estimate_arrays(plan, context, self.profile, self.make_executor())

    def make_executor(self) -> Executor:
        from saevx.dispatch.executors.local import Local, default_jobs
        from saevx.dispatch.executors.slurm import Slurm

        return Slurm() if self.executor == "slurm" else Local(self.jobs or default_jobs())
