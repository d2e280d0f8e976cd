"""The commands, put together."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from mindia.cli import (
    finding,
    importing,
    index,
    keys,
    maintenance,
    setup,
    tasks,
    tenants,
    users,
    webhooks,
    worker,
)
from mindia.cli._exit_codes import ExitCode
from mindia.cli._output import close_output, safe

_EXIT_CODES = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused, 5 conflict, 6 unavailable now, "
    "130 interrupted."
)


def application() -> typer.Typer:
    """Return the command line."""
    commands = typer.Typer(
        name="mindia",
        help="The media layer: storage, search and background work in one PostgreSQL.",
        epilog=_EXIT_CODES,
        no_args_is_help=True,
        rich_markup_mode=None,  # plain help comes in half the time
        pretty_exceptions_enable=False,
    )
    commands.callback()(_root)
    for module in (setup, importing, finding, worker):
        module.add_to(commands)
    for name, group in (
        ("tasks", tasks.group),
        ("webhooks", webhooks.group),
        ("maintenance", maintenance.group),
        ("tenants", tenants.group),
        ("users", users.group),
        ("keys", keys.group),
        ("index", index.group),
    ):
        commands.add_typer(group, name=name)
    return commands


def run() -> None:
    """Run the command line, and end the process."""
    try:
        application()(prog_name="mindia")
    except BrokenPipeError:  # of `--help`
        close_output()
        sys.exit(ExitCode.BROKEN_PIPE)


def _show_version(is_wanted: bool) -> None:  # noqa: FBT001 - as typer calls it
    if is_wanted:
        from mindia._version import __version__

        sys.stdout.write(f"mindia {__version__}\n")
        raise typer.Exit


def _root(
    *,
    version: Annotated[  # noqa: ARG001 - its callback answers
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more to standard error.")] = False,
) -> None:
    """The media layer: storage, search and background work in one PostgreSQL."""
    handler = logging.StreamHandler()
    handler.setFormatter(_SafeFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])


class _SafeFormatter(logging.Formatter):
    """Lines of a log in which nothing acts on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return "\n".join(safe(line) for line in super().format(record).split("\n"))
