"""An experiment: what to make, in one stage or several, and what to report of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from inspect import isgenerator, isgeneratorfunction
from pathlib import Path
from typing import Any

from saevx.errors import ExperimentError
from spec import Artifact


@dataclass(frozen=True)
class Experiment:
    """What an experiment file defines, or what a notebook passes."""

    path: Path | None
    """The file of its code, which jobs run a copy of; None for code in a notebook's cells."""
    targets: Any
    """Specs, or a function that returns specs or yields several lists of them."""
    report: Callable[..., Any] | None = None
    """Takes the table of all results; returns frames and charts, by name."""
    files: tuple[Path, ...] = ()
    """What `job_files` names: files and folders, besides the code, that jobs get a copy of."""
    is_file: bool = True
    """Whether this is all that the file defines, so that its last run keeps what it wants."""

    @property
    def name(self) -> str:
        """The file's name without .py."""
        return self.path.stem if self.path else "notebook"

    @property
    def label(self) -> str:
        """What messages call it."""
        return str(self.path or self.name)

    @property
    def is_staged(self) -> bool:
        """Whether later specs may depend on the tables of earlier ones."""
        return isgeneratorfunction(self.targets) or _is_staged(self.targets)

    def stages(self, give_back: Callable[[list[Artifact]], Any]) -> Iterator[list[Artifact]]:
        """Yield lists of specs, each to be made before the next one is asked for.

        A staged experiment receives what `give_back` returns for its last list. Raises
        ExperimentError when the user's code fails, or gives something other than specs.
        """
        found = self.call(self.targets) if callable(self.targets) else self.targets
        if not _is_staged(found):
            yield self._check(found)
            return
        specs = None
        while True:
            given = give_back(specs) if specs else None
            try:
                specs = found.send(given)
            except StopIteration:
                break
            except (Exception, SystemExit) as error:
                raise user_error(self.path, error) from error
            specs = self._check(specs)
            yield specs
        if not specs:
            raise ExperimentError(f"{self.label}: targets yield nothing: there is nothing to make")

    def call(self, code: Callable[..., Any], *args: Any) -> Any:
        """Call the user's code. Raises ExperimentError with the failing lines when it raises."""
        try:
            return code(*args)
        except (Exception, SystemExit) as error:
            raise user_error(self.path, error) from error

    def _check(self, specs: Any) -> list[Artifact]:
        if isinstance(specs, Artifact) or not isinstance(specs, Iterable):
            raise ExperimentError(
                f"{self.label}: targets give {type(specs).__name__}; they must be a list of specs"
            )
        found: list[Artifact] = self.call(list, specs)
        if not found:
            raise ExperimentError(
                f"{self.label}: targets are an empty list: there is nothing to make"
            )
        for i, spec in enumerate(found):
            if not isinstance(spec, Artifact) or not hasattr(type(spec), "kind"):
                raise ExperimentError(
                    f"{self.label}: target {i} is {spec!r:.200}; each must be the spec of an "
                    "artifact, as Shards(...) or TraitAP(...)"
                )
        return found


def _is_staged(targets: Any) -> bool:
    """Return whether it is a generator that receives tables, not a generator expression."""
    return isgenerator(targets) and targets.gi_code.co_name != "<genexpr>"


def user_error(path: Path | None, error: BaseException) -> ExperimentError:
    """Return an error of the user's code with the lines of that code that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not path or Path(f.filename).resolve() == path.resolve()]
    where = "".join(traceback.format_list(own[-3:]))
    text = "".join(traceback.format_exception_only(error)).strip()
    return ExperimentError(f"{path or 'the notebook'} raised an error:\n{where}{text}")
