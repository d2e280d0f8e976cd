"""`mindia tasks`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from mindia.cli._command import Cli, command
from mindia.cli._exit_codes import ExitCode
from mindia.cli._values import duration_of, moment_of, uuid_of

if TYPE_CHECKING:
    from mindia.domain.tasks import Task

group = typer.Typer(help="Look at background tasks, and steer them.", no_args_is_help=True, rich_markup_mode=None)

_Id = Annotated[str, typer.Argument(metavar="ID")]
_System = Annotated[bool, typer.Option("--system", help="Tasks without a tenant.")]


@command(group, "list")
def list_(
    cli: Cli,
    *,
    status: Annotated[
        str | None, typer.Option(metavar="pending|running|completed|failed|cancelled", help="Only these.")
    ] = None,
    kind: Annotated[str | None, typer.Option(metavar="TYPE", help="Only of this type.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")] = 100,
    system: _System = False,
) -> None:
    """List tasks, the newest first."""
    found = islice(cli.tasks(of_system=system).list(status=status, kind=kind), limit)
    cli.out.items(
        found,
        columns=("id", "type", "status", "retries", "for", "error"),
        row=lambda task: (
            task.id,
            task.kind,
            task.status,
            f"{task.retry_count}/{task.max_retries}",
            task.scheduled_for,
            task.error_message or "",
        ),
    )


@command(group, "show")
def show(cli: Cli, task_id: _Id, *, system: _System = False) -> None:
    """Show a task, and the attempts that failed."""
    tasks = cli.tasks(of_system=system)
    task = tasks.get(uuid_of(task_id))
    tell_task(cli, task)
    cli.out.items(
        tasks.errors(task),
        columns=("attempt", "failed", "error", "message"),
        row=lambda error: (error.attempt, error.failed_at, error.error_type, error.error_message),
    )


@command(group, "counts")
def counts(cli: Cli, *, system: _System = False) -> None:
    """Count tasks by type and status."""
    cli.out.items(
        cli.tasks(of_system=system).counts(),
        columns=("type", "status", "count"),
        row=lambda each: (each.kind, each.status, each.count),
    )


@command(group, "cancel")
def cancel(cli: Cli, task_id: _Id, *, system: _System = False) -> None:
    """Call a task off."""
    tell_task(cli, cli.tasks(of_system=system).cancel(uuid_of(task_id)))


@command(group, "retry")
def retry(cli: Cli, task_id: _Id, *, system: _System = False) -> None:
    """Have a task run again that failed or was cancelled."""
    tell_task(cli, cli.tasks(of_system=system).retry(uuid_of(task_id)))


@command(group, "reschedule")
def reschedule(
    cli: Cli,
    task_id: _Id,
    when: Annotated[str, typer.Argument(metavar="TIME", help="2026-03-01T03:00, or 2h from now.")],
    *,
    system: _System = False,
) -> None:
    """Change when a task runs that waits; `0s` is now."""
    tell_task(cli, cli.tasks(of_system=system).reschedule(uuid_of(task_id), moment_of(when)))


@command(group, "wait")
def wait(
    cli: Cli,
    task_id: _Id,
    *,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long.")] = "60s",
    system: _System = False,
) -> ExitCode:
    """Wait until a task has ended: exit code 0 where it was completed, 1 where not, 6 where it still runs."""
    task = cli.tasks(of_system=system).wait(uuid_of(task_id), timeout=duration_of(timeout))
    tell_task(cli, task)
    return ExitCode.OK if task.status == "completed" else ExitCode.ERROR


def tell_task(cli: Cli, task: Task) -> None:
    """Write a task."""
    progress = None if task.progress is None else f"{task.progress:.0%} {task.progress_note or ''}"
    cli.out.item(
        task,
        shown=(
            ("id", task.id),
            ("type", task.kind),
            ("status", task.status),
            ("retries", f"{task.retry_count} of {task.max_retries}"),
            ("progress", progress),
            ("for", task.scheduled_for),
            ("started", task.started_at),
            ("ended", task.completed_at),
            ("payload", task.payload),
            ("result", task.result),
            ("error", task.error_message),
        ),
    )
