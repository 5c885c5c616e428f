"""Sessions: plan, make and report one experiment, stage by stage, in one store."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

from saevx.compute.memory import gc_paused
from saevx.errors import SaevxWarning
from saevx.query.tables import load, table_of
from saevx.recipes import find_recipe
from saevx.resolve.context import Context
from saevx.resolve.plan import Plan, graph_of, make_plan
from saevx.resolve.provenance import CodeVersion
from saevx.resolve.run import Listener, RunResult, input_vanished, run_plan
from saevx.resolve.source_code import source_digests
from saevx.user_types import declared_types
from spec import Artifact, Keys
from store.gc.collector import wait_for_collectors
from store.gc.roots import RunRecording

if TYPE_CHECKING:
    from saevx.dispatch.execution import Execution
    from saevx.dispatch.run_request import Counts
    from saevx.experiments.experiment import Experiment
    from saevx.experiments.report import Report
    from saevx.workspace import Workspace

REPLANS = 3
"""How often a stage is planned again because an input was removed while it was made."""


class Display:
    """Shows the progress of a session. This one only warns; the command line draws bars."""

    def __init__(self, listener: Listener | None = None) -> None:
        self._listener = listener or Listener()

    def begin(self, plan: Plan) -> None:
        """A stage begins, and something of it must be made."""

    def batches(self) -> AbstractContextManager[Listener]:
        """Return the listener of batches that are made in this process."""
        return nullcontext(self._listener)

    def counts(self) -> AbstractContextManager[Callable[[Counts], None]]:
        """Return the function that is called with the progress of jobs."""
        return nullcontext(lambda counts: None)

    def digests(self, n_files: int) -> AbstractContextManager[Callable[[int], None]]:
        """Return the function that is called with the number of files read to identify them."""
        return nullcontext(lambda n_read: None)

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
        self.keys = Keys(workspace.showing(self.display.digests))
        self.store = workspace.store
        self.recording = RunRecording(
            self.store, experiment.path if experiment.is_file else None, experiment.name
        )
        self._results: list[Artifact] = []

    @cached_property
    def sources(self) -> dict[str, str]:
        """Digests of the code of the user's types."""
        return source_digests()

    @cached_property
    def context(self) -> Context:
        """The context that plans run in; made when first needed, since it asks git for commits."""
        return Context(
            self.keys, self.store, find_recipe, CodeVersion.of(self.experiment.path, self.sources)
        )

    def plans(self) -> Iterator[Plan]:
        """Yield the plan of each stage, up to the first that lacks a target."""
        for specs in self.experiment.stages(self._load_stage):
            plan = make_plan(specs, self.keys, self.store, self.sources)
            yield plan
            if not plan.done:
                return

    @gc_paused()
    def plan(self, specs: Iterable[Artifact]) -> Plan:
        """Record what specs need, then plan them. Raise what `make_plan` raises.

        These are steps R1 to R3 of the protocol in store/gc/collector.py: a concurrent collection
        either knows what this run wants, or ends before this run looks into the store.
        """
        specs = list(specs)
        targets = [(spec.kind, self.keys.of(spec)) for spec in specs]
        graph = self.recording.known_graph(targets) or graph_of(specs, self.keys)
        self.recording.add_targets(targets, graph, declared_types())
        wait_for_collectors(self.store)
        return make_plan(specs, self.keys, self.store, self.sources)

    def make(self, plan: Plan) -> tuple[Plan, RunResult]:
        """Make what a plan lacks. Where an input was removed meanwhile, plan and make again.

        Return the last plan, and all that was made. Raise SpecError as `run_plan` does.
        """
        targets = [plan.nodes[key].spec for key in plan.targets]
        result = self._execute(plan)
        for _ in range(REPLANS):
            if not input_vanished(plan, result, self.store):
                break
            before, plan = result, self.plan(targets)
            result = self._execute(plan)
            result.made = before.made + result.made
            result.made_elsewhere = before.made_elsewhere + result.made_elsewhere
        return plan, result

    def run(self) -> Iterator[tuple[Plan, RunResult]]:
        """Make and yield stage after stage, up to the first that fails."""
        try:
            for specs in self.experiment.stages(self._load_stage):
                plan, result = self.plan(specs), RunResult()
                if not plan.done:
                    self.display.begin(plan)
                    plan, result = self.make(plan)
                yield plan, result
                if not result.ok:
                    return
                self._results += [spec for spec in specs if spec.kind == "results"]
            self.recording.complete()
        finally:
            self.recording.close()

    def report(self) -> Report | None:
        """Return the experiment's report of all results; None if it defines no report."""
        if self.experiment.report is None:
            return None
        from saevx.experiments.report import make_report

        with _without_warnings():
            table = table_of(self._results, self.keys, self.store) if self._results else None
        return make_report(self.experiment, table)

    def _execute(self, plan: Plan) -> RunResult:
        execution = self.execution
        if execution.is_inline:
            with self.display.batches() as listener:
                return run_plan(plan, self.context, listener)
        from saevx.dispatch.coordinator import Coordinator
        from saevx.dispatch.run_request import Request

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
            return Coordinator(plan, self.context, execution.make_executor(), request).run()

    def _load_stage(self, specs: list[Artifact]) -> Any:
        """Return the table of specs that all load as tables, else a list of what each loads as."""
        import polars as pl

        with _without_warnings():
            loaded = [load(spec, self.keys, self.store) for spec in specs]
            are_tables = all(spec.kind == "results" for spec in specs)
            if are_tables and all(isinstance(one, pl.DataFrame) for one in loaded):
                return table_of(specs, self.keys, self.store)
        return loaded


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Suppress warnings about suspicious results: they are shown at the end of a run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaevxWarning)
        yield
