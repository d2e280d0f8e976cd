"""`mindia maintenance`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from mindia.cli._command import Cli, command, interruptible
from mindia.cli._exit_codes import ExitCode
from mindia.cli._output import size_of
from mindia.cli._values import duration_of
from mindia.errors import InvalidError

if TYPE_CHECKING:
    from mindia.domain.maintenance import MaintenanceReport
    from mindia.services.maintenance import Maintenance

group = typer.Typer(help="Remove what is not needed, and verify the rest.", no_args_is_help=True, rich_markup_mode=None)

_DryRun = Annotated[bool, typer.Option("--dry-run", help="Only look.")]
_OlderThan = Annotated[
    str | None, typer.Option(metavar="TIME", help="Instead of the setting staging_grace; see the page on maintenance.")
]


@command(group, "remove-expired")
def remove_expired(cli: Cli, *, dry_run: _DryRun = False) -> ExitCode:
    """Delete items that have expired."""
    return _tell(cli, cli.app.maintenance.remove_expired(dry_run=dry_run))


@command(group, "remove-deleted")
def remove_deleted(cli: Cli, *, dry_run: _DryRun = False) -> ExitCode:
    """Remove the bytes of deleted items."""
    return _tell(cli, cli.app.maintenance.remove_deleted(dry_run=dry_run))


@command(group, "sweep-staged")
def sweep_staged(cli: Cli, *, older_than: _OlderThan = None, dry_run: _DryRun = False) -> ExitCode:
    """Remove bytes that no item was made of."""
    return _tell(cli, cli.app.maintenance.sweep_staged(older_than=_span(older_than), dry_run=dry_run))


@command(group, "remove-uploads")
def remove_uploads(cli: Cli, *, older_than: _OlderThan = None, dry_run: _DryRun = False) -> ExitCode:
    """Remove what is left of direct uploads whose time is over."""
    return _tell(cli, cli.app.maintenance.remove_uploads(older_than=_span(older_than), dry_run=dry_run))


@command(group, "verify")
def verify(
    cli: Cli,
    *,
    hash_fraction: Annotated[float, typer.Option(min=0, max=1, help="Of how many items all bytes are read.")] = 1.0,
    repair: Annotated[
        list[str] | None,
        typer.Option(metavar="restore|remove_orphans|delete_items", help="By default nothing; repeatable."),
    ] = None,
    after: Annotated[str | None, typer.Option(metavar="PLACE", help="The `next` of an earlier run.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many items and objects.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Items at once.")] = 4,
) -> ExitCode:
    """Hold rows against bytes, and bytes against rows. Without --repair it only looks; --tenant narrows it down."""
    tenant = cli.tenant if cli.configuration.tenant is not None else None
    with interruptible(cli.out, what="the batch under way") as stop, cli.out.progress("verify") as tell:
        report = cli.app.maintenance.verify(
            tenant=tenant,
            hash_fraction=hash_fraction,
            repair=repair or (),
            after=after,
            limit=limit,
            concurrency=concurrency,
            progress=lambda each: tell(each.items_checked + each.objects_checked, ""),
            cancel=stop,
        )
    if not cli.out.as_json:
        cli.out.items(
            report.findings,
            columns=("problem", "item", "object", "detail", "repair"),
            row=lambda each: (each.problem, each.media_id, f"{each.s3_bucket}/{each.s3_key}", each.detail, each.repair),
        )
    cli.out.item(
        report,
        shown=(
            ("items", report.items_checked),
            ("bytes read", size_of(report.bytes_hashed)),
            ("objects", report.objects_checked),
            ("clean", report.is_clean),
            ("next", report.next),
            ("error", report.error),
        ),
    )
    return _ended(report.error, is_stopped=stop.is_set(), is_fine=report.is_clean)


@command(group, "copy-objects")
def copy_objects(
    cli: Cli,
    *,
    after: Annotated[str | None, typer.Option(metavar="PLACE", help="The `next` of an earlier run.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many objects.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Objects at once.")] = 4,
    dry_run: _DryRun = False,
) -> ExitCode:
    """Copy objects from the old storage to the new one, of a library that has both; --tenant narrows it down."""
    from mindia.storage.moving import MovingStorage

    storage = cli.app.storage
    if not isinstance(storage, MovingStorage):
        raise InvalidError(
            "the library has one storage, so there is nothing to move: name where objects were with MINDIA_OLD_STORAGE "
            "or old_storage in mindia.toml, and where they are to be with storage"
        )
    tenant = cli.tenant if cli.configuration.tenant is not None else None
    with interruptible(cli.out, what="the batch under way") as stop, cli.out.progress("copy") as tell:
        report = cli.app.maintenance.copy_objects(
            storage.old,
            storage.new,
            tenant=tenant,
            after=after,
            limit=limit,
            concurrency=concurrency,
            dry_run=dry_run,
            progress=lambda each: tell(each.copied + each.already_there + each.failed, ""),
            cancel=stop,
        )
    if not cli.out.as_json:
        cli.out.items(
            report.problems,
            columns=("tenant", "object", "detail"),
            row=lambda each: (each.tenant_id, f"{each.s3_bucket}/{each.s3_key}", each.detail),
        )
    cli.out.item(
        report,
        shown=(
            ("would be copied" if dry_run else "copied", report.copied),
            ("size", size_of(report.bytes_copied)),
            ("there before", report.already_there),
            ("failed", report.failed),
            ("next", report.next),
            ("error", report.error),
        ),
    )
    return _ended(report.error, is_stopped=stop.is_set(), is_fine=not report.failed)


@command(group, "remove-deleted-tenants")
def remove_deleted_tenants(cli: Cli, *, older_than: _OlderThan = None) -> ExitCode:
    """Remove all that deleted tenants have left; what they have staged a while ago only."""
    reports = cli.app.maintenance.remove_deleted_tenants(staged_older_than=_span(older_than))
    cli.out.items(
        reports,
        columns=("tenant", "rows", "objects", "size", "complete"),
        row=lambda each: (
            each.tenant_id,
            each.rows_removed,
            each.objects_removed,
            size_of(each.bytes_removed),
            each.is_complete,
        ),
    )
    return ExitCode.UNAVAILABLE if any(report.error is not None for report in reports) else ExitCode.OK


@command(group, "index-vectors")
def index_vectors(cli: Cli) -> None:
    """Make and drop the indexes over the vectors of large tenants."""
    cli.out.item(cli.app.maintenance.index_vectors(), shown=(("done", True),))


def _counted(name: str, what: str, step: Callable[[Maintenance], int]) -> None:
    def run(cli: Cli) -> None:
        count = step(cli.app.maintenance)
        cli.out.item({"step": name, "count": count}, kind="maintenance_count", shown=((name, count),))

    run.__doc__ = what
    command(group, name)(run)


_counted(
    "remove-login-failures",
    "Forget failed log-ins that are held against nobody any more.",
    lambda maintenance: maintenance.remove_login_failures(),
)
_counted(
    "remove-old-deliveries",
    "Remove old deliveries to webhooks.",
    lambda maintenance: maintenance.remove_old_deliveries(),
)
_counted(
    "remove-old-requests", "Remove old requests from the log.", lambda maintenance: maintenance.remove_old_requests()
)
_counted(
    "remove-retired-spaces",
    "Remove vectors that reindexing has replaced.",
    lambda maintenance: maintenance.remove_retired_spaces(),
)
_counted(
    "renew-webhook-secrets",
    "Encrypt secrets of webhooks with the present key.",
    lambda maintenance: maintenance.renew_webhook_secrets(),
)


def _span(text: str | None) -> timedelta | None:
    return None if text is None else duration_of(text)


def _tell(cli: Cli, report: MaintenanceReport) -> ExitCode:
    cli.out.item(
        report,
        shown=(
            ("found", report.found),
            ("removed", "nothing: only looked" if report.is_dry_run else report.removed),
            ("failed", report.failed),
            ("error", report.error),
        ),
    )
    return ExitCode.UNAVAILABLE if report.failed else ExitCode.OK


def _ended(error: Exception | str | None, *, is_stopped: bool, is_fine: bool) -> ExitCode:
    if is_stopped:
        return ExitCode.INTERRUPTED
    if error is not None:
        return ExitCode.UNAVAILABLE
    return ExitCode.OK if is_fine else ExitCode.ERROR
