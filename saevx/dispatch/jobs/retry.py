"""What became of jobs, and which are worth another go."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from saevx.dispatch.messages import Outcome, Result, TaskStatus

MEMORY_FACTOR = 1.5
"""What ran out of memory gets so many times as much, once."""

TRIES_AGAIN = {
    TaskStatus.PREEMPTED: 3,
    TaskStatus.NODE_FAILURE: 3,
    TaskStatus.OUT_OF_MEMORY: 1,
    TaskStatus.KILLED: 1,
    TaskStatus.VANISHED: 1,
    TaskStatus.NOT_SEEN: 1,
    TaskStatus.PART: 3,
    TaskStatus.ABANDONED: 20,
    TaskStatus.BLOCKED: 5,
}
"""How often a key that ended so is submitted again; not at all if not named here."""

TRIES_AGAIN_AFTER_PROGRESS = 20
"""How often a key whose job ran out of time is, while each go gets further."""


NOTHING = Outcome(results={})


class Attempt(NamedTuple):
    """One go at making a key, as it ended."""

    result: Result
    progressed: bool
    when: float
    code: str
    """Digest of the code that it was made with."""
    where: str
    """Job and log, for people."""
    executor: str = "slurm"
    outcome: Outcome = NOTHING
    """Of its element."""
    memory_gb: float | None = None
    """What it ran out of, where a next go can get more."""


def wants_another(attempts: Iterable[Attempt]) -> bool:
    """Whether a key with these attempts, none of which made it, is to be submitted again."""
    attempts = list(attempts)
    counts: dict[TaskStatus, int] = {}
    for attempt in attempts:
        counts[attempt.result.status] = counts.get(attempt.result.status, 0) + 1
    for end, n in counts.items():
        if end is TaskStatus.TIME_LIMIT:
            stuck = sum(not a.progressed for a in attempts if a.result.status is end)
            if stuck or n > TRIES_AGAIN_AFTER_PROGRESS:
                return False
        elif n > TRIES_AGAIN.get(end, 0):
            return False
    # What can get no more memory would run out of it again.
    return not any(
        a.result.status is TaskStatus.OUT_OF_MEMORY and a.memory_gb is None for a in attempts
    )


TAIL = 10
"""Lines at the end of a log that a report shows."""


def facts(outcome: Outcome) -> str:
    """What is known of how an element's process ended, for people; "" for nothing."""
    told = []
    if outcome.exit_code not in ("", "0:0"):
        told.append(f"exit code {outcome.exit_code}")
    if outcome.wall_s or told:  # Slurm counts whole seconds
        told.append(f"after {outcome.wall_s:,.0f} s")
    if outcome.peak_memory_bytes:
        used = f"{outcome.peak_memory_bytes / 2**20:,.0f} MiB"
        asked = f" of {outcome.memory_bytes / 2**20:,.0f}" if outcome.memory_bytes else ""
        told.append(f"it used {used}{asked}")
    return ", ".join(told)


def advise(attempt: Attempt) -> str:
    """What may help; "" where nothing is known to."""
    at_slurm = attempt.executor == "slurm"
    more = "raise memory_gb in its profile" if at_slurm else "use fewer --jobs"
    match attempt.result.status:
        case TaskStatus.OUT_OF_MEMORY:
            return more
        case TaskStatus.KILLED if attempt.outcome.exit_code.endswith(":9"):
            return f"perhaps it ran out of memory: {more}"
        case TaskStatus.TIME_LIMIT:
            return "raise hours in its profile"
        case TaskStatus.CANCELLED:
            return "run again to submit it anew"
    return ""


def earlier(where: str) -> str:
    """What is added to the place of an attempt that a run before this one made."""
    return (
        f"{where}\nin an earlier run of the same code: "
        "--retry-failed, or a change of the code, tries it again"
    )


def describe(attempts: list[Attempt], tail: str = "") -> str:
    """Why a key was given up, for people: its last attempt, and how many there were.

    `tail` is the end of its log, shown where its own words do not say why.
    """
    last = attempts[-1]
    end, message = last.result.status, last.result.message
    if end in (TaskStatus.ERROR, TaskStatus.BLOCKED, TaskStatus.NOT_SEEN, TaskStatus.PART):
        lines = [message or end.value]
        tail = ""
    else:
        known = [text for text in (message, facts(last.outcome)) if text]
        lines = [": ".join([end.value, ", ".join(known)]) if known else end.value]
    tried = f"tried {len(attempts)} times" if len(attempts) > 1 else ""
    lines += [text for text in ("; ".join(filter(None, (tried, advise(last)))), last.where) if text]
    lines += [f"| {line}" for line in tail.splitlines()[-TAIL:]]
    return "\n".join(lines)


def read_tail(files: Iterable[Path]) -> str:
    """The last lines of the first file; of the others, as many as there is room for."""
    lines: list[str] = []
    for file in files:
        with suppress(OSError), open(file, "rb") as opened:
            opened.seek(max(0, file.stat().st_size - 10_000))
            text = opened.read().decode(errors="replace").strip()
            room = TAIL - len(lines)
            lines += text.splitlines()[-room:] if room else []
    return "\n".join(lines)
