"""What became of jobs, and which are worth another go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .records import End, Result

MEMORY_FACTOR = 1.5
"""What ran out of memory gets so many times as much, once."""

TRIES_AGAIN = {
    End.PREEMPTED: 3,
    End.NODE_FAILURE: 3,
    End.OUT_OF_MEMORY: 1,
    End.KILLED: 1,
    End.VANISHED: 1,
    End.ABANDONED: 20,
    End.BLOCKED: 5,
}
"""How often a key that ended so is submitted again; not at all if not named here."""

TRIES_AGAIN_AFTER_PROGRESS = 20
"""How often a key whose job ran out of time is, while each go gets further."""


class Attempt(NamedTuple):
    """One go at making a key, as it ended."""

    result: Result
    progressed: bool
    when: float
    code: str
    """Digest of the code that it was made with."""
    where: str
    """Job and log, for people."""


def wants_another(attempts: Iterable[Attempt]) -> bool:
    """Whether a key with these attempts, none of which made it, is to be submitted again."""
    attempts = list(attempts)
    counts: dict[End, int] = {}
    for attempt in attempts:
        counts[attempt.result.end] = counts.get(attempt.result.end, 0) + 1
    for end, n in counts.items():
        if end is End.TIME_LIMIT:
            stuck = sum(not a.progressed for a in attempts if a.result.end is end)
            if stuck or n > TRIES_AGAIN_AFTER_PROGRESS:
                return False
        elif n > TRIES_AGAIN.get(end, 0):
            return False
    return True


def memory_factor(attempts: Iterable[Attempt]) -> float:
    """How much more memory the next go gets."""
    n = sum(attempt.result.end is End.OUT_OF_MEMORY for attempt in attempts)
    return float(MEMORY_FACTOR**n)


ADVICE = {
    End.OUT_OF_MEMORY: "raise memory_gb in its profile",
    End.TIME_LIMIT: "raise hours in its profile",
    End.CANCELLED: "run again to submit it anew",
    End.KILLED: "perhaps it ran out of memory: raise memory_gb in its profile, or use fewer --jobs",
}


def describe(attempts: list[Attempt]) -> str:
    """Why a key was given up, for people: its last attempt, and how many there were."""
    last = attempts[-1]
    words = last.result.end.value
    text = last.result.message or words
    if last.result.end not in (End.ERROR, End.BLOCKED):
        text = f"{words}: {last.result.message}" if last.result.message else words
    if len(attempts) > 1:
        text += f"\ntried {len(attempts)} times"
    if last.result.end in ADVICE:
        text += (
            f"; {ADVICE[last.result.end]}" if len(attempts) > 1 else f"\n{ADVICE[last.result.end]}"
        )
    return f"{text}\n{last.where}" if last.where else text
