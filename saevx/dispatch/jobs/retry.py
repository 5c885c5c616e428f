"""The retry policy, and what is reported of attempts that failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from saevx.dispatch.messages import Outcome, Result, TaskStatus

MEMORY_FACTOR = 1.5
"""Memory of the retry of a task that ran out of memory, relative to what it had."""

RETRIES = {
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
"""How often a key that ended so is submitted again; never if it is not listed."""

RETRIES_AFTER_PROGRESS = 20
"""The same for a key whose job ran out of time, while each attempt gets further."""

TAIL_LINES = 10
"""Lines at the end of a log that a report shows."""


class Attempt(NamedTuple):
    """One attempt at making a key that failed."""

    result: Result
    where: str
    """Job and log, for people."""
    progressed: bool = False
    executor: str = "slurm"
    outcome: Outcome = Outcome(results={})
    """Of its task."""
    memory_gb: float | None = None
    """The memory that was too little, where a retry can get more."""


def may_retry(attempts: Sequence[Attempt]) -> bool:
    """Whether a key with these failed attempts is to be submitted again."""
    for status, n in Counter(attempt.result.status for attempt in attempts).items():
        same = [attempt for attempt in attempts if attempt.result.status is status]
        if status is TaskStatus.TIME_LIMIT:
            if n > RETRIES_AFTER_PROGRESS or not all(one.progressed for one in same):
                return False
        elif n > RETRIES.get(status, 0):
            return False
        elif status is TaskStatus.OUT_OF_MEMORY and same[-1].memory_gb is None:
            return False  # a retry would get no more memory
    return True


def facts(outcome: Outcome) -> str:
    """What is known of how the process of a task ended, for people; "" for nothing."""
    known = []
    if outcome.exit_code not in ("", "0:0"):
        known.append(f"exit code {outcome.exit_code}")
    if outcome.wall_s or known:  # Slurm counts whole seconds
        known.append(f"after {outcome.wall_s:,.0f} s")
    if outcome.peak_memory_bytes:
        limit = f" of {outcome.memory_bytes / 2**20:,.0f}" if outcome.memory_bytes else ""
        known.append(f"it used {outcome.peak_memory_bytes / 2**20:,.0f} MiB{limit}")
    return ", ".join(known)


def advise(attempt: Attempt) -> str:
    """What may help; "" where nothing is known to."""
    is_slurm = attempt.executor == "slurm"
    more = "raise memory_gb in its profile" if is_slurm else "use fewer --jobs"
    match attempt.result.status:
        case TaskStatus.OUT_OF_MEMORY:
            return more
        case TaskStatus.KILLED if attempt.outcome.exit_code.endswith(":9"):
            return f"perhaps it ran out of memory: {more}"
        case TaskStatus.TIME_LIMIT:
            return "raise hours in its profile"
        case TaskStatus.CANCELLED:
            return "run again to submit it again"
    return ""


def from_earlier_run(where: str) -> str:
    """Say of the place of an attempt that an earlier run made it."""
    return (
        f"{where}\nin an earlier run of the same code: "
        "use --retry-failed, or change the code, to try it again"
    )


def describe(attempts: Sequence[Attempt], tail: str = "") -> str:
    """Say why a key was given up: its last attempt, and how many there were.

    `tail` is the end of its log, shown where the result itself does not say why.
    """
    last = attempts[-1]
    status, message = last.result.status, last.result.message
    says_why = (TaskStatus.ERROR, TaskStatus.BLOCKED, TaskStatus.NOT_SEEN, TaskStatus.PART)
    if status in says_why:
        lines, tail = [message or status.value], ""
    else:
        known = ", ".join(filter(None, (message, facts(last.outcome))))
        lines = [": ".join(filter(None, (status.value, known)))]
    tried = f"tried {len(attempts)} times" if len(attempts) > 1 else ""
    lines += filter(None, ("; ".join(filter(None, (tried, advise(last)))), last.where))
    lines += [f"| {line}" for line in tail.splitlines()[-TAIL_LINES:]]
    return "\n".join(lines)


def read_tail(files: Iterable[Path]) -> str:
    """The last lines of the first file; of the others, as many as there is room for."""
    lines: list[str] = []
    for file in files:
        with suppress(OSError), open(file, "rb") as opened:
            opened.seek(max(0, file.stat().st_size - 10_000))
            text = opened.read().decode(errors="replace").strip()
            room = TAIL_LINES - len(lines)
            lines += text.splitlines()[-room:] if room else []
    return "\n".join(lines)
