"""Whether elements go on, for who waits for their end without running them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from store.owner import Life

from . import slurm
from .executors import Slurm, local_life
from .flights import GRACE_S, Flight
from .records import Element
from .slurm import GONE_AFTER_S


class Waiting:
    """Flights that somebody else submitted, and perhaps nobody watches: then one that is killed
    leaves no outcome."""

    def __init__(self, flights: Sequence[Flight]) -> None:
        self._flights = flights
        self._asked = float("-inf")
        self._gone_since: dict[Element, float] = {}

    def over(self) -> bool:
        """Whether all have ended, as far as is known."""
        left = self._open()
        now = time.monotonic()
        if left and now - self._asked >= min(Slurm.poll_s, GRACE_S):
            self._asked = now
            gone = [flight.element for flight in _gone(left)]
            self._gone_since = {one: self._gone_since.get(one, now) for one in gone}
            left = self._open()  # what ended between the two looks has written it down by now
        # An outcome may be on its way through a file server.
        return all(now - self._gone_since.get(one.element, now) >= GRACE_S for one in left)

    @property
    def lost(self) -> list[Flight]:
        """Those that nobody runs any more, and that have not said how they ended."""
        return [flight for flight in self._open() if flight.element in self._gone_since]

    def _open(self) -> list[Flight]:
        return [f for f in self._flights if not f.folder.outcome(f.element.array, f.element.at)]


def _gone(flights: Sequence[Flight]) -> list[Flight]:
    """Those that nobody runs; none of Slurm's where it gives no answer."""
    ours = [flight for flight in flights if flight.at_slurm]
    users = {flight.folder.info.user for flight in ours}
    live = slurm.states({flight.slurm_job.array for flight in ours}, users)
    gone = [flight for flight in ours if live is not None and flight.slurm_job not in live]
    for flight in flights:
        if flight.is_local:
            if local_life(flight.job) is Life.DEAD:
                gone.append(flight)
        elif not flight.job:  # submitted by nobody yet, or by a run that has died
            array = flight.folder.array(flight.element.array)
            if array is None or time.time() - array.submitted > GONE_AFTER_S:
                gone.append(flight)
    return gone
