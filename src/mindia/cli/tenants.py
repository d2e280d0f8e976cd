"""`mindia tenants`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from mindia.cli._command import Cli, command
from mindia.cli._output import size_of
from mindia.cli._values import metadata_of
from mindia.errors import InvalidError

if TYPE_CHECKING:
    from mindia import Tenant

group = typer.Typer(help="Keep tenants.", no_args_is_help=True, rich_markup_mode=None)

_Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="Name or id.")]


@command(group, "list")
def list_(cli: Cli) -> None:
    """List tenants, also those that are suspended or deleted."""
    cli.out.items(
        cli.app.tenants.list(),
        columns=("id", "name", "status", "bucket", "made"),
        row=lambda each: (each.id, each.name, each.status, each.s3_bucket, each.created_at),
    )


@command(group, "show")
def show(cli: Cli, which: _Tenant) -> None:
    """Show a tenant, and its own limits."""
    _tell(cli, _found(cli, which))


@command(group, "create")
def create(
    cli: Cli,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    *,
    bucket: Annotated[str | None, typer.Option(help="Its bucket.")] = None,
    region: Annotated[str | None, typer.Option(help="Of the bucket.")] = None,
) -> None:
    """Make a tenant."""
    _tell(cli, cli.app.tenants.create(name, s3_bucket=bucket, s3_region=region))


@command(group, "rename")
def rename(cli: Cli, which: _Tenant, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Give a tenant another name."""
    _tell(cli, cli.app.tenants.rename(_found(cli, which).id, name))


@command(group, "suspend")
def suspend(cli: Cli, which: _Tenant) -> None:
    """Refuse a tenant everywhere, until it is reactivated."""
    _tell(cli, cli.app.tenants.suspend(_found(cli, which).id))


@command(group, "reactivate")
def reactivate(cli: Cli, which: _Tenant) -> None:
    """Serve a suspended tenant again."""
    _tell(cli, cli.app.tenants.reactivate(_found(cli, which).id))


@command(group, "delete")
def delete(
    cli: Cli, which: _Tenant, *, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Delete a tenant: it is refused at once, and maintenance removes all that it has."""
    found = _found(cli, which)
    if not yes:
        cli.out.warn(f"All of {found.name!r} ({found.id}) will be removed for good. Its name, to go on:")
        if input() != found.name:
            raise InvalidError("that is not its name: nothing was deleted")
    cli.app.tenants.delete(found.id)
    cli.out.say("deleted; `mindia maintenance remove-deleted-tenants` or a worker removes what it has")


@command(group, "set-quota")
def set_quota(
    cli: Cli,
    which: _Tenant,
    *,
    max_items: Annotated[int | None, typer.Option(min=0, help="How many items; any number by default.")] = None,
    max_bytes: Annotated[int | None, typer.Option(min=0, help="How many bytes; any number by default.")] = None,
) -> None:
    """Say how much a tenant may have."""
    from mindia.domain.tenants import Quota

    quota = Quota(max_items=max_items, max_total_bytes=max_bytes)
    cli.app.tenants.set_quota(_found(cli, which).id, quota)
    size = None if max_bytes is None else size_of(max_bytes)
    cli.out.item(quota, shown=(("items", max_items), ("size", size)))


@command(group, "set-limits")
def set_limits(
    cli: Cli,
    which: _Tenant,
    limits: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=VALUE]...", help="max_image_bytes=5000000, language=german; none: no own ones."),
    ] = None,
) -> None:
    """Give a tenant limits of its own, in place of all those that it had."""
    from mindia.domain.tenants import MediaLimits

    known = [field.name for field in attrs.fields(MediaLimits)]
    given: dict[str, Any] = metadata_of(limits)
    for name in given:
        if name not in known:
            raise InvalidError(f"there is no limit {name!r}; known: {', '.join(known)}")
    _tell(cli, cli.app.tenants.set_limits(_found(cli, which).id, MediaLimits(**given)))


@command(group, "import")
def import_(
    cli: Cli,
    archive: Annotated[str, typer.Argument(metavar="ARCHIVE", help="Of `mindia export`.")],
    *,
    name: Annotated[str | None, typer.Option(help="Of the new tenant; as in the archive by default.")] = None,
    keep_ids: Annotated[bool, typer.Option(help="Whether items keep their ids.")] = True,
) -> None:
    """Make a tenant of an archive."""
    with cli.out.progress("import") as tell:
        report = cli.app.tenants.import_archive(
            archive, name=name, keep_ids=keep_ids, progress=lambda each: tell(each.done, "")
        )
    cli.out.item(report, shown=(("tenant", report.tenant.name), ("id", report.tenant.id)))


def _found(cli: Cli, name: str) -> Tenant:
    from mindia.cli._connect import tenant_of

    return tenant_of(cli.app, name)


def _tell(cli: Cli, tenant: Tenant) -> None:
    cli.out.item(
        tenant,
        shown=(
            ("id", tenant.id),
            ("name", tenant.name),
            ("status", tenant.status),
            ("bucket", tenant.s3_bucket),
            ("region", tenant.s3_region),
            (
                "limits",
                {name: value for name, value in attrs.asdict(tenant.limits).items() if value is not None} or None,
            ),
        ),
    )
