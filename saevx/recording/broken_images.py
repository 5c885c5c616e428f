"""Find all broken images of a set after the first one was found."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

from spec import DatasetError

BUDGET_S = 60.0
"""Time limit of the check, so that an error is reported within a minute on any dataset."""

SHOWN = 10
"""Broken images named in the error."""

AHEAD = 64
"""Images being checked or queued."""

REPORT_S = 0.2
"""Time between progress reports."""


def report_broken(
    first: DatasetError,
    load: Callable[[int], Any],
    others: Sequence[int],
    pool: ThreadPoolExecutor,
    on_check: Callable[[int], None] | None = None,
) -> DatasetError:
    """Return one error for `first` and all that `load` raises for the `others`, in their order.

    Checks others for BUDGET_S seconds; the error says how many were not checked. `on_check` is
    called with the number of checked images.
    """
    faults = [str(first)]
    upcoming, waiting = iter(others), deque[Future[Any]]()
    deadline, reported, n_checked = time.monotonic() + BUDGET_S, 0.0, 0
    while time.monotonic() < deadline:
        wanted = islice(upcoming, AHEAD - len(waiting))
        waiting.extend(pool.submit(_fault, load, i) for i in wanted)
        if not waiting:
            break
        fault = waiting.popleft().result()
        n_checked += 1
        if fault is not None:
            faults.append(fault)
        if on_check is not None and time.monotonic() > reported + REPORT_S:
            reported = time.monotonic()
            on_check(n_checked)
    if len(faults) == 1 and n_checked == len(others):
        return first
    return _summary(faults, len(others) - n_checked)


def _fault(load: Callable[[int], Any], i: int) -> str | None:
    try:
        load(i)
    except DatasetError as error:
        return str(error)
    return None


def _summary(faults: list[str], n_left: int) -> DatasetError:
    many = f"{len(faults):,} images are broken:\n" if len(faults) > 1 else ""
    more = f"\n... and {len(faults) - SHOWN:,} more" if len(faults) > SHOWN else ""
    left = f"\n{n_left:,} images were not checked, to limit the time" if n_left else ""
    return DatasetError(many + "\n".join(faults[:SHOWN]) + more + left)
