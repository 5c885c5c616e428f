"""The command line. A command is imported only when it is used, so that `--help` is fast."""

from importlib import import_module
from typing import Any

import click

from saevx.output import replace_unencodable, report_write_failures

COMMANDS = {
    "run": ("run.run:run", "Make what an experiment lacks, and print its report."),
    "plan": ("run.plan:plan", "Show what `run` would make, and why; run nothing."),
    "status": ("jobs.status:status", "Show what is queued and running, and its progress."),
    "logs": ("jobs.logs:logs", "Print the log of the job that makes an artifact."),
    "cancel": ("jobs.cancel:cancel", "Cancel what is queued or running."),
    "ls": ("artifacts.ls:ls", "List the artifacts in the store."),
    "show": ("artifacts.show:show", "Show one artifact, its inputs and its provenance."),
    "why": ("maintenance.why:why", "Show what keeps an artifact, or why it is stale."),
    "gc": ("maintenance.gc:gc", "Move artifacts that nothing needs to the trash."),
    "pin": ("maintenance.pin:pin", "Keep an artifact in any case; list the pins."),
    "unpin": ("maintenance.pin:unpin", "Remove the pin of an artifact."),
    "restore": ("maintenance.pin:restore", "Restore an artifact from the trash."),
    "doctor": ("maintenance.doctor:doctor", "Check the store; --fix moves damage to the trash."),
    "export": ("artifacts.export:export", "Copy artifacts to another store, or to a file."),
    "import": ("artifacts.import_:import_", "Copy artifacts from another store."),
}
"""Name -> module and function below saevx.cli, and the line in the help, which imports none."""


class LazyGroup(click.Group):
    """A group that imports a command only to run it or to print its own help."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        replace_unencodable()
        with report_write_failures():
            return super().main(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(f"saevx.cli.{module}"), name)
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
