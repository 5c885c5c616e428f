"""A session: an experiment planned, made and reported, stage by stage, in one store."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

from saevx.errors import SaevxWarning
from saevx.query.tables import load, table_of
from saevx.recipes import find_recipe
from saevx.resolve.context import Context
from saevx.resolve.plan import Plan, make_plan
from saevx.resolve.provenance import Origin
from saevx.resolve.recorded import plan_recorded, run_recorded
from saevx.resolve.run import Listener, RunResult, run_plan
from spec import Artifact, Keys
from store.gc.roots import RunRecording

if TYPE_CHECKING:
    from saevx.dispatch.execution import Execution
    from saevx.dispatch.request import Counts
    from saevx.experiments.experiment import Experiment
    from saevx.experiments.report import Report
    from saevx.workspace import Workspace


class Display:
    """Shows how a session goes on. This one only warns; the command line draws bars."""

    def __init__(self, listener: Listener | None = None) -> None:
        self._listener = listener or Listener()

    def begin(self, plan: Plan) -> None:
        """A stage begins, of which something is to be made."""

    def batches(self) -> AbstractContextManager[Listener]:
        """What hears of batches made in this process."""
        return nullcontext(self._listener)

    def counts(self) -> AbstractContextManager[Callable[[Counts], None]]:
        """What hears how far other processes are."""
        return nullcontext(lambda counts: None)

    def warn(self, problems: Iterable[str]) -> None:
        for problem in problems:
            warnings.warn(problem, SaevxWarning, stacklevel=2)


class Session:
    """Plans, makes and reports one experiment."""

    def __init__(
        self,
        experiment: Experiment,
        workspace: Workspace,
        execution: Execution,
        display: Display | None = None,
    ) -> None:
        self.experiment, self.workspace, self.execution = experiment, workspace, execution
        self.display = display or Display()
        self.keys, self.store = Keys(workspace), workspace.store
        self.recording = RunRecording(
            self.store, experiment.path if experiment.is_file else None, experiment.name
        )
        self._results: list[Artifact] = []

    @cached_property
    def context(self) -> Context:
        """What its plans run with; where all is there, nobody asks for it."""
        return Context(self.keys, self.store, find_recipe, Origin(self.experiment.path))

    def plans(self) -> Iterator[Plan]:
        """The plan of each stage, up to the first whose targets are not all there."""
        for specs in self.experiment.stages(self._give_back):
            plan = make_plan(specs, self.keys, self.store)
            yield plan
            if not plan.done:
                return

    def run(self) -> Iterator[tuple[Plan, RunResult]]:
        """Make stage after stage, up to the first that fails."""
        try:
            for specs in self.experiment.stages(self._give_back):
                plan = plan_recorded(specs, self.keys, self.store, self.recording)
                outcome = RunResult()
                if not plan.done:
                    self.display.begin(plan)
                    plan, outcome = run_recorded(plan, self.context, self.recording, self._execute)
                yield plan, outcome
                if not outcome.ok:
                    return
                self._results += [spec for spec in specs if spec.kind == "results"]
            self.recording.complete()
        finally:
            self.recording.close()

    def report(self) -> Report | None:
        """The experiment's report of what was made; None where it defines none."""
        if self.experiment.report is None:
            return None
        from saevx.experiments.report import make_report

        with _quietly():
            table = table_of(self._results, self.keys, self.store) if self._results else None
        return make_report(self.experiment, table)

    def _execute(self, plan: Plan, context: Context) -> RunResult:
        execution = self.execution
        if execution.is_inline:
            with self.display.batches() as listener:
                return run_plan(plan, context, listener)
        from saevx.dispatch.coordinator import Coordinator
        from saevx.dispatch.request import Request

        self.display.warn(execution.lint_profile(plan, self.keys))
        with self.display.counts() as watch:
            request = Request(
                name=self.experiment.name,
                path=self.experiment.path,
                files=self.experiment.files,
                profile=execution.profile,
                retry_failed=execution.retry_failed,
                detach=execution.detach,
                watch=watch,
            )
            return Coordinator(plan, context, execution.executor_object(), request).run()

    def _give_back(self, specs: list[Artifact]) -> Any:
        """The table of specs that all load as tables, else a list of what `saevx.load` gives."""
        import polars as pl

        with _quietly():
            loaded = [load(spec, self.keys, self.store) for spec in specs]
            are_tables = all(spec.kind == "results" for spec in specs)
            if are_tables and all(isinstance(one, pl.DataFrame) for one in loaded):
                return table_of(specs, self.keys, self.store)
        return loaded


@contextmanager
def _quietly() -> Iterator[None]:
    """Without warnings of what looks wrong in results: the end of a run tells them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaevxWarning)
        yield
