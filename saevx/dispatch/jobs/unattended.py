"""Whether elements go on, for who waits for their end without running them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from saevx.dispatch.executors import Slurm, statuses
from saevx.dispatch.executors.base import JobState
from saevx.dispatch.jobs.job import Job
from saevx.dispatch.messages import ArrayTask


class UnattendedJobs:
    """Flights that somebody else submitted, and perhaps nobody watches: then one that is killed
    leaves no outcome."""

    def __init__(self, flights: Sequence[Job]) -> None:
        self._flights = flights
        self._asked = float("-inf")
        self._gone_since: dict[ArrayTask, float] = {}

    def over(self) -> bool:
        """Whether all have ended, as far as is known."""
        left = self._open()
        now = time.monotonic()
        if left and now - self._asked >= Slurm.grace_s:
            self._asked = now
            seen = statuses(left)
            gone = [element for element, one in seen.items() if one.state is JobState.GONE]
            self._gone_since = {one: self._gone_since.get(one, now) for one in gone}
            left = self._open()  # what ended between the two looks has written it down by now
        # An outcome may be on its way through a file server.
        return all(now - self._gone_since.get(one.task, now) >= Slurm.grace_s for one in left)

    @property
    def lost(self) -> list[Job]:
        """Those that nobody runs any more, and that have not said how they ended."""
        return [flight for flight in self._open() if flight.task in self._gone_since]

    def _open(self) -> list[Job]:
        return [f for f in self._flights if not f.folder.outcome(*f.position)]
