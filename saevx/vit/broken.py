"""Finding every image of a set that cannot be used, once one was found that cannot."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

from spec import DatasetError

BUDGET_S = 60.0
"""How long the other images are looked at: a fault is told within a minute on any dataset."""

SHOWN = 10
"""Broken images that are named."""

AHEAD = 64
"""Images looked at or about to be."""

REPORT_S = 0.2
"""Time between two reports of progress."""


def report_broken(
    first: DatasetError,
    load: Callable[[int], Any],
    others: Sequence[int],
    pool: ThreadPoolExecutor,
    on_check: Callable[[int], None] | None = None,
) -> DatasetError:
    """One error for `first` and all those that `load` raises over the `others`, in their order.

    Looks at others for BUDGET_S seconds, and says how many it did not get to. `on_check` is called
    with the number looked at.
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
    many = f"{len(faults):,} images cannot be used:\n" if len(faults) > 1 else ""
    more = f"\n... and {len(faults) - SHOWN:,} more" if len(faults) > SHOWN else ""
    left = f"\n{n_left:,} images were not looked at, to keep this short" if n_left else ""
    return DatasetError(many + "\n".join(faults[:SHOWN]) + more + left)
