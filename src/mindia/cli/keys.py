"""`mindia keys`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mindia.cli._command import Cli, command
from mindia.cli._values import moment_of, uuid_of

if TYPE_CHECKING:
    from mindia import ApiKey

group = typer.Typer(help="Keep the API keys of a tenant.", no_args_is_help=True, rich_markup_mode=None)

_Id = Annotated[str, typer.Argument(metavar="ID")]


@command(group, "issue")
def issue(
    cli: Cli,
    name: Annotated[str, typer.Argument(metavar="NAME", help="For people.")],
    *,
    role: Annotated[str, typer.Option("--role", metavar="admin|member|viewer", help="What may be done with it.")],
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="2027-03-01, or 90d from now; never by default.")
    ] = None,
) -> None:
    """Make a key. It is shown this once."""
    expires_at = None if expires is None else moment_of(expires)
    issued = cli.library.api_keys.issue(name, role=role, expires_at=expires_at)
    cli.out.item(issued, shown=[*_facts(issued.key), ("key", issued.token)])
    cli.out.say("keep the key: it is not shown again")


@command(group, "list")
def list_(cli: Cli) -> None:
    """List keys, also those that are revoked or have expired."""
    cli.out.items(
        cli.library.api_keys.list(),
        columns=("id", "name", "begins with", "role", "expires", "revoked", "used"),
        row=lambda each: (
            each.id,
            each.name,
            _beginning(each),
            each.role,
            each.expires_at,
            each.revoked_at,
            each.last_used_at,
        ),
    )


@command(group, "show")
def show(cli: Cli, key_id: _Id) -> None:
    """Show a key, without its secret."""
    _tell(cli, cli.library.api_keys.get(uuid_of(key_id)))


@command(group, "revoke")
def revoke(cli: Cli, key_id: _Id) -> None:
    """Refuse a key for good."""
    _tell(cli, cli.library.api_keys.revoke(uuid_of(key_id)))


def _beginning(key: ApiKey) -> str:
    return f"mindia_{key.prefix}_"


def _facts(key: ApiKey) -> list[tuple[str, object]]:
    return [
        ("id", key.id),
        ("name", key.name),
        ("begins with", _beginning(key)),
        ("role", key.role),
        ("made", key.created_at),
        ("expires", key.expires_at),
        ("revoked", key.revoked_at),
        ("used", key.last_used_at),
    ]


def _tell(cli: Cli, key: ApiKey) -> None:
    cli.out.item(key, shown=_facts(key))
