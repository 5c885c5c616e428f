"""Options that several commands share, and the exit of commands on errors and signals."""

from __future__ import annotations

import functools
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

DETACHED = 3
"""Exit code of a command that leaves jobs running."""

store_option = click.option(
    "--store", metavar="FOLDER", help="Root of the store, instead of the configured one."
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document, for programs."
)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Clean up on SIGTERM as on Ctrl-C."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def warn(problems: Iterable[str]) -> None:
    for problem in problems:
        click.echo(f"warning: {problem}", err=True)


def clear_errors(command: F) -> F:
    """Turn saevx's own errors into a message and exit code 1; other errors keep their traceback.

    Ctrl-C and SIGTERM print how to resume, and exit with 130.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with _sigterm_as_interrupt():
                return command(*args, **kwargs)
        except KeyboardInterrupt:
            click.echo("stopped: what is made stays; run it again to go on from there", err=True)
            sys.exit(128 + signal.SIGINT)
        except Exception as error:
            from saevx.errors import Detached, SaevxError  # here, since it loads every spec

            if not isinstance(error, SaevxError):
                raise
            if isinstance(error, Detached):
                as_json = kwargs.get("as_json")
                click.echo(json.dumps({"detached": str(error)}) if as_json else str(error))
                sys.exit(DETACHED)
            if kwargs.get("as_json"):
                click.echo(json.dumps({"error": str(error), "type": type(error).__name__}))
            else:
                click.echo(f"error: {error}", err=True)
            sys.exit(1)

    return wrapped  # type: ignore[return-value]
