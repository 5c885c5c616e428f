"""The command line. Commands are imported when called for, so that `saevx --help` is at once."""

from importlib import import_module
from typing import Any

import click

from saevx.output import output_failures_told, take_every_text

COMMANDS = {
    "run": ("saevx.cli.run.run:run", "Make what an experiment lacks, and print its report."),
    "plan": ("saevx.cli.run.plan:plan", "Say what `run` would make, and why; run nothing."),
    "status": (
        "saevx.cli.jobs.status:status",
        "Say what is queued and running, and how far it is.",
    ),
    "logs": ("saevx.cli.jobs.logs:logs", "Print what the job that makes an artifact has printed."),
    "cancel": ("saevx.cli.jobs.cancel:cancel", "Cancel what is queued or running."),
    "ls": ("saevx.cli.artifacts.ls:ls", "List the artifacts in the store."),
    "show": (
        "saevx.cli.artifacts.show:show",
        "Show one artifact: what it is made of, where it came from.",
    ),
    "why": ("saevx.cli.maintenance.why:why", "Say what keeps an artifact, or why it is stale."),
    "gc": ("saevx.cli.maintenance.gc:gc", "Move what nothing needs any more to the trash."),
    "pin": (
        "saevx.cli.maintenance.pin:pin",
        "Keep an artifact, whatever experiments want; list the pins.",
    ),
    "unpin": ("saevx.cli.maintenance.pin:unpin", "Let go of a pinned artifact."),
    "restore": ("saevx.cli.maintenance.pin:restore", "Bring an artifact back from the trash."),
    "doctor": (
        "saevx.cli.maintenance.doctor:doctor",
        "Find what is wrong in the store; --fix sets it aside.",
    ),
    "export": ("saevx.cli.artifacts.export:export", "Copy artifacts to a store, or one to a file."),
    "import": ("saevx.cli.artifacts.import_:import_", "Copy artifacts from another store."),
}
"""Name -> where the command is, and its line in the help (kept here, so that help loads none)."""


class LazyGroup(click.Group):
    """A group that imports a command only to run it or to print its own help."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        take_every_text()
        with output_failures_told():
            return super().main(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="The store is --store, else $SAEVX_STORE, else what saevx.toml says, else ./.saevx.",
)
@click.version_option(package_name="saevx")
def main() -> None:
    """Experiments on vision transformers' activations: say what, make only what is missing."""
