"""`mindia worker`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

import attrs
import typer

from mindia.cli._command import Cli, command
from mindia.cli._values import duration_of

if TYPE_CHECKING:
    from mindia.domain.tasks import WorkReport


def add_to(commands: typer.Typer) -> None:
    """Add the command."""

    @command(commands, "worker")
    def worker(
        cli: Cli,
        *,
        concurrency: Annotated[int, typer.Option(min=1, help="Tasks at once.")] = 4,
        types: Annotated[
            list[str] | None, typer.Option("--type", metavar="TYPE", help="Only this type of task; repeatable.")
        ] = None,
        shutdown_timeout: Annotated[str, typer.Option(metavar="TIME", help="How long tasks have at the end.")] = "30s",
        webhooks: Annotated[bool, typer.Option(help="Deliver events to webhooks, too.")] = True,
        once: Annotated[bool, typer.Option("--once", help="Do what is due, then return.")] = False,
    ) -> None:
        """Run tasks and deliver webhooks until SIGTERM or Ctrl-C; what runs then is finished.

        Types of tasks and periodic tasks of the host are known where --app names its application.
        """
        logging.getLogger("mindia").setLevel(logging.INFO)
        if once:
            _tell(cli, cli.app.run_until_idle())
            return
        wait_s = duration_of(shutdown_timeout).total_seconds()
        work = cli.app.worker(concurrency=concurrency, types=types, shutdown_timeout_s=wait_s, webhooks=webhooks)
        cli.out.say("working; SIGTERM or Ctrl-C ends it")
        _tell(cli, work.run())


def _tell(cli: Cli, report: WorkReport) -> None:
    names = [field.name for field in attrs.fields(type(report))]
    cli.out.item(report, shown=[(name.replace("_", " "), getattr(report, name)) for name in names])
