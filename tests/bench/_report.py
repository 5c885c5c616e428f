"""What every benchmark shares: rounds that alternate the sides, and the closing line of JSON.

The closing line is the last line on standard output:

    {"bench": name, "figures": {...}, "bars": {name: {"value": x, "bound": y, "holds": bool}}}
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypedDict


class Bar(TypedDict):
    """A figure that is held to a bound."""

    value: float
    bound: float
    holds: bool


def at_least(value: float, bound: float) -> Bar:
    return Bar(value=_short(value), bound=bound, holds=bool(value >= bound))


def at_most(value: float, bound: float) -> Bar:
    return Bar(value=_short(value), bound=bound, holds=bool(value <= bound))


def wall_s(run: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def median_wall_s(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each side; every round runs all sides, so a slow spell hits them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            seconds[name].append(wall_s(run))
    return {name: statistics.median(times) for name, times in seconds.items()}


def report(bench: str, figures: Mapping[str, object], bars: Mapping[str, Bar]) -> int:
    """Prints the closing line. Returns the exit status: 0 when all bars hold, else 1."""
    short = {k: _short(v) if isinstance(v, float) else v for k, v in figures.items()}
    print(json.dumps({"bench": bench, "figures": short, "bars": dict(bars)}), flush=True)
    return 0 if all(bar["holds"] for bar in bars.values()) else 1


def _short(value: float) -> float:
    """Four digits: more would be noise."""
    return float(f"{value:.4g}")
