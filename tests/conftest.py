"""What all tests need."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("saevx", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("saevx")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite in two processes, unless -n says otherwise; named files in this one."""
    option = config.option
    is_whole = config.args_source is not pytest.Config.ArgsSource.ARGS
    is_free = getattr(option, "numprocesses", 0) is None and not option.usepdb
    if is_whole and is_free and not hasattr(config, "workerinput"):
        option.numprocesses = 2
        if option.dist == "no":
            option.dist = "loadfile"  # each module's fixtures are made once


def pytest_configure() -> None:
    """Let Ctrl-C work in what tests start: a shell's background jobs begin with it ignored."""
    # Two processes of tests, each with a thread for every core, would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
