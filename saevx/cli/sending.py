"""How `saevx run` sends work to other processes, and shows how far it is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import read_config

if TYPE_CHECKING:
    from spec import Keys
    from store import Store

    from ..dispatch.executor import Executor
    from ..dispatch.forecast import Line
    from ..dispatch.request import Counts
    from ..experiment import Experiment
    from ..resolve.plan import Plan
    from ..resolve.provenance import Origin
    from ..resolve.recipe import FindRecipe
    from ..resolve.record import Execute
    from ..resolve.run import Listener, Outcome

LINE_S = 10.0
"""Where there is no terminal, a line of news comes no more often."""


class Sending:
    """What the options of `saevx run` and the profiles of saevx.toml say of where things run."""

    def __init__(
        self,
        executor: str | None,
        jobs: int | None,
        profile: str | None,
        detach: bool = False,
        retry_failed: bool = False,
        quiet: bool = False,
    ) -> None:
        from ..dispatch.profiles import read_profile
        from ..errors import ConfigError

        config = read_config(Path.cwd())
        self.profile = read_profile(config.profiles, profile or config.profile, config.file)
        self.executor = executor or ("local" if jobs and not profile else self.profile.executor)
        self.jobs = jobs or self.profile.jobs
        self.detach, self.retry_failed, self.quiet = detach, retry_failed, quiet
        if detach and self.executor == "inline":
            raise ConfigError("--detach needs --executor local or slurm: inline is this process")
        if jobs and self.executor != "local":
            raise ConfigError(
                f"--jobs is the number of local processes, and the executor is {self.executor}: "
                "use --executor local, or `parallelism` in the profile"
            )

    @property
    def detaches_itself(self) -> bool:
        """Whether work goes on only as long as a process of ours does."""
        return self.detach and self.executor == "local"

    def start_detached(self, experiment: Experiment, store: Store) -> None:
        """Start this same command in a session of its own. Raises Detached, and StoreError where
        its log cannot be written."""
        from store.names import safe_name

        from ..dispatch.folder import runs_of
        from ..errors import Detached, StoreError

        words = [word for word in sys.argv[1:] if word != "--detach"]
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        name = f"{safe_name(experiment.name, 60)}.{stamp}.{os.getpid()}.log"
        file = runs_of(store) / ".detached" / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _remove_old(file.parent)
            log = open(file, "ab")  # noqa: SIM115
        except OSError as error:
            raise StoreError(f"cannot write {file}: {error.strerror}") from error
        with log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "saevx", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        raise Detached(
            f"{experiment.name}: goes on as process {process.pid}, which prints to {file}; "
            "`saevx status` shows how far it is, and `saevx cancel` ends it"
        )

    def start_following(self, experiment: Experiment, store: Store) -> None:
        """Start this same command as a Slurm job. Raises Detached."""
        from ..dispatch.follow import follow
        from ..errors import ConfigError, Detached

        if self.executor != "slurm":
            raise ConfigError(f"--follow needs the executor slurm, and it is {self.executor}")
        words = [word for word in sys.argv[1:] if word not in ("--follow", "--detach")]
        base, hours = self.profile.base, self.profile.follow_hours
        asked = (words, base, hours, experiment.files)
        job, log, is_new = follow(store, experiment.name, experiment.path, *asked)
        begun = "follows it" if is_new else "follows it already"
        raise Detached(
            f"{experiment.name}: Slurm job {job} {begun}, and prints to {log}; "
            "`saevx status` shows what it has sent off"
        )

    def forecast(self, plan: Plan, keys: Keys, store: Store) -> list[Line] | None:
        """The arrays that a plan would be sent off in; None where it would run in this process."""
        if self.executor == "inline":
            return None
        from ..dispatch.forecast import forecast
        from ..recipes import find_recipe

        self._doubt(plan, keys)
        return forecast(plan, keys, store, find_recipe, self.profile, self._executor())

    def _doubt(self, plan: Plan, keys: Keys) -> None:
        from ..dispatch.doubts import doubts
        from .options import warn

        warn(doubts(self.profile, plan, keys))

    def executing(self, experiment: Experiment) -> Execute:
        """What runs a plan by the executor that was asked for."""

        def execute(
            plan: Plan,
            keys: Keys,
            store: Store,
            find: FindRecipe,
            listener: Listener | None,
            origin: Origin | None,
        ) -> Outcome:
            from ..dispatch.coordinate import Coordinator
            from ..dispatch.request import Request
            from ..resolve.provenance import Origin

            self._doubt(plan, keys)
            with _Watching(self.quiet) as watch:
                request = Request(
                    name=experiment.name,
                    path=experiment.path,
                    files=experiment.files,
                    origin=origin or Origin(experiment.path),
                    profile=self.profile,
                    retry_failed=self.retry_failed,
                    detach=self.detach,
                    watch=watch,
                )
                return Coordinator(plan, keys, store, find, self._executor(), request).run()

        return execute

    def _executor(self) -> Executor:
        from ..dispatch.executors import Local, Slurm
        from ..dispatch.local import default_jobs

        return Slurm() if self.executor == "slurm" else Local(self.jobs or default_jobs())


def _remove_old(folder: Path) -> None:
    """Logs go as the folders of runs do."""
    from ..dispatch.old_runs import KEPT_S

    for file in folder.glob("*.log"):
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > KEPT_S:
                file.unlink()


class _Watching:
    """Shows counts: a bar on a terminal, a line whenever they change elsewhere."""

    def __init__(self, quiet: bool) -> None:
        from .console import console

        self._console = console(stderr=True)
        self._quiet = quiet
        self._bar: Any = None
        self._last, self._printed = "", 0.0

    def __enter__(self) -> Callable[[Counts], None]:
        if self._console.is_terminal and not self._quiet:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._bar.start()
            self._task = self._bar.add_task("sending", total=None)
        return self._show

    def __exit__(self, *exc: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _show(self, counts: Counts) -> None:
        text = (
            f"{counts.made} of {counts.total} made, {counts.running} jobs running, "
            f"{counts.waiting} waiting"
        )
        text += f" ({counts.reason})" if counts.reason else ""
        text += f", {counts.failed} failed" if counts.failed else ""
        text += (
            f"; Slurm gives no answer for {counts.silent_s:.0f} s" if counts.silent_s > 5 else ""
        )
        if self._bar is not None:
            self._bar.update(
                self._task, description=text, completed=counts.made, total=counts.total
            )
        elif text != self._last and not self._quiet:
            now = time.monotonic()
            if now - self._printed >= LINE_S:
                self._console.print(text, markup=False)
                self._last, self._printed = text, now
